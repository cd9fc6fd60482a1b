"""Two answers, compared cell by cell. A difference is an error that names the cell.

    python -m benchmarks.features.compare OURS PEER [--may-lose-rows]

Prints as JSON how many of our rows the peer lost; losing any is an error unless it may.
"""

import argparse
import json
from pathlib import Path

import polars as pl

KEYS = ("client_id", "label_timestamp")
PEER = "_peer"


class Difference(Exception):
    """The answers are not the same."""


def rows_lost(ours: pl.DataFrame, peer: pl.DataFrame, *, may_lose_rows: bool) -> int:
    """How many of our rows the peer does not have; all cells of the others are equal.

    Rows are told by their keys, in any order, columns by their names. A NaN equals a NaN, a null a
    null; whole numbers and floats are compared by value, without a tolerance.

    >>> frame = pl.DataFrame({"client_id": [1, 2], "n": [5, None]})
    >>> rows_lost(frame, frame.reverse(), may_lose_rows=False)
    0
    """
    keys = [key for key in KEYS if key in ours.columns]
    if set(ours.columns) != set(peer.columns):
        raise Difference(f"columns: ours {sorted(ours.columns)}, peer {sorted(peer.columns)}")
    ours, peer = _plain(ours), _plain(peer)
    for side, frame in (("ours", ours), ("peer", peer)):
        if frame.select(keys).is_duplicated().any():
            raise Difference(f"{side} has rows with equal {', '.join(keys)}")
    missing = ours.join(peer, on=keys, how="anti").select(keys)
    extra = peer.join(ours, on=keys, how="anti").select(keys)
    if len(extra) or (len(missing) and not may_lose_rows):
        raise Difference(
            f"the peer lacks {len(missing)} of our rows, such as {_first(missing)}, "
            f"and has {len(extra)} that we lack, such as {_first(extra)}"
        )
    joined = ours.join(peer, on=keys, how="inner", suffix=PEER)
    for name in ours.columns:
        if name not in keys:
            _compare_column(joined, keys, name)
    return len(missing)


def _compare_column(joined: pl.DataFrame, keys: list[str], name: str) -> None:
    differing = joined.filter(pl.col(name).ne_missing(pl.col(name + PEER)))
    if len(differing):
        row = differing.row(0, named=True)
        where = ", ".join(f"{key} {row[key]}" for key in keys)
        raise Difference(
            f"{len(differing)} cell(s) of column '{name}' differ, first where {where}: "
            f"ours {row[name]!r}, peer {row[name + PEER]!r}"
        )


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """With the types that every side can hold: Feast's pandas makes floats of nullable numbers."""
    instants = pl.selectors.temporal()
    return frame.with_columns(
        pl.selectors.numeric().exclude(KEYS).cast(pl.Float64),
        pl.selectors.by_dtype(pl.Categorical).cast(pl.String),
        instants.cast(pl.Datetime("us", "UTC")),
    )


def _first(rows: pl.DataFrame) -> str:
    return str(rows.row(0, named=True)) if len(rows) else "none"


def _read(answer: Path) -> pl.DataFrame:
    """Of Spark a folder of files."""
    return pl.read_parquet(answer / "*.parquet" if answer.is_dir() else answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ours", type=Path)
    parser.add_argument("peer", type=Path)
    parser.add_argument("--may-lose-rows", action="store_true")
    options = parser.parse_args()
    ours, peer = _read(options.ours), _read(options.peer)
    try:
        lost = rows_lost(ours, peer, may_lose_rows=options.may_lose_rows)
    except Difference as difference:
        raise SystemExit(f"{difference}") from difference
    print(json.dumps({"rows_lost": lost}))


if __name__ == "__main__":
    main()
