"""A fitted model, compiled in this process, asked what it was asked where it was trained."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from konveyer.bundle.compiled import CompiledModel, compiled_in
from konveyer.bundle.manifest import COMPILED, GoldenCase, Manifest, ModelSpec
from konveyer.bundle.native.compile import compiled
from konveyer.bundle.native.inputs import FRAME, Inputs
from konveyer.bundle.native.model import BINARY, REGRESSION, NativeModel, NativeSpec
from konveyer.bundle.parity import Parity, parity
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.development.golden import golden_cases
from konveyer.development.harness import given_to_train, labels_in, texts_in
from tests.manifests import manifest_with
from tests.unit.bundle.workbench import NAMES, SERVICE, TEXTS, table

TABLE = table(900)


class Pair:
    """A model fitted on the table of the workbench, and its compiled form."""

    def __init__(self, model: Any, task: str, given: str = FRAME) -> None:
        inputs = Inputs(
            form=given,
            names=NAMES,
            texts=frozenset(TEXTS),
            categories=texts_in(TABLE, list(NAMES)),
        )
        labels, classes = labels_in(TABLE[task], task)
        model.fit(given_to_train(inputs, TABLE), labels)
        self.native = NativeModel(
            model, NativeSpec(task=task, classes=tuple(classes), inputs=inputs)
        )
        self._names = ["prediction"] if task in (BINARY, REGRESSION) else classes
        self._categories = inputs.categories
        self._compiled: CompiledModel | None = None
        self.form = ""

    def compiled(self) -> CompiledModel:
        if self._compiled is None:
            folder = Path(tempfile.mkdtemp())
            (folder / COMPILED).mkdir()
            self.form = compiled(self.native, folder / COMPILED)
            self._compiled = compiled_in(folder, self._manifest())
        return self._compiled

    def agree(self, rows: Sequence[Sequence[Any]]) -> tuple[Parity, list[GoldenCase]]:
        """Both are asked; what the native model says, or refuses, comes with the comparison."""
        cases = golden_cases(self.native, [list(row) for row in rows])
        wanted = msgspec.convert(cases, list[GoldenCase])
        return parity(self.compiled().predict, wanted), wanted

    def _manifest(self) -> Manifest:
        outputs = tuple(ScalarColumn(name, ColumnType.FLOAT64) for name in self._names)
        return manifest_with(
            application="zoo",
            service=SERVICE,
            categories={name: tuple(texts) for name, texts in self._categories.items()},
            model=ModelSpec(form=self.form, outputs=outputs),
        )
