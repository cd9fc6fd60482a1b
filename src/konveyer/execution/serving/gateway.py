"""The ASGI application of a node: one straight line from a request to its answer.

contract.parse_request -> router.find -> lookup.rows -> lane.predict -> prediction log.
"""

import logging
import re
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import msgspec
from prometheus_client import generate_latest

from konveyer.core.errors import InternalError, KonveyerError
from konveyer.core.ids import new_id
from konveyer.execution.serving import metrics
from konveyer.execution.serving.call import Call
from konveyer.execution.serving.contract import describe, parse_request
from konveyer.execution.serving.errors import (
    BodyTooLarge,
    EntityNotFound,
    MethodNotAllowed,
    RouteNotFound,
)
from konveyer.execution.serving.prediction_log import PredictionLog
from konveyer.execution.serving.router import LiveVersion, Router

MOST_BODY_BYTES = 1_000_000
# So much of a body that is too large is read and thrown away: a caller that is still sending when
# the connection closes sees a reset instead of the answer.
MOST_DRAINED_BYTES = 64_000_000
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_ROUTE = re.compile(r"/(?P<application>[a-z][a-z0-9-]*)/v(?P<version>[0-9]{1,9})(?P<act>/predict)?")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_JSON = (b"content-type", b"application/json")
_TEXT = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_encode = msgspec.json.Encoder().encode
_log = logging.getLogger(__name__)


class Gateway:
    """Answers `POST /{application}/v{n}/predict`, `GET /{application}/v{n}`, health and metrics."""

    def __init__(self, router: Router, log: PredictionLog) -> None:
        self._router, self._log = router, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        call = Call(
            request_id=_request_id(scope),
            environment=self._router.environment,
            started_s=time.perf_counter(),
        )
        try:
            status, content = await self._answer(scope, receive, call)
        except KonveyerError as error:
            call.log_failure(self._log, type(error))
            status = error.status
            content = {"error": error.as_dict(), "request_id": call.request_id}
        except Exception:  # noqa: BLE001 - the boundary: a caller must get an answer
            _log.exception("request %s failed", call.request_id)
            call.log_failure(self._log, InternalError)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            content = _internal_error(call.request_id)
        if call.version is not None:
            manifest = call.version.manifest
            labels = (manifest.application, str(manifest.api_version))
            metrics.REQUESTS.labels(*labels, str(int(status))).inc()
            metrics.LATENCY.labels(*labels).observe(time.perf_counter() - call.started_s)
        is_text = isinstance(content, bytes)
        body = content if is_text else _encode(content)
        headers = [
            _TEXT if is_text else _JSON,
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", call.request_id.encode()),
        ]
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive, call: Call) -> tuple[HTTPStatus, Any]:
        path, method = scope["path"], scope["method"]
        match = _ROUTE.fullmatch(path)
        if match is None:
            return self._own_page(path, method)
        version = self._router.find(match["application"], int(match["version"]))
        if match["act"] is None:
            _allow(method, "GET")
            desired = version.desired
            return HTTPStatus.OK, describe(
                version.manifest,
                digest=desired.digest,
                release=desired.release,
                since_us=desired.since_us,
            )
        _allow(method, "POST")
        call.version = version
        body = await _read_body(scope, receive)
        return HTTPStatus.OK, await self._predict(version, body, call)

    async def _predict(self, live: LiveVersion, body: bytes, call: Call) -> dict[str, Any]:
        asked, is_single = parse_request(body, live.manifest.service)
        call.asked = asked
        found = live.lookup.rows([row.keys for row in asked], [row.fields for row in asked])
        rows = []
        for one, row in zip(asked, found, strict=True):
            if row is None:
                raise _unknown(live, one.keys)
            rows.append(row)
        outputs = await live.lane.predict(rows)
        call.log_answer(self._log, asked, rows, outputs)
        manifest = live.manifest
        labels = (manifest.application, str(manifest.api_version))
        metrics.PREDICTIONS.labels(*labels).inc(len(rows))
        answer: dict[str, Any] = {
            "application": manifest.application,
            "api_version": manifest.api_version,
            "bundle": live.desired.digest,
            "request_id": call.request_id,
        }
        names = [column.name for column in manifest.model.outputs]
        predictions = [
            given[0] if len(names) == 1 else dict(zip(names, given, strict=True))
            for given in outputs
        ]
        if is_single:
            return {"prediction": predictions[0], **answer}
        return {"predictions": predictions, **answer}

    def _own_page(self, path: str, method: str) -> tuple[HTTPStatus, Any]:
        pages = {
            "/health/live": self._alive,
            "/health/ready": self._ready,
            "/metrics": self._metrics,
        }
        page = pages.get(path)
        if page is None:
            raise RouteNotFound(
                f"There is no {path} here.",
                hint="POST /{application}/v{api_version}/predict, or GET /health/ready for a list",
            )
        _allow(method, "GET")
        return page()

    def _alive(self) -> tuple[HTTPStatus, Any]:
        return HTTPStatus.OK, {"status": "alive"}

    def _metrics(self) -> tuple[HTTPStatus, Any]:
        return HTTPStatus.OK, generate_latest()

    def _ready(self) -> tuple[HTTPStatus, Any]:
        versions = [
            {
                "application": live.manifest.application,
                "api_version": live.manifest.api_version,
                "bundle": live.desired.digest,
            }
            for live in self._router.live
        ]
        return HTTPStatus.OK, {
            "status": "ready",
            "environment": self._router.environment,
            "versions": versions,
            "refused": self._router.refused,
        }


def _unknown(live: LiveVersion, key: tuple[int | str, ...]) -> EntityNotFound:
    names = [column.name for column in live.manifest.service.keys]
    named = ", ".join(f"{name} {value}" for name, value in zip(names, key, strict=True))
    return EntityNotFound(
        f"No features are known for {named}.",
        hint="check the key; a new entity is known after the next ETL run",
    )


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    """The whole body; one that is, or says it will be, too large is drained and refused."""
    announced = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
    parts: list[bytes] = []
    size = int(announced) if announced.isdigit() else 0
    received, more = 0, True
    while more and received <= MOST_DRAINED_BYTES:
        message = await receive()
        part = message.get("body", b"")
        received += len(part)
        more = message.get("more_body", False)
        if max(size, received) <= MOST_BODY_BYTES:
            parts.append(part)
    if max(size, received) > MOST_BODY_BYTES:
        raise BodyTooLarge(
            f"The body is larger than {MOST_BODY_BYTES:,} bytes.", hint="send fewer rows at a time"
        )
    return b"".join(parts)


def _allow(method: str, allowed: str) -> None:
    if method != allowed and not (method == "HEAD" and allowed == "GET"):
        raise MethodNotAllowed(f"{method} is not possible here.", hint=f"use {allowed}")


def _request_id(scope: Scope) -> str:
    """The caller's own `x-request-id` when it is a plain one, otherwise a new one."""
    given: bytes = next((v for k, v in scope["headers"] if k == b"x-request-id"), b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else new_id("req")


def _internal_error(request_id: str) -> dict[str, Any]:
    return {
        "error": {
            "code": "internal_error",
            "message": "The request could not be answered.",
            "hint": f"report the request id {request_id}",
        },
        "request_id": request_id,
    }
