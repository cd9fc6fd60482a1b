"""A bundle's model in the form that a node runs itself: explicit preparation, then a scorer."""

from collections.abc import Sequence
from typing import Protocol

from konveyer.bundle.errors import ModelUnusable
from konveyer.bundle.lightgbm import LightGBMScorer
from konveyer.bundle.manifest import MODEL
from konveyer.bundle.preparation import Matrix, Preparation
from konveyer.bundle.store import Bundle
from konveyer.feature_store.online.codec import Value


class Scorer(Protocol):
    """A model of numbers. Thread-safe. `outputs` is how many numbers it gives for a row."""

    outputs: int

    def score(self, rows: Matrix) -> Matrix: ...


class CompiledModel:
    """Answers rows of feature values, in the order of the service; thread-safe."""

    def __init__(self, preparation: Preparation, scorer: Scorer) -> None:
        self._preparation, self._scorer = preparation, scorer

    def predict(self, rows: Sequence[Sequence[Value]]) -> list[tuple[float, ...]]:
        """One tuple for each row, with the manifest's outputs in order."""
        scores = self._scorer.score(self._preparation.matrix(rows)).tolist()
        return [tuple(one) for one in scores]


def compiled_model(bundle: Bundle) -> CompiledModel:
    """The model of a bundle that was opened, which means verified.

    Raises `ModelUnusable` when it does not fit its manifest, or is no compiled one.
    """
    manifest = bundle.manifest
    spec = manifest.model
    names = [column.name for column in manifest.service.columns]
    match spec.form:
        case "lightgbm":
            scorer = LightGBMScorer(bundle.path / MODEL, len(names))
        case _:
            raise ModelUnusable(
                f"A model of the form '{spec.form}' does not run in this process.",
                hint="it is served by the isolated lane"
                if spec.form == "isolated"
                else "upgrade this Konveyer",
            )
    if scorer.outputs != len(spec.outputs):
        raise ModelUnusable(
            f"The model gives {scorer.outputs} numbers, its contract has {len(spec.outputs)}.",
            hint="train and submit the model again",
        )
    return CompiledModel(Preparation(names, manifest.categories), scorer)
