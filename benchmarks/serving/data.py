"""Synthetic clients with a fixed seed: 20 numbers and 3 texts each, in three views, and labels.

python -m benchmarks.serving.data FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CLIENTS, ASKED = 20_000, 1_000
DAY_US = 86_400_000_000
FIRST_US = 1_767_225_600_000_000  # 1 January 2026
INSTANT = pa.timestamp("us", tz="UTC")
TEXTS = {"segment": ["mass", "private", "premium"], "city": ["Bergen", "Oslo", "Rome", "Turin"]}
VIEWS = {
    "profile": ([f"profile_{place}" for place in range(8)], "segment"),
    "accounts": ([f"account_{place}" for place in range(6)], "city"),
    "cards": ([f"card_{place}" for place in range(6)], "scheme"),
}
SCHEMES = ["blue", "gold", "silver"]


def make_data(folder: Path) -> None:
    """Every client has one row in each view, on the first day, and one label, on the second."""
    random = np.random.default_rng(11)
    folder.mkdir(parents=True, exist_ok=True)
    clients = np.arange(CLIENTS)
    columns: dict[str, pa.Array] = {}
    for view, (numbers, text) in VIEWS.items():
        words = pa.array(TEXTS.get(text, SCHEMES))
        own = {name: pa.array(random.normal(size=CLIENTS)) for name in numbers}
        own[text] = words.take(pa.array(random.integers(0, len(words), CLIENTS)))
        moments = _instants(np.full(CLIENTS, FIRST_US))
        _write(folder, view, {"client_id": pa.array(clients), "event_time": moments, **own})
        columns |= own
    wealth = columns["account_0"].to_numpy() + columns["card_1"].to_numpy() ** 2
    defaulted = (wealth + random.normal(size=CLIENTS) > 1).astype(np.int64)
    # Half of the labels come later than the split, and measure the model.
    moments = _instants(FIRST_US + DAY_US * (1 + 2 * (clients % 2)))
    labels = {"client_id": pa.array(clients), "label_timestamp": moments}
    _write(folder, "labels", {**labels, "defaulted": pa.array(defaulted)})
    asked = pa.array(random.permutation(CLIENTS)[:ASKED])
    everything = pa.table({"client_id": pa.array(clients), **columns})
    pq.write_table(everything.take(asked), folder / "asked.parquet")


def _instants(at_us: "np.typing.NDArray[np.int64]") -> pa.Array:
    return pa.array(at_us).cast(INSTANT)


def _write(folder: Path, name: str, columns: dict[str, pa.Array]) -> None:
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")


if __name__ == "__main__":
    make_data(Path(sys.argv[1]))
