"""Windows as one writes them by hand for DuckDB: join the widest window once, filter by width."""

import duckdb

from benchmarks.features.measure import Prepared, Task, run_task

DAYS = (7, 30, 90)


def windows(task: Task) -> Prepared:
    """From file to file; the rows come in no order."""
    connection = duckdb.connect()
    sql = f"COPY ({query(task)}) TO '{task.answer}' (FORMAT parquet)"
    return Prepared(operation=lambda: connection.execute(sql))


def query(task: Task) -> str:
    features = []
    for days in DAYS:
        inside = f"FILTER (WHERE event_time > label_timestamp - INTERVAL {days} DAY)"
        features += [
            f"sum(amount) {inside} AS sum_{days}d",
            f"count(amount) {inside} AS count_{days}d",
            f"max(amount) {inside} AS max_{days}d",
            f"avg(amount) {inside} AS mean_{days}d",
        ]
    return (
        f"SELECT labels.client_id, label_timestamp, {', '.join(features)} "
        f"FROM '{task.data}/labels.parquet' AS labels "
        f"LEFT JOIN '{task.data}/events.parquet' AS events "
        "ON labels.client_id = events.client_id AND event_time <= label_timestamp "
        f"AND event_time > label_timestamp - INTERVAL {max(DAYS)} DAY "
        "GROUP BY labels.client_id, label_timestamp"
    )


if __name__ == "__main__":
    run_task({"windows-dense": windows, "windows-sparse": windows})
