"""Polars at its best: the fastest of the forms that were tried for each shape of data (README)."""

import polars as pl

from benchmarks.features.measure import Prepared, Task, run_task

VIEWS = ("accounts", "cards", "loans")
DAYS = (7, 30, 90)
KEY, AT, EVENT = "client_id", "label_timestamp", "event_time"
AMOUNT = pl.col("amount")


def point_in_time(task: Task) -> Prepared:
    """An as-of join for each view, from file to file; labels come out in order of time."""
    joined = _scan(task, "labels").sort(AT)
    for view in VIEWS:
        joined = joined.join_asof(
            _scan(task, view),
            left_on=AT,
            right_on=EVENT,
            by=KEY,
            tolerance="90d",
            check_sortedness=False,
        ).drop(EVENT)
    return _written(joined, task)


def windows_sparse(task: Task) -> Prepared:
    """With few events a client: join all of them to its labels, and filter."""
    pairs = (
        _scan(task, "labels")
        .join(_scan(task, "events"), on=KEY)
        .filter(pl.col(EVENT) <= pl.col(AT), pl.col(EVENT) > pl.col(AT) - _span(max(DAYS)))
    )
    features = []
    for days in DAYS:
        inside = pl.when(pl.col(EVENT) > pl.col(AT) - _span(days)).then(AMOUNT)
        count = inside.count().cast(pl.Int64)
        features += [
            pl.when(count > 0).then(inside.sum()).alias(f"sum_{days}d"),
            count.alias(f"count_{days}d"),
            inside.max().alias(f"max_{days}d"),
            inside.mean().alias(f"mean_{days}d"),
        ]
    found = pairs.group_by(KEY, AT).agg(features)
    complete = _scan(task, "labels").join(found, on=[KEY, AT], how="left")
    return _written(complete.with_columns(pl.col("^count_.*$").fill_null(0)), task)


def windows_dense(task: Task) -> Prepared:
    """With many: sums as differences of running sums, maxima by rolling over both frames."""
    return _written(_sums(task).join(_maxima(task), on=[KEY, AT], how="left"), task)


def _sums(task: Task) -> pl.LazyFrame:
    """One as-of join for the starts and the ends of all windows."""
    running = _scan(task, "events").select(
        KEY, EVENT, sum=AMOUNT.cum_sum().over(KEY), count=AMOUNT.cum_count().over(KEY)
    )
    labels = _scan(task, "labels").with_row_index("row")
    moments = [
        labels.select("row", KEY, moment=pl.col(AT) - _span(days), days=pl.lit(days))
        for days in (0, *DAYS)
    ]
    found = (
        pl.concat(moments)
        .sort("moment")
        .join_asof(running, left_on="moment", right_on=EVENT, by=KEY, check_sortedness=False)
        .select("row", "days", pl.col("sum").fill_null(0), pl.col("count").fill_null(0))
    )
    by_row = found.group_by("row").agg(
        pl.col(name).filter(pl.col("days") == days).first().cast(dtype).alias(f"{name}_{days}")
        for days in (0, *DAYS)
        for name, dtype in (("sum", pl.Float64), ("count", pl.Int64))
    )
    features = []
    for days in DAYS:
        total = pl.col("sum_0") - pl.col(f"sum_{days}")
        count = pl.col("count_0") - pl.col(f"count_{days}")
        features += [
            pl.when(count > 0).then(total).alias(f"sum_{days}d"),
            count.alias(f"count_{days}d"),
            pl.when(count > 0).then(total / count).alias(f"mean_{days}d"),
        ]
    return labels.join(by_row, on="row").select(KEY, AT, *features)


def _maxima(task: Task) -> pl.LazyFrame:
    """Labels stand among the events as rows without an amount; only they are kept."""
    events = _scan(task, "events").select(KEY, pl.col(EVENT).alias(AT), AMOUNT, label=False)
    labels = _scan(task, "labels").select(
        KEY, AT, pl.lit(None, pl.Float64).alias("amount"), label=True
    )
    features = [
        AMOUNT.rolling_max_by(AT, window_size=f"{days}d", closed="right")
        .over(KEY)
        .alias(f"max_{days}d")
        for days in DAYS
    ]
    both = pl.concat([events, labels]).sort(AT)
    return both.with_columns(features).filter("label").drop("amount", "label")


def _scan(task: Task, name: str) -> pl.LazyFrame:
    return pl.scan_parquet(task.data / f"{name}.parquet")


def _span(days: int) -> pl.Expr:
    return pl.duration(days=days)


def _written(frame: pl.LazyFrame, task: Task) -> Prepared:
    return Prepared(operation=lambda: frame.sink_parquet(task.answer))


if __name__ == "__main__":
    run_task(
        {
            "point-in-time": point_in_time,
            "windows-dense": windows_dense,
            "windows-sparse": windows_sparse,
        }
    )
