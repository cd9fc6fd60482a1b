"""The benches: which data, which definitions, which peers."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One that is slow is measured in fewer `rounds`; one may leave out labels that we keep."""

    name: str
    rounds: int = 3
    may_lose_rows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """`after` is a bench whose outcome this one reads; `unit` is that of the times printed."""

    name: str
    dataset: str
    definitions: str
    peers: tuple[Peer, ...] = ()
    after: "Bench | None" = None
    unit: str = "s"


WINDOW_PEERS = (Peer(name="duckdb-range-join"), Peer(name="polars"))
POINT_IN_TIME = Bench(
    name="point-in-time",
    dataset="point-in-time",
    definitions="point_in_time",
    peers=(
        Peer(name="feast-duckdb"),
        Peer(name="feast-file", rounds=1, may_lose_rows=True),
        Peer(name="duckdb-asof"),
        Peer(name="polars"),
    ),
)
DENSE = Bench(
    name="windows-dense", dataset="windows-dense", definitions="windows", peers=WINDOW_PEERS
)
SPARSE = Bench(
    name="windows-sparse", dataset="windows-sparse", definitions="windows", peers=WINDOW_PEERS
)
PUBLISH = Bench(
    name="publish", dataset="online", definitions="online", peers=(Peer(name="feast-sqlite"),)
)
ONLINE_1 = replace(PUBLISH, name="online-1", after=PUBLISH, unit="us")
ONLINE_100 = replace(ONLINE_1, name="online-100")

# Our Spark over the tables of `point-in-time`; DuckDB on the same machine shows what it costs.
DUCKDB = "ours-duckdb"
SPARK = replace(
    POINT_IN_TIME, name="spark", peers=(Peer(name="spark-union", rounds=2), Peer(name=DUCKDB))
)
AGAINST_PEERS = (POINT_IN_TIME, DENSE, SPARSE, PUBLISH, ONLINE_1, ONLINE_100, SPARK)

# Against ourselves, over histories that are so many times as long.
GROWTH = "growth"
LENGTHS = {
    times: Bench(name=f"growth-{times}x", dataset=f"growth-{times}x", definitions="windows")
    for times in (1, 2, 4, 8)
}
NAMES = (*(bench.name for bench in AGAINST_PEERS), GROWTH)
