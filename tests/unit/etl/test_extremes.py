"""Moments and numbers at the ends of their types are the same in every read, to the last digit."""

from pathlib import Path

import pytest

from konveyer import Source
from konveyer.access.actor import Actor
from konveyer.catalog.session import Catalog
from tests.unit.etl import extremes
from tests.unit.etl.store import opened_store


@pytest.mark.parametrize("catalog", ["sqlite"], indirect=True)
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_the_ends_of_types_come_back_as_they_are(
    catalog: Catalog, admin: Actor, tmp_path: Path, kind: str
) -> None:
    if kind == "csv":
        extremes.write_csv(tmp_path / "rows.csv")
        source = Source(
            name="events", path="rows.csv", columns=extremes.SEEN, event_time="happened"
        )
    else:
        extremes.write_parquet(tmp_path / "rows.parquet")
        source = Source(name="events", path="rows.parquet", event_time="happened")
    with opened_store(catalog, admin, tmp_path, now=extremes.LAST) as store:
        store.apply(*extremes.definitions(source))
        extremes.assert_all_come_back(store)
