"""Feast as each of its peers here uses it: the same three views as ours, applied."""

from datetime import timedelta
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float64, Int64, String
from feast.value_type import ValueType

from benchmarks.features.measure import Prepared, Task

TYPES = {"balance": Float64, "limit": Float64, "score": Float64, "visits": Int64, "city": String}
VIEWS = ("accounts", "cards", "loans")
# Asking by names is a little faster than by a feature service.
FEATURES = [f"{view}:{view}_{feature}" for view in VIEWS for feature in TYPES]
KEY, TIMESTAMP = "client_id", "label_timestamp"


def applied_store(
    task: Task, *, offline: Literal["duckdb", "dask"], ttl: timedelta | None
) -> FeatureStore:
    """A store in the task's own folder, with the registry cached for ever."""
    config = RepoConfig(
        project="benchmark",
        provider="local",
        registry={"path": str(task.state / "registry.db"), "cache_ttl_seconds": 0},
        offline_store={"type": offline},
        online_store={"type": "sqlite", "path": str(task.state / "online.db")},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    client = Entity(name="client", join_keys=[KEY], value_type=ValueType.INT64)
    views = [_view(name, client, task.data, ttl) for name in VIEWS]
    store.apply([client, *views])
    return store


def _view(name: str, client: Entity, data: Path, ttl: timedelta | None) -> FeatureView:
    source = FileSource(
        name=f"{name}_rows", path=str(data / f"{name}.parquet"), timestamp_field="event_time"
    )
    features = [Field(name=f"{name}_{feature}", dtype=dtype) for feature, dtype in TYPES.items()]
    return FeatureView(
        name=name,
        entities=[client],
        schema=[Field(name=KEY, dtype=Int64), *features],
        source=source,
        ttl=ttl,
    )


def historical(task: Task, *, offline: Literal["duckdb", "dask"]) -> Prepared:
    """From the label file to the training set's file, as a user of Feast would write it."""
    store = applied_store(task, offline=offline, ttl=timedelta(days=90))
    few = pd.DataFrame({KEY: [1], "event_timestamp": [pd.Timestamp("2022-06-01", tz="UTC")]})
    # A job that is made and not run loads what Feast loads at first use.
    store.get_historical_features(entity_df=few, features=FEATURES)

    def operation() -> None:
        labels = pd.read_parquet(task.data / "labels.parquet")
        # Feast finds the moment by this name.
        entities = labels.rename(columns={TIMESTAMP: "event_timestamp"})
        found = store.get_historical_features(entity_df=entities, features=FEATURES).to_arrow()
        names = [TIMESTAMP if name == "event_timestamp" else name for name in found.column_names]
        pq.write_table(found.rename_columns(names), task.answer)

    return Prepared(operation=operation)
