"""From the rows of a request to the answers of a version: the straight line of a prediction.

side -> contract.read -> reader.rows -> lane.predict -> prediction log.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from konveyer.core.errors import InternalError, KonveyerError
from konveyer.execution.serving.call import Call
from konveyer.execution.serving.contract import AskedRow
from konveyer.execution.serving.errors import EntityNotFound
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
    """Ask the side that the rows belong to. A canary that fails by itself hands over to the live
    one, and its failure is logged."""
    call.version = version = endpoint.side_of(rows[0], call.request_id)
    try:
        predicted = await ask(version, rows, call, log, is_single=is_single)
    except Exception as error:
        if version.side != CANARY or not _is_own_fault(error):
            raise
        _log.warning("canary %s failed: %s", version.release, error)
        kind = type(error) if isinstance(error, KonveyerError) else InternalError
        call.log_failure(log, kind)
        version.meter.answered(int(kind.status), call.seconds(), len(rows))
        call.version, call.asked = endpoint.live, None
        predicted = await ask(endpoint.live, rows, call, log, is_single=is_single)
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


def _is_own_fault(error: Exception) -> bool:
    return not isinstance(error, KonveyerError) or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _unknown(version: LiveVersion, asked: AskedRow) -> EntityNotFound:
    names = [column.name for column in version.loaded.contract.keys]
    keys = asked.keys or ()
    named = ", ".join(f"{name} {value}" for name, value in zip(names, keys, strict=True))
    return EntityNotFound(
        f"No features are known for {named}.",
        hint="check the key; a new entity is known after the next ETL run",
    )
