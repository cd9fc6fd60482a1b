"""What the reviewer is shown of a release."""

from typing import Any

import msgspec
import pytest

from konveyer.bundle.manifest import LOCK, Objective
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.execution.releases.difference import Change, Packed, difference
from konveyer.feature_store.definitions.resolved import (
    ResolvedFeature,
    ResolvedService,
    ResolvedView,
)
from tests.unit.releases.test_conveyor import bundle

KEY = ScalarColumn("client_id", ColumnType.INT64)
LOCKED = "numpy==2.2.0 \\\n    --hash=sha256:aa\n"


def packed(
    features: dict[str, str],
    *,
    version: str = "v1",
    code: dict[str, str] | None = None,
    others: dict[str, str] | None = None,
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
    return Packed(
        manifest=manifest,
        code=code or {},
        others=others or {},
        lock=lock,
        definitions=definitions,
    )


def test_all_that_differs_is_shown_and_nothing_else() -> None:
    before = packed(
        {"a": "int64", "b": "float64"},
        code={"model.py": "x = 1\n", "old.py": "gone\n", "same.py": "same\n"},
        lock="numpy==2.2.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n    # via a\n"
        "pandas==3.0\n",
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


@pytest.mark.parametrize(
    ("lock", "name"),
    [
        ("numpy==2.2.0 \\\n    --hash=sha256:bb\n", "numpy"),
        (LOCKED + "other @ https://example.org/a.whl --hash=sha256:cc\n", "other @ https"),
        (LOCKED + "other[extra]==1 --hash=sha256:cc\n", "other[extra]"),
        (LOCKED + "numpy==9 ; sys_platform == 'win32' --hash=sha256:cc\n", "numpy==9"),
        (LOCKED + "# a comment \\\nother==1 --hash=sha256:cc\n", "other"),
        (LOCKED + "# a comment\u2028other==1\n", LOCK),
    ],
)
def test_nothing_that_a_lock_installs_comes_unseen(lock: str, name: str) -> None:
    found = difference("2", packed({}, lock=lock), "1", packed({}, lock=LOCKED))
    (change,) = found.environment
    assert change.name.startswith(name)
    assert change.before != change.after


def code_changed(before: str | None, after: str) -> str:
    """How the code of two releases differs in one file."""
    code = {} if before is None else {"model.py": before}
    found = difference("2", packed({}, code={"model.py": after}), "1", packed({}, code=code))
    (changed,) = found.code
    return changed.diff


@pytest.mark.parametrize("separator", [*"\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", "\r"])
def test_code_that_goes_behind_a_comment_is_seen(separator: str) -> None:
    """Python ends a line, and with it a comment, at none of them but the last."""
    escaped = separator.encode("unicode_escape").decode()
    diff = code_changed("# guard\nassert ok\n", f"# guard{separator}assert ok\n")
    assert diff.split("\n")[3:] == ["-# guard", "-assert ok", f"+# guard{escaped}assert ok"]


def test_what_is_not_seen_or_turns_what_is_shown_is_escaped() -> None:
    diff = code_changed("x = 'a'\n", "x = 'a'  # \u202e\u200b\x1b[2K\xa0 \udcff\té\n")
    assert diff.endswith("+x = 'a'  # \\u202e\\u200b\\x1b[2K\\xa0 \\udcff\té")


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (None, "", ["+"]),
        (None, "new\n", ["+new"]),
        ("", "\n", [" ", "+"]),
        ("x", "x\n", [" x", "+"]),
        ("x\r\n", "x\n", ["-x\\r", "+x"]),
    ],
)
def test_whatever_differs_is_listed(before: str | None, after: str, shown: list[str]) -> None:
    assert code_changed(before, after).split("\n")[3:] == shown


def test_files_that_are_not_shown_are_listed_beside_those_that_are() -> None:
    one = packed({}, code={"a.txt": "10 bytes"}, others={"b.bin": "10 bytes"})
    two = packed({}, code={"b.bin": "10 bytes"}, others={"a.txt": "10 bytes"})
    found = difference("2", two, "1", one)
    assert [text.name for text in found.code] == ["a.txt", "b.bin", "a.txt", "b.bin"]
    assert not difference("2", one, "1", one).code
