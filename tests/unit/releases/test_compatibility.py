"""What breaks callers of an API version, and what does not."""

from typing import Any

import msgspec
import pytest

from konveyer.bundle.manifest import Manifest, ModelSpec, Serving
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.execution.releases.compatibility import breaking_changes
from konveyer.feature_store.definitions.resolved import ResolvedOnDemand
from tests.unit.releases.test_difference import packed


def manifest(
    request: dict[str, str], outputs: dict[str, str] | None = None, given: tuple[str, ...] = ()
) -> Manifest:
    plain = packed({"a": "int64"}).manifest
    visit = ResolvedOnDemand(
        name="visit", version="1", code="", request=_columns(request), inputs=(), outputs=()
    )
    return msgspec.structs.replace(
        plain,
        service=msgspec.structs.replace(plain.service, on_demand=(visit,)),
        model=ModelSpec(outputs=_columns(outputs or {"prediction": "float64"})),
        serving=Serving(given=given),
    )


def _columns(types: dict[str, str]) -> tuple[ScalarColumn, ...]:
    return tuple(ScalarColumn(name, ColumnType(dtype)) for name, dtype in types.items())


AMOUNT = {"amount": "float64"}
CLASSES = {"low": "float64", "high": "float64"}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (manifest(AMOUNT), manifest(AMOUNT), []),
        (manifest(AMOUNT), manifest({}), ["input 'amount' is gone"]),
        (
            manifest(AMOUNT),
            manifest({"amount": "int64"}),
            ["input 'amount' is int64 instead of float64"],
        ),
        (
            manifest(AMOUNT),
            manifest({"sum": "float64"}),
            ["input 'amount' is now called 'sum'"],
        ),
        (
            manifest({}),
            manifest(AMOUNT),
            ["input 'amount' (float64) must now be sent"],
        ),
        (manifest({}, CLASSES), manifest({}, {**CLASSES, "middle": "float64"}), []),
        (
            manifest({}, {**CLASSES, "middle": "string"}),
            manifest({}, CLASSES),
            ["output 'middle' is gone"],
        ),
        (
            manifest({}),
            manifest({}, CLASSES),
            ["the answer has 2 outputs instead of 1: it has another form"],
        ),
        (
            manifest({}),
            manifest({}, {"prediction": "string"}),
            ["output 'prediction' is string instead of float64"],
        ),
        (
            manifest({}, given=("a",)),
            manifest({}),
            ["values of the feature 'a' can no longer be given"],
        ),
        (manifest({}), manifest({}, given=("a",)), []),
    ],
)
def test_a_change_of_the_contract(before: Any, after: Any, said: list[str]) -> None:
    assert breaking_changes(before, after) == said


def test_other_features_are_no_business_of_callers() -> None:
    before, after = packed({"a": "int64"}).manifest, packed({"b": "string"}).manifest
    assert breaking_changes(before, after) == []


@pytest.mark.parametrize(
    ("features", "given", "said"),
    [
        ({"a": "string"}, ("a",), ["the feature 'a' is given as string instead of int64"]),
        (
            {"a": "int64", "b": "int64"},
            ("a", "b"),
            ["without keys the feature 'b' must now be given too"],
        ),
        ({"a": "int64"}, ("a",), []),
    ],
)
def test_callers_that_send_features_can_go_on(
    features: dict[str, str], given: tuple[str, ...], said: list[str]
) -> None:
    before, after = packed({"a": "int64"}).manifest, packed(features).manifest
    before = msgspec.structs.replace(before, serving=Serving(given=("a",)))
    after = msgspec.structs.replace(after, serving=Serving(given=given))
    assert breaking_changes(before, after) == said
