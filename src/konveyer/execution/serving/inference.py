"""The Open Inference Protocol, version 2: existing clients ask Konveyer's models.

A model is an application, its versions are API versions, its inputs are one tensor for each join
key, request field and feature that may be given. Every tensor has one value a row.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from konveyer import __version__
from konveyer.core.errors import did_you_mean
from konveyer.core.schema import Column
from konveyer.execution.serving.errors import BadTensor, InvalidJson
from konveyer.execution.serving.exchange import JSON, Reply, Request
from konveyer.execution.serving.metrics import OK
from konveyer.execution.serving.predictor import Predicted
from konveyer.execution.serving.router import Endpoint, Router
from konveyer.execution.serving.tensors import (
    datatype,
    from_binary,
    from_json,
    to_binary,
    to_json,
)

LIVE, READY, INFER = "live", "ready", "infer"
_URL = re.compile(
    rb"/v2(?:/health/(?P<health>live|ready)"
    rb"|/models/(?P<model>[a-z][a-z0-9-]*)(?:/versions/(?P<version>[0-9]{1,9}))?"
    rb"(?:/(?P<act>ready|infer))?)?/?"
)
_MOST_TOLD = 100  # of a name: a caller's may be a million characters
_HEADER_LENGTH = b"inference-header-content-length"
_encode = msgspec.json.Encoder().encode


class Asked(NamedTuple):
    """What a URL asks for: of a model, or of the server when `model` is None."""

    model: str | None
    version: int | None
    act: str | None


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """An input as it is sent; a requested output has a name and parameters alone."""

    name: str
    datatype: str = ""
    shape: list[int] = []
    data: Any = None
    parameters: dict[str, Any] = {}


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON part of a request."""

    inputs: list[Tensor]
    id: str = ""
    outputs: list[Tensor] = []
    parameters: dict[str, Any] = {}


class Infer(NamedTuple):
    """The rows of a request, and the outputs that it wants: a name, and whether in bytes."""

    id: str
    rows: list[dict[str, Any]]
    outputs: list[tuple[str, bool]]


_decode = msgspec.json.Decoder(Sent).decode


def parse_url(url: bytes) -> Asked | None:
    """None when the protocol has no such URL."""
    match = _URL.fullmatch(url)
    if match is None:
        return None
    model, version = match["model"], match["version"]
    act = match["health"] or match["act"]
    return Asked(
        None if model is None else model.decode(),
        None if version is None else int(version),
        None if act is None else act.decode(),
    )


def endpoint_of(router: Router, asked: Asked) -> Endpoint:
    """The version that is asked for, or the highest; `ModelUnavailable` while it cannot answer."""
    name = asked.model or ""
    version = router.latest(name) if asked.version is None else asked.version
    return router.find(name, version)


def server_metadata() -> dict[str, Any]:
    return {"name": "konveyer", "version": __version__, "extensions": ["binary_tensor_data"]}


def model_metadata(router: Router, endpoint: Endpoint) -> dict[str, Any]:
    name = endpoint.desired.application
    return {
        "name": name,
        "versions": [str(version) for version in sorted(_versions(router, name))],
        "platform": f"konveyer_{endpoint.live.manifest.model.form}",
        "inputs": _described([*inputs_of(endpoint).values()]),
        "outputs": _described(endpoint.live.manifest.model.outputs),
    }


def inputs_of(endpoint: Endpoint) -> dict[str, Column]:
    """What a request may hold a tensor of, by its name."""
    contract = endpoint.live.loaded.contract
    columns = (*contract.keys, *contract.fields, *contract.given)
    return {column.name: column for column in columns}


def parse_infer(request: Request, endpoint: Endpoint) -> Infer:
    """The rows of the request's tensors; a row is like one of our own requests."""
    body, size = request.body, len(request.body)
    announced = request.headers.get(_HEADER_LENGTH)
    if announced is not None:
        # More digits than any body is long are not made a number: Python refuses thousands of them.
        if not announced.isdigit() or len(announced) > 19 or int(announced) > size:
            raise BadTensor(
                "Inference-Header-Content-Length is no length within the body.",
                hint="send the length of the JSON before the tensors",
            )
        size = int(announced)
    try:
        sent = _decode(body[:size])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJson(
            f"The body is no inference request: {error}.", hint="send {'inputs': [...]}"
        ) from error
    columns = _columns(sent.inputs, body, size, [*inputs_of(endpoint)])
    names = [*columns]
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return Infer(sent.id, rows, _wanted(sent, endpoint))


