"""What a release is compared with: what its reviewer saw, whatever production serves later."""

from pathlib import Path

import msgspec
import pytest

from konveyer.bundle.manifest import LOCK
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.catalog.session import Catalog
from konveyer.core.storage import FolderStorage
from konveyer.execution.releases.compare import compare
from konveyer.execution.releases.environments import PROD
from konveyer.execution.releases.live import retire_others
from konveyer.execution.releases.machine import Action, State
from konveyer.execution.releases.records import begin_stage, release_row, set_live
from konveyer.execution.releases.rollback import roll_back
from konveyer.execution.releases.service import approve, open_release, reject, withdraw
from konveyer.execution.releases.transitions import move
from tests.unit.releases.test_conveyor import ANA, BORIS, bundle


@pytest.fixture
def bundles(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "bundles")


class Releases:
    def __init__(self, catalog: Catalog, bundles: BundleStore) -> None:
        self.catalog, self.bundles, self._made = catalog, bundles, 0
        self.code: dict[str, bytes] = {}

    def in_review(self, api_version: int = 1) -> str:
        with self.catalog.transaction() as session:
            release = open_release(session, ANA, self._packed(api_version))
            move(session, release_row(session, release), Action.PASS, "conveyor")
            begin_stage(session, release, State.REVIEW, waiting_us=0, by="conveyor")
        return release

    def reviewed(self, api_version: int = 1) -> str:
        release = self.in_review(api_version)
        with self.catalog.transaction() as session:
            approve(session, BORIS, release)
        return release

    def goes_live(self, release: str) -> str:
        with self.catalog.transaction() as session:
            row = release_row(session, release)
            row.state = str(State.PRODUCTION)
            set_live(session, PROD, row)
        assert self.against(release) != release
        with self.catalog.transaction() as session:
            row = release_row(session, release)
            move(session, row, Action.PASS, "conveyor")
            retire_others(session, row, "conveyor")
        return release

    def fails(self, release: str) -> None:
        with self.catalog.transaction() as session:
            move(session, release_row(session, release), Action.FAIL, "conveyor")

    def against(self, release: str) -> str | None:
        return compare(self.catalog, self.bundles, release).against

    def _packed(self, api_version: int) -> Bundle:
        self._made += 1
        manifest = msgspec.structs.replace(bundle(api_version=api_version).manifest, files={})

        def write(folder: Path) -> None:
            (folder / "code").mkdir()
            (folder / "code" / "model.py").write_text(f"number = {self._made}\n")
            for name, content in self.code.items():
                (folder / "code" / name).write_bytes(content)
            (folder / LOCK).write_text("")

        return self.bundles.pack(manifest, write)


@pytest.fixture
def releases(catalog: Catalog, bundles: BundleStore) -> Releases:
    return Releases(catalog, bundles)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"\0" + b"a" * 9, b"\0" + b"b" * 9),
        (b"a" * 600_000, b"b" * 600_000),
        (b"caf\xe9", b"caf\xe8"),
        (b"\xff", "\ufffd".encode()),
        (b"\xff", b"\\udcff"),
    ],
)
def test_files_that_cannot_be_shown_as_they_are_are_told_apart(
    releases: Releases, catalog: Catalog, before: bytes, after: bytes
) -> None:
    releases.code = {"data": before, "same": before}
    releases.goes_live(releases.reviewed())
    releases.code |= {"data": after}
    found = compare(catalog, releases.bundles, releases.in_review())
    assert {one.name for one in found.code} == {"data", "model.py"}
    (data,) = [one for one in found.code if one.name == "data"]
    *_, removed, added = data.diff.split("\n")
    assert (removed[0], added[0]) == ("-", "+")
    msgspec.json.encode(found)


def test_one_on_its_way_is_compared_with_what_is_live(
    releases: Releases, catalog: Catalog, tmp_path: Path
) -> None:
    first = releases.reviewed()
    assert releases.against(first) is None
    releases.goes_live(first)
    second = releases.goes_live(releases.reviewed())
    third = releases.reviewed()
    assert releases.against(third) == second
    storage = FolderStorage(tmp_path)
    roll_back(catalog, releases.bundles, storage, BORIS, second, reason="it is wrong")
    assert releases.against(third) == first


def test_one_that_ended_is_compared_with_what_its_reviewer_saw(
    releases: Releases, catalog: Catalog
) -> None:
    first = releases.goes_live(releases.reviewed())
    failed = releases.reviewed()
    releases.fails(failed)
    rejected = releases.in_review()
    with catalog.transaction() as session:
        reject(session, BORIS, rejected, reason="no")
    withdrawn = releases.in_review()
    with catalog.transaction() as session:
        withdraw(session, ANA, withdrawn)
    second = releases.goes_live(releases.reviewed())
    third = releases.goes_live(releases.reviewed())
    for ended in (failed, rejected, withdrawn, second):
        assert releases.against(ended) == first
    assert releases.against(third) == second
    assert releases.against(first) is None


def test_a_new_api_version_is_compared_with_the_highest_lower_one(releases: Releases) -> None:
    first = releases.goes_live(releases.reviewed())
    newer = releases.goes_live(releases.reviewed(api_version=3))
    releases.goes_live(releases.reviewed())
    assert releases.against(newer) == first
    assert releases.against(releases.reviewed(api_version=4)) == newer
