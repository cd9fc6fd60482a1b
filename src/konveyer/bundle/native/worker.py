"""One model in a process of its own: answers what waits at its socket, in batches.

Requests that come while the model is busy are one batch when it is free again, as far as they keep
its limit of time (`batches.py`): nobody waits for a batch to fill. Forked from a family
(`family.py`) that has imported the libraries.
"""

import ctypes
import hashlib
import json
import math
import mmap
import os
import resource
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from konveyer.bundle.native.batches import Batches
from konveyer.bundle.native.frames import BadFrame, encoded, taken
from konveyer.bundle.native.model import NativeModel, load

_CLOCK = struct.Struct("d")
_SEND_WITHIN_S, _READ_BYTES, _PDEATHSIG = 1.0, 1 << 18, 1
OUT_OF_MEMORY = 77
Request = tuple[socket.socket, dict[str, Any]]


class BusySince:
    """When the current call of a worker started, shared with its family; None when it is idle."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, _CLOCK.size)

    def start(self) -> None:
        self._shared[:] = _CLOCK.pack(time.monotonic())

    def stop(self) -> None:
        self._shared[:] = _CLOCK.pack(0.0)

    def seconds(self) -> float:
        (started,) = _CLOCK.unpack(self._shared[:])
        return time.monotonic() - started if started else 0.0


def run_worker(wanted: dict[str, Any], busy: BusySince, said: Path) -> None:
    """The life of a worker, in the forked process. Does not return.

    Why it could not start is written to the file `said`, which is removed when it could.
    """
    code = 1
    try:
        _on_its_own(wanted["memory_mb"])
        busy.start()
        bundle = Path(wanted["bundle"])
        verify(bundle, wanted["digest"])
        model = load(bundle / "native", bundle / "code")
        _warm(model, bundle)
        busy.stop()
        # Why the one before it ended must not be taken for why this one will.
        said.unlink(missing_ok=True)
        code = serve(model, Path(wanted["socket"]), busy, wanted["limit_s"])
    except BaseException as error:  # noqa: BLE001 - a model may raise anything, and this is the end
        said.write_text(f"{type(error).__name__}: {error}"[:500])
    finally:
        os._exit(code)


def _on_its_own(memory_mb: int) -> None:
    """End with the family, keep the memory limit, and heed nobody's Ctrl-C.

    What the model starts is in the worker's group, which the family ends with it.
    """
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    page = resource.getpagesize()
    data = int(Path("/proc/self/statm").read_text().split()[5]) * page
    limit = data + memory_mb * 1_000_000
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def verify(bundle: Path, digest: str) -> None:
    """Raise unless every file of the bundle is the one that was reviewed, and there is no other."""
    content = (bundle / "manifest.json").read_bytes()
    files = json.loads(content)["files"] if _digest(content) == digest else {}
    for name in ("native/native.json", "code/model.py"):
        if name not in files:
            message = f"the manifest of bundle {digest} is not the one that was reviewed"
            raise ValueError(message)
    for name, expected in files.items():
        if _digest((bundle / name).read_bytes()) != expected:
            message = f"{name} of bundle {digest} was changed"
            raise ValueError(message)
    for path in sorted(bundle.rglob("*")):
        name = str(path.relative_to(bundle))
        is_folder = path.is_dir() and not path.is_symlink()
        if not is_folder and name != "manifest.json" and name not in files:
            message = f"{name} of bundle {digest} was added"
            raise ValueError(message)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _warm(model: NativeModel, bundle: Path) -> None:
    """The first answer takes longest; it is a recorded case, so that no caller waits for it."""
    cases = json.loads((bundle / "golden.json").read_text())["cases"]
    good = [case["features"] for case in cases if not case.get("error")]
    if good:
        with suppress(Exception):
            model.predict(good[:1])


def serve(model: NativeModel, path: Path, busy: BusySince, limit_s: float) -> int:
    """Answer until the process is stopped. The socket appears once it can be connected to."""
    selector = selectors.DefaultSelector()
    batches: Batches[socket.socket] = Batches(limit_s)
    draft = path.with_suffix(f".{os.getpid()}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(draft))
        listener.listen(64)
        draft.rename(path)
        selector.register(listener, selectors.EVENT_READ, None)
        os.register_at_fork(after_in_child=lambda: _close_all(selector))
        while True:
            for key, _ in selector.select(0 if batches else None):
                if key.data is None:
                    _accept(listener, selector)
                else:
                    for request in _received(key.fileobj, key.data, selector):  # type: ignore[arg-type]
                        batches.add(*request)
            requests = batches.next(time.monotonic())
            if requests and not _answer_all(model, requests, busy, batches):
                return OUT_OF_MEMORY


def _close_all(selector: selectors.BaseSelector) -> None:
    """In a process that the model forked. It may outlive the worker, whose callers would wait for
    ever on connections that it held open.
    """
    for key in [*selector.get_map().values()]:
        key.fileobj.close()  # type: ignore[union-attr] # sockets
    selector.close()


def _accept(listener: socket.socket, selector: selectors.BaseSelector) -> None:
    caller, _ = listener.accept()
    caller.settimeout(_SEND_WITHIN_S)
    selector.register(caller, selectors.EVENT_READ, bytearray())


def _received(
    caller: socket.socket, buffer: bytearray, selector: selectors.BaseSelector
) -> list[Request]:
    try:
        part = caller.recv(_READ_BYTES)
        buffer += part
        requests = [(caller, json.loads(body)) for body in taken(buffer)]
    except (OSError, BadFrame, ValueError):
        part, requests = b"", []
    if not part:
        selector.unregister(caller)
        caller.close()
    return requests


def _answer_all(
    model: NativeModel, requests: list[Request], busy: BusySince, batches: Batches[socket.socket]
) -> bool:
    """Answer all in one call of the model; where that raises, each alone. False: out of memory."""
    began_s = time.monotonic()
    rows = [row for _, request in requests for row in request["rows"]]
    has_memory = True
    try:
        outputs = _timed(model.predict, rows, busy)
        _check_length(outputs, rows)
    except MemoryError:
        has_memory, outputs = False, None
    except Exception as error:  # noqa: BLE001 - a model may raise anything
        outputs = None
        if len(requests) == 1:
            _send(requests[0], {"error": _said(error)})
            return True
    else:
        batches.took(time.monotonic() - began_s, len(rows))
    start = 0
    for request in requests:
        end = start + len(request[1]["rows"])
        if outputs is not None:
            _send(request, _reply(outputs[start:end]))
        elif has_memory:
            has_memory = _answer_alone(model, request, busy)
        else:
            _send(request, {"error": "MemoryError: the model took more than its memory limit"})
        start = end
    return has_memory


def _answer_alone(model: NativeModel, request: Request, busy: BusySince) -> bool:
    """One whose caller has given up meanwhile is not answered. False: out of memory."""
    rows = request[1]["rows"]
    if request[1]["until"] < time.monotonic():
        return True
    try:
        outputs = _timed(model.predict, rows, busy)
        _check_length(outputs, rows)
    except MemoryError as error:
        _send(request, {"error": _said(error)})
        return False
    except Exception as error:  # noqa: BLE001 - a model may raise anything
        _send(request, {"error": _said(error)})
        return True
    _send(request, _reply(outputs))
    return True


def _timed(
    predict: Callable[[Sequence[Any]], list[list[Any]]], rows: Sequence[Any], busy: BusySince
) -> list[list[Any]]:
    busy.start()
    try:
        return predict(rows)
    finally:
        busy.stop()


def _check_length(outputs: Sequence[Any], rows: Sequence[Any]) -> None:
    if len(outputs) != len(rows):
        message = f"the model gave {len(outputs)} answers to {len(rows)} rows"
        raise ValueError(message)


def _reply(outputs: list[list[Any]]) -> dict[str, Any]:
    for row in outputs:
        for value in row:
            if value is None or (isinstance(value, float) and not math.isfinite(value)):
                return {"error": "the answer is not a finite number"}
    return {"outputs": outputs}


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500].encode(errors="replace").decode()


def _send(request: Request, reply: dict[str, Any]) -> None:
    """A caller that does not read its answer loses its connection."""
    caller, asked = request
    try:
        content = encoded({"id": asked["id"], **reply})
    except (TypeError, ValueError) as error:
        content = encoded({"id": asked["id"], "error": f"the answer is no JSON: {error}"[:500]})
    with suppress(OSError):
        try:
            caller.sendall(content)
        except OSError:
            caller.shutdown(socket.SHUT_RDWR)
            raise
