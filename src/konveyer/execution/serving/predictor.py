"""From the rows of a request to the answers of a version: the straight line of a prediction.

side -> contract.read -> reader.rows -> lane.predict -> prediction log.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from konveyer.core.errors import InternalError, KonveyerError
from konveyer.execution.serving.call import Call
from konveyer.execution.serving.contract import AskedRow
from konveyer.execution.serving.errors import EntityNotFound, Overloaded
from konveyer.execution.serving.prediction_log import CANARY, PredictionLog
from konveyer.execution.serving.reading import Row
from konveyer.execution.serving.router import Endpoint, LiveVersion
from konveyer.execution.serving.shadows import Shadows

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Predicted:
    """The outputs of each row, by which version, and which features were stand-ins."""

    version: LiveVersion
    outputs: Sequence[Row]
    fallbacks: tuple[str, ...]


async def predict(
    endpoint: Endpoint,
    rows: list[Any],
    call: Call,
    log: PredictionLog,
    shadows: Shadows,
    *,
    is_single: bool,
) -> Predicted:
    """Ask the side that the rows belong to. A canary that fails by itself, or that does not know an
    entity, hands over to the live one."""
    call.version = version = endpoint.side_of(rows[0], call.request_id)
    try:
        predicted = await ask(version, rows, call, log, is_single=is_single)
    except Exception as error:
        if version.side != CANARY or not _is_own_fault(error):
            raise
        predicted = await _handed_over(endpoint, rows, call, log, error, is_single=is_single)
    if endpoint.shadows:
        shadows.offer(endpoint, rows, call, is_single=is_single)
    return predicted


async def ask(
    version: LiveVersion, rows: list[Any], call: Call, log: PredictionLog, *, is_single: bool
) -> Predicted:
    """Predict by one version, and log it."""
    loaded = version.loaded
    call.asked = asked = loaded.contract.read(rows, is_single=is_single)
    found, fallbacks = await loaded.reader.rows(asked)
    known: list[Row] = []
    for one, row in zip(asked, found, strict=True):
        if row is None:
            raise _unknown(version, one)
        known.append(row)
    outputs = await loaded.lane.predict(known)
    call.log_answer(log, asked, known, outputs, fallbacks)
    return Predicted(version, outputs, fallbacks)


async def ask_alone(
    version: LiveVersion, rows: list[Any], call: Call, log: PredictionLog, is_single: bool
) -> object:
    """`ask` for shadows."""
    return await ask(version, rows, call, log, is_single=is_single)


async def _handed_over(
    endpoint: Endpoint,
    rows: list[Any],
    call: Call,
    log: PredictionLog,
    failure: Exception,
    *,
    is_single: bool,
) -> Predicted:
    """The live version's answer. What the canary failed at is logged, unless it is an entity that
    the live version does not know either: callers would have had no answer without the canary."""
    canary = replace(call, ended_s=time.perf_counter())
    call.version, call.asked = endpoint.live, None
    has_failed = True
    try:
        return await ask(endpoint.live, rows, call, log, is_single=is_single)
    except EntityNotFound:
        has_failed = not isinstance(failure, EntityNotFound)
        raise
    finally:
        if has_failed and canary.version is not None:
            _log.warning("canary %s failed: %s", canary.version.release, failure)
            kind = type(failure) if isinstance(failure, KonveyerError) else InternalError
            canary.log_failure(log, kind)
            canary.version.meter.answered(int(kind.status), canary.seconds(), len(rows))


def _is_own_fault(error: Exception) -> bool:
    """A canary's. Its features may not know an entity that those of the live version know; and
    where more wait for it than may, it is too slow."""
    return (
        isinstance(error, EntityNotFound | Overloaded)
        or not isinstance(error, KonveyerError)
        or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    )


def _unknown(version: LiveVersion, asked: AskedRow) -> EntityNotFound:
    names = [column.name for column in version.loaded.contract.keys]
    keys = asked.keys or ()
    named = ", ".join(f"{name} {value}" for name, value in zip(names, keys, strict=True))
    return EntityNotFound(
        f"No features are known for {named}.",
        hint="check the key; a new entity is known after the next ETL run",
    )
