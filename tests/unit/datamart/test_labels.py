"""A label frame is checked before anything is joined; what is good keeps its rows and order."""

from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from konveyer.core.errors import KonveyerError
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.feature_store.datamart.label_files import LabelsUnreadable, labels_at
from konveyer.feature_store.datamart.labels import Labels, check_labels
from konveyer.feature_store.definitions.resolved import (
    ResolvedOnDemand,
    ResolvedService,
    ResolvedView,
)

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


def test_a_column_may_have_any_name() -> None:
    same = {"client_id": pa.array([1, 1]), "at": pa.array([0, 0], pa.timestamp("us"))}
    for name in ("", "row", "0", "row_count"):
        assert len(checked(frame(**same, **{name: pa.array([7, 8])})).table) == 2
        with pytest.raises(KonveyerError, match="more than once"):
            checked(frame(**same, **{name: pa.array([7, 7])}))


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, None], pa.timestamp("s", "Europe/Moscow")),
        pa.array([DAY // 1_000, None], pa.date64()),
        pa.array([1, None], pa.time32("s")),
        pa.array([1, None], pa.duration("s")),
        pa.array([1, None], pa.uint32()),
    ],
)
def test_a_frame_that_is_kept_as_parquet_is_the_same_again(
    tmp_path: Path, values: pa.Array
) -> None:
    table = checked(frame(other=values)).table
    pq.write_table(table, tmp_path / "labels.parquet")
    assert labels_at(tmp_path / "labels.parquet") == table
    assert table["other"].to_pylist() == values.cast(table["other"].type).to_pylist()


def test_a_moment_in_seconds_that_is_too_far_is_refused() -> None:
    far = pa.array([0, 2**60], pa.timestamp("s"))
    with pytest.raises(KonveyerError, match="'other' of the label frame") as raised:
        checked(frame(other=far))
    assert raised.value.code == "labels_wrong_type"


def test_two_columns_of_one_name_are_refused() -> None:
    labels = frame().append_column("label", pa.array([1, 2]))
    with pytest.raises(KonveyerError, match="more than one column 'label'") as raised:
        checked(labels)
    assert raised.value.code == "labels_wrong_type"


@pytest.mark.parametrize("dtype", [ColumnType.FLOAT64, ColumnType.TIMESTAMP, ColumnType.STRING])
def test_a_request_field_may_be_null_in_every_row_without_a_type(dtype: ColumnType) -> None:
    on_demand = ResolvedOnDemand(
        name="now",
        version="1",
        code="",
        request=(ScalarColumn("asked", dtype),),
        inputs=(),
        outputs=(),
    )
    service = replace(SERVICE, on_demand=(on_demand,))
    for nulls in (pa.nulls(2), pl.Series([None, None]).to_arrow()):
        labels = check_labels(frame(asked=nulls), service, timestamp="at", label="label")
        assert labels.table["asked"].type == dtype.arrow
        assert labels.table["asked"].null_count == 2


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


@pytest.mark.parametrize("values", [["1", "2"], [Decimal(1), Decimal(2)]])
def test_who_has_a_key_of_another_type_is_told_which_views_read_it(values: list[Any]) -> None:
    other = replace(VIEW, name="shops", keys=(ScalarColumn("shop_id", ColumnType.INT64),))
    views = [replace(VIEW, name=f"spend_{number}") for number in range(5)]
    service = replace(SERVICE, views=(*views, other))
    labels = frame(client_id=pa.array(values), shop_id=pa.array([1, 2]))
    with pytest.raises(KonveyerError) as caught:
        check_labels(labels, service, timestamp="at", label="label")
    assert "the features of spend_0, spend_1, spend_2 and 2 more views have" in str(caught.value)


def test_an_empty_frame_is_refused() -> None:
    with pytest.raises(KonveyerError, match="no rows"):
        checked(frame().slice(0, 0))


def test_one_entity_twice_at_a_time_is_told_apart_by_another_column() -> None:
    same = {"client_id": pa.array([1, 1]), "at": pa.array([0, 0], pa.timestamp("us"))}
    assert len(checked(frame(**same, campaign=pa.array([7, 8]))).table) == 2


KEYS = pa.array([7], pa.int64())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (KEYS, pa.array(["007"])),
        (pa.array(["7"]), KEYS),
        (KEYS, pa.array(["7"]).dictionary_encode()),
        (KEYS, pa.array([True])),
        (pa.array([0], pa.date32()), pa.array([1], pa.timestamp("us"))),
    ],
)
def test_files_with_other_types_of_a_column_are_refused(
    tmp_path: Path, first: pa.Array, second: pa.Array
) -> None:
    for name, values in (("a", first), ("b", second)):
        table = pa.table({"client_id": values, "label": [1]})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(LabelsUnreadable) as caught:
        labels_at(tmp_path)
    assert "Column 'client_id' is" in caught.value.message
    assert "b.parquet, but" in caught.value.message
    assert labels_at(tmp_path, ["client_id"]).num_rows == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (KEYS, pa.array([8], pa.int16())),
        (KEYS, pa.array([8.0])),
        (KEYS, pa.nulls(1)),
        (pa.array(["7"]), pa.array(["8"]).dictionary_encode()),
        (pa.array([0], pa.timestamp("us", "UTC")), pa.array([1], pa.timestamp("ms"))),
    ],
)
def test_files_may_have_related_types_of_a_column(
    tmp_path: Path, first: pa.Array, second: pa.Array
) -> None:
    for name, values in (("a", first), ("b", second)):
        pq.write_table(pa.table({"client_id": values}), tmp_path / f"{name}.parquet")
    found = labels_at(tmp_path)
    assert isinstance(found, pa.Table)
    expected = [*first, *second.cast(first.type)]
    assert found["client_id"].to_pylist() == [value.as_py() for value in expected]


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