def reply(sent: Infer, predicted: Predicted, request_id: str) -> Reply:
    """The outputs that were wanted; those in bytes follow the JSON."""
    manifest = predicted.version.manifest
    names = [column.name for column in manifest.model.outputs]
    outputs: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, is_binary in sent.outputs:
        place = names.index(name)
        values = [output[place] for output in predicted.outputs]
        kind = datatype(manifest.model.outputs[place].dtype)
        output: dict[str, Any] = {"name": name, "datatype": kind, "shape": [len(values)]}
        if is_binary:
            parts.append(to_binary(values, kind))
            output["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            output["data"] = to_json(values, kind)
        outputs.append(output)
    parameters: dict[str, Any] = {"bundle": predicted.version.digest, "request_id": request_id}
    if predicted.fallbacks:
        parameters["fallbacks"] = ",".join(predicted.fallbacks)
    content = {
        "model_name": manifest.application,
        "model_version": str(manifest.api_version),
        "id": sent.id or request_id,
        "parameters": parameters,
        "outputs": outputs,
    }
    head = _encode(content)
    if not parts:
        return Reply(OK, head, JSON)
    length = b"inference-header-content-length: %d\r\n" % len(head)
    return Reply(OK, b"".join([head, *parts]), b"application/octet-stream", length)


def _versions(router: Router, name: str) -> list[int]:
    found = (endpoint.desired for endpoint in router.endpoints)
    return [desired.api_version for desired in found if desired.application == name]


def _described(columns: Sequence[Column]) -> list[dict[str, Any]]:
    return [
        {"name": column.name, "datatype": datatype(column.dtype), "shape": [-1]}
        for column in columns
    ]


def _columns(
    inputs: list[Tensor], body: bytes, start: int, known: list[str]
) -> dict[str, list[Any]]:
    """The values of each tensor, all equally many; those in bytes follow the JSON in order."""
    columns: dict[str, list[Any]] = {}
    for tensor in inputs:
        name = tensor.name[:_MOST_TOLD]
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            values = from_json(tensor.data, tensor.datatype, name)
        elif isinstance(size, int) and 0 <= size <= len(body) - start:
            values = from_binary(body[start : start + size], tensor.datatype, name)
            start += size
        else:
            raise BadTensor(
                f"Tensor '{name}' has the binary_data_size {size}, of which the body has "
                f"{len(body) - start}.",
                hint="send the bytes of all tensors after the JSON, in their order",
            )
        rows = tensor.shape[0] if tensor.shape else 1
        if any(size != 1 for size in tensor.shape[1:]) or len(values) != rows:
            raise BadTensor(
                f"Tensor '{name}' has {len(values)} values and the shape {tensor.shape}.",
                hint="send one value a row: the shape [rows] or [rows, 1]",
            )
        if tensor.name in columns:
            raise BadTensor(f"Tensor '{name}' is sent twice.", hint="send it once")
        columns[tensor.name] = values
    if not columns or len({len(values) for values in columns.values()}) > 1:
        raise BadTensor(
            "The tensors have different numbers of rows, or there are none.",
            hint=f"send as many values of each of {', '.join(known)}",
        )
    return columns


def _wanted(sent: Sent, endpoint: Endpoint) -> list[tuple[str, bool]]:
    names = [column.name for column in endpoint.live.manifest.model.outputs]
    is_binary = bool(sent.parameters.get("binary_data_output", False))
    if not sent.outputs:
        return [(name, is_binary) for name in names]
    wanted: dict[str, bool] = {}
    for output in sent.outputs:
        if output.name not in names:
            raise BadTensor(
                f"The model has no output '{output.name[:_MOST_TOLD]}'.",
                hint=did_you_mean(output.name, names, otherwise=f"it has {', '.join(names)}"),
            )
        # A body has room for tens of thousands of names, and each would be in the answer.
        if output.name in wanted:
            raise BadTensor(f"Output '{output.name}' is asked for twice.", hint="ask for it once")
        wanted[output.name] = bool(output.parameters.get("binary_data", is_binary))
    return [*wanted.items()]
