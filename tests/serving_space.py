"""A workspace that only serves: bundles, records online and a document, with no catalog at all.

Its nodes are the real ones. Three views of one client, 23 features of which three are texts, and a
model that LightGBM trained on rows like theirs.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa

from konveyer.bundle.manifest import MODEL, Serving
from konveyer.bundle.store import Bundle
from konveyer.core.schema import Column, ColumnType, ScalarColumn
from konveyer.core.settings import Settings, load_settings
from konveyer.core.storage import FolderStorage
from konveyer.execution.serving.desired import Desired, DesiredVersion, write_desired
from konveyer.feature_store.definitions.resolved import (
    ResolvedFeature,
    ResolvedService,
    ResolvedView,
)
from konveyer.feature_store.online.base import Record
from konveyer.feature_store.online.codec import RecordCodec, encode_key
from konveyer.wiring import open_bundle_store, open_online_store
from tests.manifests import manifest_with

KEY = ScalarColumn("client_id", ColumnType.INT64)
CITIES = ("Oslo", "Rome", "Paris")
CLIENTS = 1000
EVENT_US = 1_700_000_000_000_000
_NUMBERS = {"spend": 8, "visits": 7, "profile": 5}


def columns_of(view: str) -> tuple[Column, ...]:
    numbers = [Column(f"{view}_{place}", ColumnType.FLOAT64) for place in range(_NUMBERS[view])]
    return (*numbers, Column(f"{view}_city", ColumnType.STRING))


VIEWS = tuple(
    ResolvedView(
        name=name,
        version="1",
        keys=(KEY,),
        columns=columns_of(name),
        defaults=(None,) * len(columns_of(name)),
        space=f"{name}.1",
        ttl_us=None,
        windowed=True,
    )
    for name in _NUMBERS
)
SERVICE = ResolvedService(
    name="scoring",
    version="1",
    views=VIEWS,
    features=tuple(
        ResolvedFeature(name=column.name, view=view.name, feature=column.name, dtype=column.dtype)
        for view in VIEWS
        for column in view.columns
    ),
)
NAMES = [feature.name for feature in SERVICE.features]
_CATEGORIES: dict[str, tuple[str, ...]] = {name: CITIES for name in NAMES if name.endswith("city")}


def features_of(client: int) -> dict[str, Any]:
    """What the online store has of a client."""
    rng = np.random.default_rng(client)
    return {
        name: CITIES[rng.integers(3)] if name in _CATEGORIES else float(rng.normal())
        for name in NAMES
    }


def booster(seed: int, trees: int) -> lgb.Booster:
    rng = np.random.default_rng(seed)
    texts = [place for place, name in enumerate(NAMES) if name in _CATEGORIES]
    rows = rng.normal(size=(2000, len(NAMES)))
    rows[:, texts] = rng.integers(0, 3, (2000, len(texts)))
    labels = (rows[:, 0] + rows[:, 9] * rows[:, 1] + rng.normal(size=2000) > 0.3).astype(int)
    data = lgb.Dataset(rows, labels, categorical_feature=texts)
    parameters = {"objective": "binary", "verbosity": -1, "seed": seed, "num_threads": 1}
    return lgb.train(parameters, data, num_boost_round=trees)


@dataclass(frozen=True)
class ServingSpace:
    """Where nodes find what to serve."""

    root: Path

    @property
    def settings(self) -> Settings:
        return load_settings(self.root)

    @property
    def state(self) -> Path:
        return self.root / "state"

    def pack(
        self,
        seed: int = 1,
        *,
        application: str = "scoring",
        trees: int = 20,
        serving: Serving | None = None,
        with_nan: bool = False,
    ) -> Bundle:
        """One model for each seed; one `with_nan` answers some clients with no number."""
        manifest = manifest_with(
            application=application,
            description="Will the client pay?",
            owner="risk",
            created_us=seed,
            service=SERVICE,
            categories=_CATEGORIES,
            serving=serving or Serving(),
        )

        def write(folder: Path) -> None:
            (folder / MODEL).parent.mkdir()
            text = booster(seed, trees).model_to_string()
            if with_nan:
                text = re.sub(r"(leaf_value=)\S+", r"\1nan", text, count=1)
                text = re.sub(r"tree_sizes=[^\n]*\n", "", text)
            (folder / MODEL).write_text(text)

        return open_bundle_store(self.settings).pack(manifest, write)

    def publish(self, clients: int = CLIENTS) -> None:
        """Put the features of the clients from 0 on online."""
        online = open_online_store(self.settings)
        rows = pa.Table.from_pylist([features_of(client) for client in range(clients)])
        for view in VIEWS:
            values = RecordCodec(view.columns).encode(rows, [EVENT_US] * clients)
            keys = [encode_key([client]) for client in range(clients)]
            online.put(view.space, map(Record, keys, values))
        online.close()

    def desire(self, *bundles: Bundle, **changes: Any) -> None:
        """Let `prod` serve these, each the first version of its application."""
        versions = tuple(
            DesiredVersion(
                application=bundle.manifest.application,
                api_version=1,
                digest=bundle.digest,
                release=f"r-{bundle.manifest.created_us}",
                since_us=1,
                **{name: value for name, value in changes.items() if name != "keys"},
            )
            for bundle in bundles
        )
        desired = Desired(environment="prod", versions=versions, keys=changes.get("keys", ()))
        write_desired(FolderStorage(self.state), desired)


def new_space(root: Path, settings: str = "") -> ServingSpace:
    """An empty one in a new folder; `settings` are further lines of konveyer.toml."""
    root.mkdir(parents=True)
    (root / "konveyer.toml").write_text(f'[workspace]\nname = "serving"\n{settings}')
    return ServingSpace(root)
