"""Lanes: where a model's code runs, behind one method."""

from collections.abc import Sequence
from typing import Protocol

from konveyer.bundle.compiled import CompiledModel, compiled_model
from konveyer.bundle.store import Bundle
from konveyer.feature_store.online.codec import Value


class Lane(Protocol):
    """Answers rows of features. Called from the node's event loop.

    `rows` have the features in the order of the service; the answer has a tuple for each row with
    the manifest's outputs in order. Errors are `KonveyerError`s whose status a caller sees.
    """

    async def predict(self, rows: Sequence[Sequence[Value]]) -> list[tuple[Value, ...]]: ...

    def close(self) -> None:
        """Give back what the lane holds, once no request uses it any more."""


class CompiledLane:
    """Runs the model here. It takes microseconds, so `predict` never waits."""

    def __init__(self, model: CompiledModel) -> None:
        self._model = model

    async def predict(self, rows: Sequence[Sequence[Value]]) -> list[tuple[Value, ...]]:
        return [*self._model.predict(rows)]

    def close(self) -> None:
        pass


def lane_of(bundle: Bundle) -> Lane:
    """The lane that the bundle's form asks for, ready to answer.

    A model that fails on a row of nulls is refused here, before any caller meets it.
    """
    model = compiled_model(bundle)
    model.predict([[None] * len(bundle.manifest.service.columns)])
    return CompiledLane(model)
