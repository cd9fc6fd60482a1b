"""A label frame is checked before anything is joined; what is good keeps its rows and order."""

from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pyarrow as pa
import pytest

from konveyer.core.errors import KonveyerError
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.feature_store.datamart.label_files import labels_at
from konveyer.feature_store.datamart.labels import Labels, check_labels
from konveyer.feature_store.definitions.resolved import ResolvedService, ResolvedView

VIEW = ResolvedView(
    name="spend",
    version="1",
    keys=(ScalarColumn("client_id", ColumnType.INT64),),
    columns=(),
    defaults=(),
    space="spend.1",
    ttl_us=None,
    windowed=False,
)
SERVICE = ResolvedService(name="scoring", version="1", views=(VIEW,), features=())
DAY = 86_400_000_000


def frame(**changes: Any) -> pa.Table:
    columns: dict[str, Any] = {
        "client_id": pa.array([2, 1], pa.int64()),
        "at": pa.array([DAY, 0], pa.timestamp("us", "UTC")),
        "label": pa.array([1, 0]),
    }
    columns |= changes
    return pa.table({name: column for name, column in columns.items() if column is not None})


def checked(table: pa.Table) -> Labels:
    return check_labels(table, SERVICE, timestamp="at", label="label")


@pytest.mark.parametrize(
    "at",
    [
        pa.array([DAY, 0], pa.timestamp("us")),
        pa.array([DAY * 1000, 0], pa.timestamp("ns")),
        pa.array([DAY // 1_000_000, 0], pa.timestamp("s", "Europe/Moscow")),
        pa.array([1, 0], pa.date32()),
    ],
)
def test_every_kind_of_time_is_an_instant_and_a_naive_one_is_utc(at: pa.Array) -> None:
    assert checked(frame(at=at)).at_us.tolist() == [DAY, 0]


def test_a_moment_in_nanoseconds_is_the_last_whole_microsecond_also_before_1970() -> None:
    at = pa.array([1_999, -1_001], pa.timestamp("ns"))
    assert checked(frame(at=at)).at_us.tolist() == [1, -2]


def test_categories_and_uuids_of_any_library_are_values() -> None:
    uuids = [UUID(int=7), None]
    labels = frame(
        shop=pa.array(["a", None]).cast(pa.large_string()).dictionary_encode(),
        kind=pa.table(pl.DataFrame({"kind": ["b", None]}, {"kind": pl.Categorical}))["kind"],
        card=pa.array([None if one is None else one.bytes for one in uuids], pa.uuid()),
    )
    table = checked(labels).table
    assert table["shop"].to_pylist() == ["a", None]
    assert table["kind"].to_pylist() == ["b", None]
    assert table["card"].to_pylist() == [str(uuids[0]), None]


def test_two_columns_of_one_name_are_refused() -> None:
    labels = frame().append_column("label", pa.array([1, 2]))
    with pytest.raises(KonveyerError, match="more than one column 'label'") as raised:
        checked(labels)
    assert raised.value.code == "labels_wrong_type"


def test_narrow_whole_numbers_are_keys_too() -> None:
    labels = checked(frame(client_id=pa.array([2, 1], pa.int32())))
    assert labels.table["client_id"].type == pa.int64()
    assert labels.table["client_id"].to_pylist() == [2, 1]


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("labels_miss_column", {"client_id": None, "clientid": pa.array([1, 2])}),
        ("labels_miss_column", {"at": None}),
        ("labels_miss_column", {"label": None}),
        ("labels_have_nulls", {"client_id": pa.array([1, None], pa.int64())}),
        ("labels_have_nulls", {"at": pa.array([0, None], pa.timestamp("us"))}),
        ("labels_wrong_type", {"client_id": pa.array(["1", "2"])}),
        ("labels_wrong_type", {"client_id": pa.array([1.0, 2.0])}),
        ("labels_wrong_type", {"at": pa.array(["2017-01-01", "2017-01-02"])}),
        ("labels_wrong_type", {"client_id": pa.array([[1], [2]])}),
        ("labels_wrong_type", {"at": pa.array([0, 2**60], pa.timestamp("s"))}),
        (
            "labels_repeat",
            {"client_id": pa.array([1, 1]), "at": pa.array([0, 0], pa.timestamp("us"))},
        ),
    ],
)
def test_a_bad_frame_is_refused(code: str, changes: dict[str, Any]) -> None:
    with pytest.raises(KonveyerError) as caught:
        checked(frame(**changes))
    assert caught.value.code == code, caught.value
    assert caught.value.hint


def test_an_empty_frame_is_refused() -> None:
    with pytest.raises(KonveyerError, match="no rows"):
        checked(frame().slice(0, 0))


def test_one_entity_twice_at_a_time_is_told_apart_by_another_column() -> None:
    same = {"client_id": pa.array([1, 1]), "at": pa.array([0, 0], pa.timestamp("us"))}
    assert len(checked(frame(**same, campaign=pa.array([7, 8]))).table) == 2


@pytest.mark.parametrize(
    ("content", "code"), [(None, "label_file_missing"), (b"no Parquet", "labels_unreadable")]
)
def test_a_bad_file_is_refused(tmp_path: Path, content: bytes | None, code: str) -> None:
    path = tmp_path / "labels.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KonveyerError) as caught:
        labels_at(path)
    assert caught.value.code == code
