"""Invariants that an author declares: which can be checked, and which models break them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from konveyer.bundle.invariants import BadInvariant, check_invariants
from konveyer.bundle.manifest import TRAINING, Golden, GoldenCase, Manifest, ModelSpec
from konveyer.bundle.release_policy import Invariant
from konveyer.bundle.store import Bundle
from konveyer.core.schema import ColumnType, DecimalType, ScalarColumn
from konveyer.development.golden import edge_rows, real_rows
from konveyer.execution.releases.gates.answers import Rows
from konveyer.execution.releases.gates.functional import observed_rows
from konveyer.execution.releases.gates.invariants import Held, check_all
from konveyer.feature_store.datamart.manifest import TrainingSetManifest
from tests.unit.releases.test_difference import packed

FEATURES = {"income": "float64", "late": "int64", "city": "string"}
ROWS: list[list[Any]] = [[1000.0, 0, "Oslo"], [3000.0, 4, "Rome"], [None, 2, None]]
CLASSES = ModelSpec(
    outputs=tuple(ScalarColumn(name, ColumnType.FLOAT64) for name in ("low", "high"))
)


def manifest(*invariants: Invariant, model: ModelSpec | None = None) -> Manifest:
    plain = packed(FEATURES).manifest
    return msgspec.structs.replace(plain, invariants=invariants, model=model or plain.model)


def risk(rows: Rows) -> list[tuple[Any, ...]]:
    """Falls with income, grows with every late payment but the third."""
    return [
        (0.5 - (income or 0) / 10_000 + 0.05 * ((late or 0) - 2 * ((late or 0) == 3)),)
        for income, late, _ in rows
    ]


def held(invariant: Invariant, answer: Any = risk, model: ModelSpec | None = None) -> Held:
    (found,) = check_all(manifest(invariant, model=model), ROWS, answer)
    return found


def test_a_model_that_never_goes_the_wrong_way_keeps_a_monotone_invariant() -> None:
    found = held(Invariant(kind="decreasing", feature="income"))
    assert (found.broken, found.worst) == (0, None)
    assert found.answers == len(ROWS) * 11
    assert held(Invariant(kind="increasing", feature="income")).broken == len(ROWS) * 10


def test_one_step_the_wrong_way_is_found_and_shown() -> None:
    found = held(Invariant(kind="increasing", feature="late"))
    assert found.broken == len(ROWS)
    assert found.worst is not None
    assert found.worst["late"] == [2, 3]
    before, after = found.worst["output"]
    assert before - after == pytest.approx(0.05)
    assert held(Invariant(kind="increasing", feature="late", tolerance=0.06)).broken == 0


def test_a_range_is_kept_at_the_ends_of_what_was_observed_and_without_values() -> None:
    assert held(Invariant(kind="range", minimum=0.0, maximum=1.0)).broken == 0
    found = held(Invariant(kind="range", minimum=0.3))
    assert found.broken > 0
    assert found.worst is not None
    assert found.worst["features"][0] == 3000.0
    assert found.invariant == "0.3 <= output"


def test_decimals_are_moved_like_other_numbers() -> None:
    """A model is given, and golden rows have, the numbers."""
    declared = manifest(
        Invariant(kind="decreasing", feature="income"), Invariant(kind="range", minimum=0.3)
    )
    income, *others = declared.service.features
    features = (msgspec.structs.replace(income, dtype=DecimalType(18, 2)), *others)
    service = msgspec.structs.replace(declared.service, features=features)
    declared = msgspec.structs.replace(declared, service=service)
    check_invariants(declared)
    falling, within = check_all(declared, ROWS, risk)
    assert (falling.answers, falling.broken) == (len(ROWS) * 11, 0)
    assert within.worst is not None
    assert within.worst["features"][0] == 3000.0
    assert within.answers == len(ROWS) * (1 + 2 * 3)


def test_the_ends_are_those_of_all_that_was_observed() -> None:
    """Also of rows that are not moved themselves: they are too many."""
    rows = [[1000.0, 0, "Oslo"] for _ in range(100)]
    rows[1] = [9000.0, 0, "Oslo"]
    invariant = Invariant(kind="range", minimum=0.0)
    (found,) = check_all(manifest(invariant), rows, risk)
    assert found.worst is not None
    assert found.worst["features"] == [9000.0, 0, "Oslo"]


@pytest.mark.parametrize("says_how_many", [True, False])
def test_what_was_added_at_the_edges_is_not_taken_for_observed(
    tmp_path: Path, says_how_many: bool
) -> None:
    """A training set may have few rows; earlier runs do not say how many were recorded."""
    columns = zip(*ROWS, ROWS[0], strict=True)
    table = pa.table(dict(zip(FEATURES, map(list, columns), strict=True)))
    real = real_rows(table, [*FEATURES])
    cases = [
        GoldenCase(features=row, outputs=[0.5])
        for row in [*real, *edge_rows(table, [*FEATURES], real)]
    ]
    cases[3] = msgspec.structs.replace(cases[3], outputs=[], error="no answer")
    golden = Golden(cases=tuple(cases), real=len(real) if says_how_many else None)
    invariant = Invariant(kind="increasing", feature="late")
    training = TrainingSetManifest(
        id="set-1",
        service=manifest().service,
        tables=(),
        keys=(),
        columns={},
        timestamp="at",
        label=None,
        rows=len(table),
        labels_digest="",
        result_digest="",
        built_by="ana",
        built_us=0,
    )
    (tmp_path / TRAINING).write_bytes(msgspec.json.encode(training))
    observed = observed_rows(Bundle(digest="", path=tmp_path, manifest=manifest()), golden)
    assert observed == ROWS
    (found,) = check_all(manifest(invariant), observed, risk)
    assert found.broken == len(ROWS)


@pytest.mark.parametrize("answer", [None, float("nan"), float("inf")])
def test_no_number_is_in_no_range(answer: float | None) -> None:
    def none(rows: Rows) -> list[tuple[Any, ...]]:
        return [(answer,) for _ in rows]

    found = held(Invariant(kind="range", minimum=-1e300, maximum=1e300), none)
    assert found.broken == found.answers > 0


@pytest.mark.parametrize(
    ("given", "kept"), [((0.25, 0.75), True), ((0.25, 0.7), False), ((-0.25, 1.25), False)]
)
def test_outputs_are_a_distribution(given: Sequence[float], kept: bool) -> None:
    def constant(rows: Rows) -> list[tuple[Any, ...]]:
        return [tuple(given) for _ in rows]

    found = held(Invariant(kind="sum-to-one"), constant, CLASSES)
    assert (found.broken == 0) is kept


@pytest.mark.parametrize(
    ("invariant", "said"),
    [
        (Invariant(kind="increasing"), "names no feature"),
        (Invariant(kind="increasing", feature="incom"), "no feature 'incom'"),
        (Invariant(kind="decreasing", feature="city"), "'city' is no number"),
        (Invariant(kind="range"), "no limit"),
        (Invariant(kind="range", minimum=0, output="score"), "no output 'score'"),
    ],
)
def test_an_invariant_that_says_nothing_is_refused(invariant: Invariant, said: str) -> None:
    with pytest.raises(BadInvariant, match=said) as caught:
        check_invariants(manifest(invariant))
    assert caught.value.hint


def test_of_several_outputs_one_is_named() -> None:
    invariant = Invariant(kind="increasing", feature="late")
    with pytest.raises(BadInvariant, match="names no output"):
        check_invariants(manifest(invariant, model=CLASSES))
    named = msgspec.structs.replace(invariant, output="high")
    check_invariants(manifest(named, model=CLASSES))
