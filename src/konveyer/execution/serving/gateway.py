"""What a node answers at which address: one straight line from a request to its reply.

keys -> router.find -> predictor.predict (or a page) -> reply.
"""

import asyncio
import logging
import math
import re
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from konveyer.core.errors import InternalError, KonveyerError
from konveyer.core.ids import new_id
from konveyer.execution.serving import inference, metrics, openapi
from konveyer.execution.serving.call import Call
from konveyer.execution.serving.description import describe
from konveyer.execution.serving.errors import (
    EncodingNotTaken,
    MethodNotAllowed,
    RateExceeded,
    RouteNotFound,
)
from konveyer.execution.serving.exchange import Reply, Request
from konveyer.execution.serving.prediction_log import PredictionLog
from konveyer.execution.serving.predictor import Predicted, predict
from konveyer.execution.serving.report import Report
from konveyer.execution.serving.router import Endpoint, Router
from konveyer.execution.serving.shadows import Shadows
from konveyer.execution.serving.siblings import metrics_folder, node_report

_ROUTE = re.compile(
    rb"/(?P<application>[a-z][a-z0-9-]*)/v(?P<version>[1-9][0-9]{0,8})(?P<act>/predict|/openapi\.json)?"
)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_TEXT = b"text/plain; version=0.0.4; charset=utf-8"
_CHALLENGE = b"www-authenticate: Bearer\r\n"
_encode = msgspec.json.Encoder().encode
_log = logging.getLogger(__name__)


