"""What the reviewer is shown of a release."""

from typing import Any

import msgspec

from konveyer.bundle.manifest import Objective
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.execution.releases.difference import Change, Packed, difference
from konveyer.feature_store.definitions.resolved import (
    ResolvedFeature,
    ResolvedService,
    ResolvedView,
)
from tests.unit.releases.test_conveyor import bundle

KEY = ScalarColumn("client_id", ColumnType.INT64)


def packed(
    features: dict[str, str],
    *,
    version: str = "v1",
    code: dict[str, str] | None = None,
    lock: str = "",
    definition: str = "",
    **changes: Any,
) -> Packed:
    view = ResolvedView(
        name="spend",
        version=version,
        keys=(KEY,),
        columns=(),
        defaults=(),
        space="s",
        ttl_us=None,
        windowed=True,
    )
    service = ResolvedService(
        name="scoring",
        version="1",
        views=(view,),
        features=tuple(
            ResolvedFeature(name=name, view="spend", feature=name, dtype=ColumnType(dtype))
            for name, dtype in features.items()
        ),
    )
    manifest = msgspec.structs.replace(bundle().manifest, service=service, **changes)
    definitions = {"spend": definition}
    return Packed(manifest=manifest, code=code or {}, lock=lock, definitions=definitions)


def test_all_that_differs_is_shown_and_nothing_else() -> None:
    before = packed(
        {"a": "int64", "b": "float64"},
        code={"model.py": "x = 1\n", "old.py": "gone\n", "same.py": "same\n"},
        lock="numpy==2.2.0 --hash=sha256:aa\n    --hash=sha256:bb\npandas==3.0 \\\n",
        parameters={"rounds": 100, "seed": 7},
        metrics={"auc": 0.71},
        definition="SELECT a",
    )
    after = packed(
        {"a": "int64", "c": "float64"},
        code={"model.py": "x = 2\n", "same.py": "same\n", "new.py": "new\n"},
        lock="numpy==2.3.0 --hash=sha256:cc\nxgboost==3.0\n",
        parameters={"rounds": 200, "seed": 7},
        metrics={"auc": 0.71},
        definition="SELECT a, c",
        objective=Objective(rate_per_s=10, p99_ms=5),
    )
    found = difference("rel-2", after, "rel-1", before)
    assert [text.name for text in found.code] == ["model.py", "new.py", "old.py"]
    assert "-x = 1\n+x = 2" in found.code[0].diff
    assert "--- /dev/null\n+++ new.py" in found.code[1].diff
    assert [(one.name, one.before is None, one.after is None) for one in found.features] == [
        ("c", True, False),
        ("b", False, True),
    ]
    assert found.definitions[0].diff.endswith("-SELECT a\n+SELECT a, c")
    assert found.parameters == [Change(name="rounds", before="100", after="200")]
    assert found.metrics == [Change(name="auc", before="0.71", after="0.71")]
    assert found.environment == [
        Change(name="numpy", before="2.2.0", after="2.3.0"),
        Change(name="xgboost", before=None, after="3.0"),
        Change(name="pandas", before="3.0", after=None),
    ]
    (objective,) = found.contract
    assert objective.before == "100 requests/s, p99 50 ms"
    assert objective.after == "10 requests/s, p99 5 ms"


def test_a_feature_of_another_version_of_its_view_has_changed() -> None:
    found = difference("2", packed({"a": "int64"}, version="v2"), "1", packed({"a": "int64"}))
    (changed,) = found.features
    assert changed.before == "spend:a int64, version v1"
    assert changed.after == "spend:a int64, version v2"


def test_the_first_release_adds_everything() -> None:
    found = difference("1", packed({"a": "int64"}, code={"model.py": "x"}), None, None)
    assert found.against is None
    assert [one.before for one in found.features] == [None]
    assert found.code[0].diff.splitlines()[-1] == "+x"
    assert {one.name for one in found.contract} >= {"input client_id", "output prediction"}


def test_nothing_differs_from_itself() -> None:
    one = packed({"a": "int64"}, code={"model.py": "x"}, lock="numpy==1.0")
    found = difference("2", one, "1", one)
    told = (found.code, found.features, found.definitions, found.contract, found.environment)
    assert not any(told)
