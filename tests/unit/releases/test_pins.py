"""What releases pin: what they learned from and what they read, as long as they may serve."""

from pathlib import Path

import msgspec
import pytest

from konveyer.access.actor import Actor
from konveyer.bundle.errors import BundleNotFound
from konveyer.bundle.manifest import TRAINING
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.catalog.session import Catalog
from konveyer.execution.releases.machine import STAGES, State
from konveyer.execution.releases.pins import KEPT_FOR_ROLLBACK, release_pins
from konveyer.execution.releases.records import release_row, set_live
from konveyer.execution.releases.service import open_release
from konveyer.feature_store.datamart.manifest import TrainingSetManifest
from konveyer.feature_store.definitions.resolved import ResolvedService, ResolvedView
from konveyer.feature_store.offline.table_version import TableRef
from tests.manifests import manifest_with

TABLE = TableRef(view="spend", version="v1", table_version=3, buckets=4)


def packed(bundles: BundleStore) -> Bundle:
    view = ResolvedView(
        name="spend",
        version="v1",
        keys=(),
        columns=(),
        defaults=(),
        space="spend.v1",
        ttl_us=None,
        windowed=False,
    )
    service = ResolvedService(name="s", version="v", views=(view,), features=())
    training = TrainingSetManifest(
        id="set-1",
        service=service,
        tables=(TABLE,),
        keys=(),
        columns={},
        timestamp="at",
        label=None,
        rows=0,
        labels_digest="",
        result_digest="",
        built_by="ana",
        built_us=0,
    )
    manifest = manifest_with(
        service=service,
    )
    content = msgspec.json.encode(training)
    return bundles.pack(manifest, lambda draft: _write(draft / TRAINING, content))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


@pytest.mark.parametrize("state", list(State))
def test_a_release_holds_tables_until_it_has_ended(
    catalog: Catalog, admin: Actor, tmp_path: Path, state: State
) -> None:
    bundles = BundleStore(tmp_path / "bundles")
    with catalog.transaction() as session:
        release = open_release(session, admin, packed(bundles))
        release_row(session, release).state = str(state)
    with catalog.reading() as session:
        pins = release_pins(session, bundles)
    if state not in (*STAGES, State.LIVE):
        assert pins == []
        return
    (pin,) = pins
    assert f"{release} (scoring/v1, {state})" in pin.holder
    assert (pin.training_set, pin.tables) == ("set-1", (TABLE,))
    assert pin.views == (("spend", "v1"),)


def test_an_ended_release_holds_tables_while_something_serves_it(
    catalog: Catalog, admin: Actor, tmp_path: Path
) -> None:
    bundles = BundleStore(tmp_path / "bundles")
    with catalog.transaction() as session:
        release = open_release(session, admin, packed(bundles))
        row = release_row(session, release)
        set_live(session, "test", row)
        row.state = str(State.RETIRED)
    with catalog.reading() as session:
        assert [pin.training_set for pin in release_pins(session, bundles)] == ["set-1"]
    with catalog.reading() as session, pytest.raises(BundleNotFound):
        release_pins(session, BundleStore(tmp_path / "lost"))


def test_what_production_served_last_can_be_rolled_back_to(
    catalog: Catalog, admin: Actor, tmp_path: Path
) -> None:
    bundles = BundleStore(tmp_path / "bundles")
    releases = []
    for _ in range(KEPT_FOR_ROLLBACK + 2):
        with catalog.transaction() as session:
            releases.append(open_release(session, admin, packed(bundles)))
            row = release_row(session, releases[-1])
            set_live(session, "prod", row)
            row.state = str(State.RETIRED)
    with catalog.reading() as session:
        held = [pin.holder for pin in release_pins(session, bundles)]
    kept = releases[-KEPT_FOR_ROLLBACK - 1 :]  # the last is what production serves
    assert sorted(held) == sorted(f"release {one} (scoring/v1, retired)" for one in kept[-3:])
    with catalog.reading() as session:
        assert len(release_pins(session, bundles, 0)) == 1
    with catalog.transaction() as session:
        release_row(session, releases[-2]).digest = "sha256:gone"
        assert len(release_pins(session, bundles)) == 2
        release_row(session, releases[-1]).digest = "sha256:gone"
        with pytest.raises(BundleNotFound):
            release_pins(session, bundles)