class Gateway:
    """Answers `/{application}/v{n}`, the Open Inference Protocol, health, metrics and OpenAPI."""

    def __init__(
        self,
        router: Router,
        log: PredictionLog,
        shadows: Shadows,
        folder: Path,
        *,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._router, self._log, self._shadows = router, log, shadows
        self._folder, self._is_stopping = folder, is_stopping
        self._pages = {
            b"/": self._index,
            b"/openapi.json": self._openapi,
            b"/health/live": self._alive,
            b"/health/ready": self._ready,
            b"/metrics": self._metrics,
        }

    async def answer(self, request: Request) -> Reply:
        call = Call(
            request_id=_request_id(request),
            environment=self._router.environment,
            started_s=request.started_s,
            sent_bytes=len(request.body),
        )
        try:
            _check(request)
            reply = await self._answer(request, call)
        except KonveyerError as error:
            reply = self._failed(error, call, request)
        except Exception:  # noqa: BLE001 - the boundary: a caller must get an answer
            _log.exception("request %s failed", call.request_id)
            reply = self._failed(_internal_error(call.request_id), call, request)
        return Reply(
            reply.status,
            reply.body,
            reply.content_type,
            b"%bx-request-id: %b\r\n" % (reply.headers, call.request_id.encode()),
        )

    async def _answer(self, request: Request, call: Call) -> Reply:
        url = request.url.partition(b"?")[0]
        match = _ROUTE.fullmatch(url)
        if match is None:
            if _is_inference(url):
                return await self._inference(url, request, call)
            return await self._page(url, request)
        application, act = match["application"].decode(), match["act"]
        call.caller = self._router.keys.caller(request.headers, application)
        endpoint = self._router.find(application, int(match["version"]))
        if act == b"/predict":
            allow(request, b"POST")
            call.version = endpoint.live
            return await self._predict(endpoint, request, call)
        allow(request, b"GET")
        if act is None:
            return _json(_described(endpoint))
        return _json(openapi.document([endpoint]))

    async def _predict(self, endpoint: Endpoint, request: Request, call: Call) -> Reply:
        rows, is_single = endpoint.live.loaded.contract.shape(request.body)
        predicted = await predict(
            endpoint, rows, call, self._log, self._shadows, is_single=is_single
        )
        predicted.version.meter.answered(metrics.OK, call.seconds(), len(rows))
        return Reply(metrics.OK, _encode(_answer(predicted, call.request_id, is_single)))

    async def _inference(self, url: bytes, request: Request, call: Call) -> Reply:
        """The Open Inference Protocol: a model is an application with its latest version here."""
        asked = inference.parse_url(url)
        if asked is None:
            raise RouteNotFound(f"There is no {_shown(url)} here.", hint="GET /v2 names what is")
        allow(request, b"POST" if asked.act == inference.INFER else b"GET")
        if asked.model is None:
            is_up = asked.act == inference.LIVE or self._is_ready()
            body = inference.server_metadata() if asked.act is None else {asked.act: is_up}
            return _json(body, HTTPStatus.OK if is_up else HTTPStatus.SERVICE_UNAVAILABLE)
        call.caller = self._router.keys.caller(request.headers, asked.model)
        endpoint = inference.endpoint_of(self._router, asked)
        if asked.act == inference.READY:
            return _json({"name": asked.model, "ready": True})
        if asked.act is None:
            return _json(inference.model_metadata(self._router, endpoint))
        call.version = endpoint.live
        sent = inference.parse_infer(request, endpoint)
        rows = endpoint.live.loaded.contract.counted(sent.rows)
        predicted = await predict(endpoint, rows, call, self._log, self._shadows, is_single=False)
        predicted.version.meter.answered(metrics.OK, call.seconds(), len(rows))
        return inference.reply(sent, predicted, call.request_id)

    def _failed(self, error: KonveyerError, call: Call, request: Request) -> Reply:
        status = int(error.status)
        if call.version is None:
            metrics.REFUSED.labels(error.code).inc()
        else:
            call.log_failure(self._log, type(error))
            rows = 0 if call.asked is None else len(call.asked)
            call.version.meter.answered(status, call.seconds(), rows)
        headers = b""
        if status == HTTPStatus.UNAUTHORIZED:
            headers = _CHALLENGE
        elif isinstance(error, MethodNotAllowed):
            headers = b"allow: %b\r\n" % error.allowed.encode()
        elif isinstance(error, RateExceeded):
            headers = b"retry-after: %d\r\n" % math.ceil(error.retry_after_s)
        elif status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            headers = b"retry-after: 1\r\n"
        # Clients of the Open Inference Protocol expect a text.
        is_inference = _is_inference(request.url.partition(b"?")[0])
        content = {
            "error": str(error) if is_inference else error.as_dict(),
            "request_id": call.request_id,
        }
        return Reply(status, _encode(content), headers=headers)

    async def _page(self, url: bytes, request: Request) -> Reply:
        page = self._pages.get(url)
        if page is None:
            raise RouteNotFound(
                f"There is no {_shown(url)} here.",
                hint="POST /{application}/v{api_version}/predict, or GET /health/ready for a list",
            )
        allow(request, b"GET")
        return await page(request)

    async def _alive(self, _request: Request) -> Reply:
        return _json({"status": "alive"})

    async def _metrics(self, _request: Request) -> Reply:
        # Adding up the counts of many models takes a while: not on the loop.
        folder = metrics_folder(self._folder)
        text = await asyncio.to_thread(metrics.exposition, str(folder))
        return Reply(metrics.OK, text, _TEXT)

    async def _ready(self, _request: Request) -> Reply:
        """What every process of the node serves, and what some process refused."""
        report = node_report(self._folder)
        versions = [
            {
                "application": one.application,
                "api_version": one.api_version,
                "bundle": one.digest,
                "side": one.side,
            }
            for one in report.serving
        ]
        status = self._status(report)
        content = {
            "status": status,
            "environment": self._router.environment,
            "versions": versions,
            "refused": {
                f"{one.application}/v{one.api_version}": one.reason for one in report.refused
            },
            "preparing": [
                f"{one.application}/v{one.api_version}"
                for one in report.refused
                if one.is_preparing
            ],
        }
        return _json(
            content, HTTPStatus.OK if status == inference.READY else HTTPStatus.SERVICE_UNAVAILABLE
        )

    def _is_ready(self) -> bool:
        return self._status(node_report(self._folder)) == inference.READY

    def _status(self, report: Report) -> str:
        if self._is_stopping():
            return "draining"
        return "starting" if report.is_starting else inference.READY

    async def _index(self, request: Request) -> Reply:
        return _json({"applications": [_described(one) for one in self._callable(request)]})

    async def _openapi(self, request: Request) -> Reply:
        return _json(openapi.document(self._callable(request)))

    def _callable(self, request: Request) -> list[Endpoint]:
        """What the request's key may call."""
        names = self._router.keys.applications(request.headers)
        return [
            endpoint
            for endpoint in self._router.endpoints
            if names is None or endpoint.desired.application in names
        ]


def allow(request: Request, allowed: bytes) -> None:
    """Raise unless the method is the allowed one; HEAD is where GET is."""
    if request.method != allowed and not (request.method == b"HEAD" and allowed == b"GET"):
        raise MethodNotAllowed(
            f"{request.method.decode('latin-1')} is not possible here.", allowed=allowed.decode()
        )


def _answer(predicted: Predicted, request_id: str, is_single: bool) -> dict[str, Any]:
    version = predicted.version
    manifest = version.loaded.manifest
    names = [column.name for column in manifest.model.outputs]
    given = [
        output[0] if len(names) == 1 else dict(zip(names, output, strict=True))
        for output in predicted.outputs
    ]
    answer: dict[str, Any] = {"prediction": given[0]} if is_single else {"predictions": given}
    answer["application"] = manifest.application
    answer["api_version"] = manifest.api_version
    answer["bundle"] = version.loaded.digest
    answer["request_id"] = request_id
    if predicted.fallbacks:
        answer["fallbacks"] = predicted.fallbacks
    return answer


def _described(endpoint: Endpoint) -> dict[str, Any]:
    desired = endpoint.desired
    return describe(
        endpoint.live.manifest,
        digest=endpoint.live.digest,
        release=endpoint.live.release,
        since_us=desired.since_us,
        canary=desired.canary,
    )


def _json(content: object, status: HTTPStatus = HTTPStatus.OK) -> Reply:
    return Reply(int(status), _encode(content))


def _check(request: Request) -> None:
    if request.problem is not None:
        raise request.problem
    if request.headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise EncodingNotTaken("The body is compressed.", hint="send it as it is")


def _request_id(request: Request) -> str:
    """The caller's own `x-request-id` when it is a plain one, otherwise a new one."""
    given = request.headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return new_id("req")


def _is_inference(url: bytes) -> bool:
    """Of the Open Inference Protocol; an application may be called `v2-something`."""
    return url == b"/v2" or url.startswith(b"/v2/")


def _shown(url: bytes) -> str:
    return url[:200].decode("ascii", "replace")


def _internal_error(request_id: str) -> InternalError:
    return InternalError(
        "The request could not be answered.", hint=f"report the request id {request_id}"
    )
