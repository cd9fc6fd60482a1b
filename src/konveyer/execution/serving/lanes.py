"""Lanes: where a model's code runs, behind one method."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from konveyer.bundle.compiled import CompiledModel, compiled_model
from konveyer.bundle.errors import ModelFailed, ModelUnusable
from konveyer.bundle.manifest import ISOLATED
from konveyer.bundle.store import Bundle
from konveyer.execution.serving.isolated import IsolatedLane, socket_of
from konveyer.execution.serving.room import Portion
from konveyer.feature_store.online.codec import Value


class Lane(Protocol):
    """Answers rows of features. Called from the node's event loop.

    `rows` have the features in the order of the service; the answer has a tuple for each row with
    the manifest's outputs in order. Errors are `KonveyerError`s whose status a caller sees.
    """

    async def predict(self, rows: Sequence[Sequence[Value]]) -> list[tuple[Value, ...]]: ...

    def check_ready(self) -> None:
        """Raises `LaneNotReady` while nobody is there who would answer."""

    def close(self) -> None:
        """Give back what the lane holds, once no request uses it any more."""


class CompiledLane:
    """Runs the model here. It takes microseconds, so `predict` never waits."""

    def __init__(self, model: CompiledModel) -> None:
        self._model = model

    async def predict(self, rows: Sequence[Sequence[Value]]) -> list[tuple[Value, ...]]:
        return [*self._model.predict(rows)]

    def check_ready(self) -> None:
        pass

    def close(self) -> None:
        pass


def lane_of(bundle: Bundle, families: Path | None = None, portion: Portion | None = None) -> Lane:
    """The lane that the bundle's form asks for, ready to answer.

    `families` is the folder of the sockets of isolated models; one whose process is not there yet
    raises `LaneNotReady`. Requests that wait for it take of `portion`. A compiled model that
    crashes on a row of nulls is met here, before any caller meets it.
    """
    spec = bundle.manifest.model
    if spec.form == ISOLATED:
        if families is None:
            raise ModelUnusable(
                f"This model runs in a process of its own ({spec.reason}), and none is kept here.",
                hint="run it in a serving node",
            )
        lane = IsolatedLane(socket_of(families, bundle.digest), spec, portion)
        lane.check_ready()
        return lane
    model = compiled_model(bundle)
    with suppress(ModelFailed):
        model.predict([[None] * len(bundle.manifest.service.columns)])
    return CompiledLane(model)
