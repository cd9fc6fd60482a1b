"""A point-in-time join as one writes it by hand for DuckDB, with its ASOF JOIN."""

import duckdb

from benchmarks.features.measure import Prepared, Task, run_task

VIEWS = ("accounts", "cards", "loans")
FEATURES = ("balance", "limit", "score", "visits", "city")


def point_in_time(task: Task) -> Prepared:
    """From file to file; the rows come in no order."""
    connection = duckdb.connect()
    sql = f"COPY ({query(task)}) TO '{task.answer}' (FORMAT parquet)"
    return Prepared(operation=lambda: connection.execute(sql))


def query(task: Task) -> str:
    fresh = "event_time >= label_timestamp - INTERVAL 90 DAY"
    features = [
        f"CASE WHEN {view}.{fresh} THEN {view}_{feature} END AS {view}_{feature}"
        for view in VIEWS
        for feature in FEATURES
    ]
    joins = [
        f"ASOF LEFT JOIN '{task.data}/{view}.parquet' AS {view} "
        f"ON labels.client_id = {view}.client_id AND label_timestamp >= {view}.event_time"
        for view in VIEWS
    ]
    return (
        f"SELECT labels.client_id, label_timestamp, {', '.join(features)} "
        f"FROM '{task.data}/labels.parquet' AS labels {' '.join(joins)}"
    )


if __name__ == "__main__":
    run_task({"point-in-time": point_in_time})
