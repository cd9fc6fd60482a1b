"""A point-in-time join as one writes it by hand for Spark: labels among rows, and last values."""

from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F  # noqa: N812 - as all of Spark's documentation has it

from benchmarks.features.measure import Prepared, Task, run_task

VIEWS = ("accounts", "cards", "loans")
FEATURES = ("balance", "limit", "score", "visits", "city")
KEY, AT, EVENT = "client_id", "label_timestamp", "event_time"


def point_in_time(task: Task) -> Prepared:
    """From file to files. One shuffle and one sort for all three views."""
    spark = session()
    spark.sql("SELECT 1").collect()
    joined = query(spark, task)
    return Prepared(operation=lambda: joined.write.mode("overwrite").parquet(str(task.answer)))


def session() -> SparkSession:
    configuration: dict[str, bool | float | int | str | None] = {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": "2g",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "4",
        "spark.ui.enabled": "false",
    }
    builder = SparkSession.builder.master("local[2]")
    return builder.config(map=configuration).getOrCreate()


def query(spark: SparkSession, task: Task) -> DataFrame:
    """Every row has the structs of all views; a label has nulls in them, and stands last."""
    labels = spark.read.parquet(str(task.data / "labels.parquet"))
    frames = [labels.select(KEY, F.col(AT).alias(EVENT), F.lit(1).alias("is_label"))]
    for view in VIEWS:
        rows = spark.read.parquet(str(task.data / f"{view}.parquet"))
        values = F.struct(EVENT, *(f"{view}_{feature}" for feature in FEATURES))
        frames.append(rows.select(KEY, EVENT, F.lit(0).alias("is_label"), values.alias(view)))
    both = reduce(lambda one, two: one.unionByName(two, allowMissingColumns=True), frames)
    until_now = (
        Window.partitionBy(KEY)
        .orderBy(EVENT, "is_label")
        .rowsBetween(Window.unboundedPreceding, Window.currentRow)
    )
    newest = [F.last(view, ignorenulls=True).over(until_now).alias(view) for view in VIEWS]
    found = both.select(KEY, EVENT, "is_label", *newest).where("is_label = 1")
    features = [_fresh(view, feature) for view in VIEWS for feature in FEATURES]
    return found.select(KEY, F.col(EVENT).alias(AT), *features)


def _fresh(view: str, feature: str) -> Column:
    is_fresh = F.col(f"{view}.{EVENT}") >= F.col(EVENT) - F.expr("INTERVAL 90 DAYS")
    return F.when(is_fresh, F.col(f"{view}.{view}_{feature}")).alias(f"{view}_{feature}")


if __name__ == "__main__":
    run_task({"spark": point_in_time})
