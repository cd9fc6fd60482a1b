"""Rows that are sent to sources over HTTP."""

from typing import Annotated, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from fastapi import APIRouter, Depends, Header, Request

from konveyer.api.access import Caller, Here
from konveyer.core.errors import KonveyerError
from konveyer.feature_store.push.accept import Push
from konveyer.feature_store.push.errors import PushTooLarge

router = APIRouter(tags=["feature store"])

MOST_BYTES = 64 * 2**20
JSON, ARROW, PARQUET = (
    "application/json",
    "application/vnd.apache.arrow.stream",
    "application/vnd.apache.parquet",
)
_BODY = {
    "required": True,
    "content": {
        JSON: {
            "schema": {"type": "array", "items": {"type": "object"}},
            "example": [{"client_id": 7, "at": "2026-01-10T12:00:00Z", "amount": 12.5}],
        },
        ARROW: {"schema": {"type": "string", "format": "binary"}},
        PARQUET: {"schema": {"type": "string", "format": "binary"}},
    },
}


class BodyUnreadable(KonveyerError):
    """A body that is not what its content type says, or of a type that is not taken."""

    code = "body_unreadable"


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise PushTooLarge(
                f"The body has more than {MOST_BYTES // 2**20} MB.",
                hint="send the rows in several pushes, each with a key of its own",
            )
        parts.append(part)
    return b"".join(parts)


@router.post("/sources/{source}/rows", openapi_extra={"requestBody": _BODY})
def push(
    here: Here,
    caller: Caller,
    source: str,
    body: Annotated[bytes, Depends(_body)],
    idempotency_key: Annotated[
        str, Header(description="One for each push; the same to repeat it.")
    ] = "",
    content_type: Annotated[str, Header(include_in_schema=False)] = JSON,
    dry_run: bool = False,
) -> Push:
    """Keep rows exactly once, and put them online at once; with `dry_run` only look at them.

    A list of JSON objects with every column of the source, or an Arrow stream, or a Parquet file.
    """
    rows = _rows(content_type.partition(";")[0].strip().lower(), body)
    return here.pusher.push(caller, source, rows, key=idempotency_key, dry_run=dry_run)


def _rows(content_type: str, body: bytes) -> Any:
    try:
        match content_type:
            case "application/json":
                return msgspec.json.decode(body, type=list[Any])
            case "application/vnd.apache.arrow.stream":
                return pa.ipc.open_stream(body).read_all()
            case "application/vnd.apache.parquet":
                return pq.read_table(pa.BufferReader(body))
    except (msgspec.MsgspecError, RecursionError, pa.ArrowException, OSError) as error:
        raise BodyUnreadable(
            f"The body is not {content_type}: {str(error).splitlines()[0]}",
            hint="send a list of objects, an Arrow stream or a Parquet file, as Content-Type says",
        ) from error
    raise BodyUnreadable(
        f"The content type {content_type} is not taken.", hint=f"send {JSON}, {ARROW} or {PARQUET}"
    )
