"""The features of logged requests, as a candidate with other features takes them."""

import math
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from konveyer.bundle.manifest import GOLDEN, LINEAR, PREPARATION, ModelSpec
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.core.schema import ColumnType, DecimalType, ScalarColumn
from konveyer.execution.releases.gates.answers import answering
from konveyer.execution.releases.gates.integration import (
    Predictions,
    Served,
    compared_predictions,
)
from konveyer.execution.releases.recorded import features_then, same_features
from konveyer.feature_store.definitions.resolved import (
    ResolvedFeature,
    ResolvedInput,
    ResolvedOnDemand,
    ResolvedService,
    ResolvedView,
)
from tests.manifests import manifest_with

INT, FLOAT = ColumnType.INT64, ColumnType.FLOAT64


def view(name: str, version: str) -> ResolvedView:
    return ResolvedView(
        name=name,
        version=version,
        keys=(ScalarColumn("client_id", INT),),
        columns=(),
        defaults=(),
        space=name,
        ttl_us=None,
        windowed=True,
    )


def service(*features: str, spend: str = "1", payment: str = "1") -> ResolvedService:
    """`view:feature as name` each; the view `payment` is computed from `spend:sum` and `amount`."""
    listed = []
    for text in features:
        reference, _, name = text.partition(" as ")
        of, _, feature = reference.partition(":")
        listed.append(ResolvedFeature(name=name or feature, view=of, feature=feature, dtype=FLOAT))
    on_demand = ResolvedOnDemand(
        name="payment",
        version=payment,
        code="",
        request=(ScalarColumn("amount", FLOAT),),
        inputs=(ResolvedInput(view="spend", feature="sum", dtype=FLOAT),),
        outputs=(ScalarColumn("share", FLOAT),),
    )
    return ResolvedService(
        name="scoring",
        version="1",
        views=(view("spend", spend), view("city", "1")),
        features=tuple(listed),
        on_demand=(on_demand,),
    )


LIVE = service("spend:sum", "spend:count", "payment:share")


def test_a_feature_is_the_same_when_it_is_computed_alike() -> None:
    wanted = service("payment:share", "spend:sum as total", "city:size")
    assert same_features(wanted, LIVE) == {0: 2, 1: 0}
    assert same_features(service("spend:sum", "payment:share", payment="2"), LIVE) == {0: 0}
    # What is computed on demand is another thing when it is computed from another thing.
    assert same_features(service("spend:sum", "payment:share", spend="2"), LIVE) == {}


def row(number: int, bundle: str, *features: float) -> dict[str, Any]:
    return {
        "bundle": bundle,
        "at_us": 1_000 + number,
        "keys": [number],
        "request": [10.0 * number],
        "given": [],
        "features": [*features],
    }


def test_what_was_recorded_is_taken_and_the_rest_asked_for_as_of_the_request() -> None:
    older = msgspec.structs.replace(LIVE, features=LIVE.features[:1])
    rows = [row(1, "live", 0.5, 2.0, 0.1), row(2, "older", 0.7)]
    asked: list[tuple[Any, ...]] = []

    def retrieve(
        keys: Sequence[Sequence[Any]], requests: Sequence[Sequence[Any]], moments_us: Sequence[int]
    ) -> list[tuple[Any, ...]]:
        asked.extend(zip(keys, requests, moments_us, strict=True))
        return [(-1.0, -2.0, -3.0)] * len(keys)

    services = {"live": LIVE, "older": older}
    then = features_then(LIVE, rows, services, retrieve)
    assert then.rows == [(0.5, 2.0, 0.1), (0.7, -2.0, -3.0)]
    assert asked == [((2,), (20.0,), 1_002)]
    assert then.retrieved == ("count", "share")
    asked.clear()
    then = features_then(LIVE, rows[:1], services, retrieve)
    assert (then.retrieved, asked) == ((), [])
    wanted = service("city:size", "spend:sum", "spend:count")
    then = features_then(wanted, rows[:1], services, retrieve)
    assert then.rows == [(-1.0, 0.5, 2.0)]
    assert asked == [((1,), (10.0,), 1_001)]


def test_an_infinite_feature_is_the_number_again_that_the_log_has_a_word_for() -> None:
    wanted = service("spend:sum", "spend:count", "city:size")
    rows = [row(1, "live", 0.0) | {"features": ["Infinity", 2.0, "-Infinity"]}]
    then = features_then(wanted, rows, {"live": LIVE}, lambda *_: [(0.0, 0.0, "-Infinity")])
    assert then.rows == [(math.inf, 2.0, -math.inf)]


def test_what_a_caller_gave_is_taken_whatever_its_view_is_now() -> None:
    live = service("spend:sum", "spend:count")
    wanted = service("spend:count", "spend:sum", spend="2")
    keyed = row(1, "live", 0.5, 2.0) | {"given": ["sum"]}
    by_values = row(2, "live", 0.7, 3.0) | {"given": ["sum", "count"], "keys": None}
    asked: list[Any] = []

    def retrieve(
        keys: Sequence[Sequence[Any]], requests: Sequence[Sequence[Any]], moments_us: Sequence[int]
    ) -> list[tuple[Any, ...]]:
        asked.extend(keys)
        return [(-1.0, -2.0)] * len(keys)

    then = features_then(wanted, [keyed, by_values], {"live": live}, retrieve)
    assert then.rows == [(-1.0, 0.5), (3.0, 0.7)]
    assert (asked, then.retrieved) == ([(1,)], ("count",))


PRICED = msgspec.structs.replace(
    service("city:price"),
    features=(
        ResolvedFeature(name="price", view="city", feature="price", dtype=DecimalType(12, 2)),
    ),
)


def priced(root: Path) -> Bundle:
    """A model with an ordinal encoder on a decimal; one of its prices was recorded."""
    codes = {"feature": 0, "codes": [[0.1, 1.0], [0.25, 2.0]], "unseen": -1.0}
    content: dict[str, Any] = {
        PREPARATION: {"sources": [codes], "steps": [], "finite": False},
        LINEAR: {"coefficients": [[1.0]], "intercepts": [0.0], "link": "identity"},
        GOLDEN: {"cases": [{"features": [0.1], "outputs": [1.0]}]},
    }

    def write(draft: Path) -> None:
        for name, one in content.items():
            (draft / name).parent.mkdir(exist_ok=True)
            (draft / name).write_bytes(msgspec.json.encode(one))

    manifest = manifest_with(service=PRICED, model=ModelSpec(form="linear"))
    return BundleStore(root).pack(manifest, write)


def test_an_encoder_of_a_decimal_is_asked_for_what_was_logged(tmp_path: Path) -> None:
    served = [
        Served(keys=(1,), features=("0.10",), outputs=(1.0,)),
        Served(keys=(2,), features=("0.25",), outputs=(2.0,)),
        Served(keys=(3,), features=(None,), outputs=None),
    ]
    compared = compared_predictions(priced(tmp_path), served, tmp_path)
    assert compared == Predictions(compared=2, recorded=1, worst_difference=0.0)


def test_an_encoder_of_a_decimal_is_asked_for_what_was_recorded_and_retrieved(
    tmp_path: Path,
) -> None:
    rows = [row(1, "live", 0.0) | {"features": ["0.10"]}, row(2, "older")]
    older = msgspec.structs.replace(PRICED, features=())
    then = features_then(PRICED, rows, {"live": PRICED, "older": older}, lambda *_: [("0.25",)])
    assert then.rows == [(Decimal("0.10"),), (Decimal("0.25"),)]
    with answering(priced(tmp_path), tmp_path) as answer:
        assert answer(then.rows) == [(1.0,), (2.0,)]
