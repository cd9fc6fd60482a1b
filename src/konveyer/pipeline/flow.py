"""Flows: durable runs made of steps whose results survive a kill."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

from konveyer.catalog.outages import explained
from konveyer.core.errors import KonveyerError

Json = Any
Payload = Mapping[str, Any]


class Steps(Protocol):
    """Given to a running flow."""

    def step(self, name: str, work: Callable[[], Json]) -> Json:
        """Run `work` once and record what it returns (a JSON value) or the error that it raises.

        When the run is resumed after a kill, a recorded step is not run again. A step that was
        under way is: it must be idempotent. Steps must come in the same order in every run.
        """


@dataclass(frozen=True, slots=True)
class Flow:
    """A named function of (steps, payload) to a JSON value; it does its work in steps only.

    A worker takes at most `at_once` of its runs from commands at a time.
    """

    name: str
    run: Callable[[Steps, Payload], Json]
    at_once: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the flow named `flow`: the same id is the same run, however often it is asked."""

    flow: str
    id: str
    payload: Payload


class FlowFailed(KonveyerError):
    """An error that a flow ended with, perhaps in another process: same code, message and hint."""

    code, status = "flow_failed", HTTPStatus.INTERNAL_SERVER_ERROR


def packed_error(error: Exception) -> dict[str, Any]:
    """An error as JSON, with its status."""
    known = explained(error)
    return {**known.as_dict(), "status": int(known.status)}


def unpacked_error(packed: Mapping[str, Any]) -> KonveyerError:
    """The inverse of `packed_error`, as a `FlowFailed` that carries the same code and status.

    >>> unpacked_error(packed_error(ValueError("no"))).code
    'internal_error'
    """
    same = {"code": packed["code"], "status": HTTPStatus(packed["status"])}
    kind = type("FlowFailed", (FlowFailed,), same)
    error: KonveyerError = kind(
        packed["message"], hint=packed.get("hint"), detail=packed.get("detail")
    )
    return error
