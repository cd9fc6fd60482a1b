"""A heavy bucket is read in pieces: the same cells, and no piece reads all of it."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.feature_store.datamart import pieces
from konveyer.feature_store.datamart.join import BucketRead, join_features
from konveyer.feature_store.datamart.pinned_view import PinnedView
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.engines.duckdb import DuckDBEngine
from konveyer.feature_store.kernel.codes import Ints
from konveyer.feature_store.kernel.evaluate import ViewPlan, WindowedFeature
from konveyer.feature_store.kernel.history import CREATED_TIME, EVENT_TIME
from konveyer.feature_store.offline.table_version import DataFile, TableRef, TableVersion

INSTANT = pa.timestamp("us", "UTC")
FUNCTIONS = ("sum", "count", "min", "mean", "stddev", "first", "last", "count_distinct")
NUMBER = ScalarColumn("client", ColumnType.INT64)
TEXT = ScalarColumn("shop", ColumnType.STRING)
# The heavy entity has the lowest, the highest, or no number at the end; texts are not ASCII.
KEYS = st.sampled_from([(0, "é")] * 6 + [(0, "🎉"), (-1, ""), (2, "é"), (2, "日")])
ROWS = st.lists(
    st.tuples(
        KEYS,
        st.integers(0, 30),
        st.integers(0, 8),
        st.none() | st.sampled_from([0.1, -3.0, 7.25, 1e9]),
    ),
    min_size=20,
    max_size=80,
)
LABELS = st.lists(st.tuples(KEYS | st.just((5, "x")), st.integers(-2, 40)), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = DuckDBEngine()
    yield engine
    engine.close()


@st.composite
def plans(draw: st.DrawFn) -> ViewPlan:
    keys = draw(st.sampled_from([("client",), ("shop",), ("client", "shop"), ("shop", "client")]))
    refresh_us, as_known = draw(st.sampled_from([0, 5])), draw(st.booleans())
    if draw(st.booleans()):
        ttl_us = draw(st.sampled_from([None, 0, 0, 3, 9]))
        return ViewPlan(
            keys=keys, columns=("x",), ttl_us=ttl_us, refresh_us=refresh_us, as_known=as_known
        )
    lengths = draw(st.lists(st.sampled_from([1, 4, 9, 9, None]), min_size=1, max_size=2))
    windowed = tuple(
        WindowedFeature(
            name=f"{function}_{number}",
            function=function,  # type: ignore[arg-type]
            over_us=over_us,
            column=None if function == "count" else "x",
            filter_column=None,
        )
        for number, over_us in enumerate(lengths)
        for function in FUNCTIONS
    )
    return ViewPlan(keys=keys, windowed=windowed, refresh_us=refresh_us, as_known=as_known)


def table_of(folder: Path, rows: list[Any], keys: tuple[str, ...], created: bool) -> TableVersion:
    """In row groups of four, sorted as ETL sorts them."""
    plain = [
        {"client": key[0], "shop": key[1], "event": at, "created": at + late, "x": x}
        for key, at, late, x in rows
    ]
    plain.sort(key=lambda row: (*(row[key] for key in keys), row["event"], row["created"]))
    times = {EVENT_TIME: "event"} | ({CREATED_TIME: "created"} if created else {})
    types = {"client": pa.int64(), "shop": pa.string()}
    columns = {key: pa.array([row[key] for row in plain], types[key]) for key in keys}
    for name, source in times.items():
        columns[name] = pa.array([row[source] for row in plain], pa.int64()).cast(INSTANT)
    columns["x"] = pa.array([row["x"] for row in plain], pa.float64())
    table, path = pa.table(columns), folder / "part.parquet"
    pq.write_table(table, path, row_group_size=4)
    file = DataFile(path=path, rows=len(table), size_bytes=path.stat().st_size)
    ref = TableRef(view="view", version="1", table_version=0, buckets=1)
    return TableVersion(ref=ref, schema=table.schema, files={0: (file,)})


def joined(
    engine: Engine, view: PinnedView, spine: pa.Table, at_us: Ints, most_rows: int
) -> tuple[pa.Table, list[BucketRead]]:
    reads: list[BucketRead] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "MOST_ROWS", most_rows)
        found = join_features(spine, at_us, [view], engine=engine, watch=reads.append)
    return pa.table(found), reads


def view_of(table: TableVersion, plan: ViewPlan) -> PinnedView:
    features = [feature.name for feature in plan.windowed] or ["x"]
    keys = tuple({"client": NUMBER, "shop": TEXT}[key] for key in plan.keys)
    return PinnedView(table=table, keys=keys, plan=plan, features={n: n for n in features})


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(rows=ROWS, labels=LABELS, plan=plans(), created=st.booleans(), most_rows=st.integers(1, 9))
def test_pieces_give_the_cells_of_the_whole(
    engine: Engine,
    rows: list[Any],
    labels: list[Any],
    plan: ViewPlan,
    created: bool,
    most_rows: int,
) -> None:
    at_us = np.array([at for _, at in labels], np.int64)
    columns = {
        "client": pa.array([key[0] for key, _ in labels], pa.int64()),
        "shop": pa.array([key[1] for key, _ in labels], pa.string()),
    }
    spine = pa.table({key: columns[key] for key in plan.keys})
    with TemporaryDirectory() as folder:
        view = view_of(table_of(Path(folder), rows, plan.keys, created), plan)
        expected, _ = joined(engine, view, spine, at_us, 10**9)
        found, _ = joined(engine, view, spine, at_us, most_rows)
    assert found.equals(expected) or str(found.to_pydict()) == str(expected.to_pydict())


@pytest.mark.parametrize(
    ("plan", "most"),
    [
        (ViewPlan(keys=("client",), columns=("x",), ttl_us=50), 120),
        (ViewPlan(keys=("client",), columns=("x",)), 120),
        (
            ViewPlan(
                keys=("client",),
                windowed=(
                    WindowedFeature(
                        name="x", function="sum", over_us=40, column="x", filter_column=None
                    ),
                ),
            ),
            150,
        ),
    ],
    ids=["fresh", "newest", "window"],
)
def test_a_piece_reads_what_its_time_needs(
    engine: Engine, tmp_path: Path, plan: ViewPlan, most: int
) -> None:
    """Of 1,000 rows that one client has, and a few others have."""
    rows = [((0, "a"), at, 0, 1.0) for at in range(1_000)]
    rows += [((client, "a"), at, 0, 2.0) for client in (-1, 1, 2) for at in range(9)]
    view = view_of(table_of(tmp_path, rows, plan.keys, created=True), plan)
    random = np.random.default_rng(1)
    spine = pa.table({"client": random.choice([-1, 0, 0, 0, 2, 9], 500)})
    at_us = random.integers(0, 1_000, 500)
    expected, (whole,) = joined(engine, view, spine, at_us, 10**9)
    found, reads = joined(engine, view, spine, at_us, 100)
    assert found.equals(expected)
    assert whole.rows >= 1_000
    assert len(reads) >= 9
    assert max(read.rows for read in reads) <= most
    assert sum(read.rows for read in reads) < 2.5 * len(rows)


def test_a_window_without_a_length_is_read_again_a_few_times_at_most(
    engine: Engine, tmp_path: Path
) -> None:
    rows = [((0, "a"), at, 0, 0.1) for at in range(1_000)]
    feature = WindowedFeature(
        name="x", function="sum", over_us=None, column="x", filter_column=None
    )
    plan = ViewPlan(keys=("client",), windowed=(feature,))
    view = view_of(table_of(tmp_path, rows, plan.keys, created=False), plan)
    at_us = np.arange(0, 1_000, 12)
    spine = pa.table({"client": np.zeros(len(at_us), np.int64)})
    expected, _ = joined(engine, view, spine, at_us, 10**9)
    found, reads = joined(engine, view, spine, at_us, 100)
    assert found.equals(expected)
    assert sum(read.rows for read in reads) < 3 * len(rows)


@pytest.mark.parametrize("ttl_us", [None, 0, 1, 3])
@pytest.mark.parametrize("step", [1, 4])
def test_a_label_at_the_edge_of_a_row_group_gets_its_row(
    engine: Engine, tmp_path: Path, ttl_us: int | None, step: int
) -> None:
    """Each label alone, so that no other one needs the same row group."""
    rows = [((0, "a"), at * step, late, at + late / 10) for at in range(12) for late in (0, 2)]
    plan = ViewPlan(keys=("client",), columns=("x",), ttl_us=ttl_us)
    view = view_of(table_of(tmp_path, rows, plan.keys, created=True), plan)
    spine = pa.table({"client": [0]})
    for at in range(-1, 13 * step):
        expected, _ = joined(engine, view, spine, np.array([at]), 10**9)
        found, _ = joined(engine, view, spine, np.array([at]), 1)
        assert found.equals(expected), at
