"""A node's copy of shared storage: what is whole gets in, what is not leaves the old in place."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from konveyer.bundle.manifest import MANIFEST, MODEL
from konveyer.bundle.origin import BundleOrigin, hex_of
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.core.clock import FeatureClock
from konveyer.core.storage import FolderStorage, StorageUnavailable
from konveyer.execution.serving.attached import attached
from konveyer.execution.serving.desired import (
    ApiKey,
    Desired,
    DesiredVersion,
    Share,
    desired_name,
    read_desired,
    write_desired,
)
from konveyer.execution.serving.errors import ModelUnavailable
from konveyer.execution.serving.inference import endpoint_of
from konveyer.execution.serving.mirror import Mirror
from konveyer.execution.serving.rates import SharedRates
from konveyer.execution.serving.router import Router
from konveyer.execution.serving.shipping import Shipper
from konveyer.feature_store.online.memory import MemoryOnlineStore
from tests.support import wait_for
from tests.unit.serving.test_router import LATEST, packed


class Reached(FolderStorage):
    """A folder that can be out of reach."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.is_down = False
        self.downloads = 0

    def read(self, name: str) -> bytes:
        self._answer()
        return super().read(name)

    def download(self, name: str, path: Path) -> None:
        self._answer()
        self.downloads += 1
        super().download(name, path)

    def _answer(self) -> None:
        if self.is_down:
            raise StorageUnavailable("it is down")


class Site:
    """Shared storage with packed bundles, and one node's disk."""

    def __init__(self, root: Path) -> None:
        self.shared, self.remote = Reached(root / "shared"), Reached(root / "remote")
        self.cache = FolderStorage(root / "cache")
        self.packing = BundleStore(root / "packing", BundleOrigin(self.remote))
        self.folder = root / "cache" / "bundles"

    def mirror(
        self,
        *,
        keep_s: float = 600.0,
        check_every_s: float = 5.0,
        bundles: BundleStore | None = None,
    ) -> Mirror:
        return Mirror(
            "prod",
            shared=self.shared,
            cache=self.cache,
            bundles=bundles or BundleStore(self.folder, BundleOrigin(self.remote)),
            keep_s=keep_s,
            check_every_s=check_every_s,
        )

    def router(self, **more: Any) -> Router:
        return Router(
            "prod",
            storage=self.cache,
            bundles=BundleStore(self.folder),
            online=MemoryOnlineStore(),
            clock=FeatureClock(0),
            rates=SharedRates(self.folder.parent / "rates"),
            waits_for_document=True,
            **more,
        )

    def desire(self, *bundles: Bundle, canary: Bundle | None = None) -> None:
        """These as v1, v2 and so on, the canary beside each."""
        share = None
        if canary is not None:
            share = Share(digest=canary.digest, release="c", per_mille=10)
        versions = tuple(
            DesiredVersion(
                application="scoring",
                api_version=place + 1,
                digest=bundle.digest,
                release="r",
                since_us=0,
                canary=share,
            )
            for place, bundle in enumerate(bundles)
        )
        write_desired(self.shared, Desired(environment="prod", versions=versions))

    def object_of(self, bundle: Bundle, name: str) -> Path:
        return self.remote.path_of(f"{hex_of(bundle.digest)}/{name}")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def follow(mirror: Mirror) -> None:
    """What the two threads of a node do, one after the other."""
    mirror.refresh()
    mirror.bring()


def served(router: Router) -> str:
    return router.find("scoring", 1).live.digest


def test_a_node_gets_its_bundles_and_starts_without_the_storage(site: Site) -> None:
    first = packed(site.packing, 1)
    site.desire(first)
    follow(site.mirror())
    site.shared.is_down = site.remote.is_down = True
    with pytest.raises(StorageUnavailable):
        follow(site.mirror())
    router = site.router()
    router.refresh()
    assert served(router) == first.digest
    assert router.report.serving[0].digest == first.digest


def test_no_version_means_the_highest_also_where_its_bundle_cannot_be_had(site: Site) -> None:
    first, second = packed(site.packing, 1), packed(site.packing, 2)
    site.desire(first, second)
    site.object_of(second, MODEL).unlink()
    follow(site.mirror())
    router = site.router()
    router.refresh()
    assert served(router) == first.digest
    with pytest.raises(ModelUnavailable, match="'scoring' v2 cannot be served yet"):
        endpoint_of(router, LATEST)


@pytest.mark.parametrize("damage", ["changed", "gone", "no manifest", "other manifest"])
def test_a_damaged_object_is_refused_while_the_old_version_serves_also_after_a_restart(
    site: Site, damage: str
) -> None:
    first, second = packed(site.packing, 1), packed(site.packing, 2)
    site.desire(first)
    mirror, router = site.mirror(), site.router()
    follow(mirror)
    router.refresh()
    model = site.object_of(second, MODEL)
    good = {path: path.read_bytes() for path in (model, site.object_of(second, MANIFEST))}
    match damage:
        case "changed":
            model.write_bytes(model.read_bytes() + b"\n")
        case "gone":
            model.unlink()
        case "no manifest":
            site.object_of(second, MANIFEST).unlink()
        case "other manifest":
            shutil.copy(site.object_of(first, MANIFEST), site.object_of(second, MANIFEST))
    site.desire(second)
    follow(mirror)
    assert router.refresh()
    restarted = site.router()
    follow(site.mirror())
    restarted.refresh()
    for one in (router, restarted):
        assert served(one) == first.digest
        assert [refused.digest for refused in one.report.refused] == [second.digest]
        assert one.refused["scoring/v1"]
    for path, content in good.items():  # repaired
        path.write_bytes(content)
    follow(site.mirror())
    router.refresh()
    assert served(router) == second.digest
    assert router.report.refused == ()


def test_a_fetch_that_was_interrupted_goes_on_and_brings_nothing_twice(site: Site) -> None:
    first = packed(site.packing, 1)
    site.desire(first)
    last = max(first.manifest.files)
    path = site.object_of(first, last)
    content = path.read_bytes()
    path.unlink()
    follow(site.mirror())
    assert not (site.folder / hex_of(first.digest)).exists()
    path.write_bytes(content)
    site.remote.downloads = 0
    follow(site.mirror())
    assert site.remote.downloads == 1
    assert served_after(site) == first.digest


def served_after(site: Site) -> str:
    router = site.router()
    router.refresh()
    return served(router)


def test_a_document_that_is_gone_or_unreadable_changes_nothing(site: Site) -> None:
    first = packed(site.packing, 1)
    site.desire(first)
    mirror = site.mirror()
    follow(mirror)
    site.shared.write(desired_name("prod"), b"{")
    follow(mirror)
    assert served_after(site) == first.digest
    site.shared.remove(desired_name("prod"))
    follow(mirror)
    assert served_after(site) == first.digest


def test_a_node_of_an_environment_without_a_document_knows_that_nothing_is_desired(
    site: Site,
) -> None:
    router = site.router()
    router.refresh()
    assert router.report.is_starting
    follow(site.mirror())
    assert site.cache.has(desired_name("prod"))
    router.refresh()
    assert not router.report.is_starting


def test_a_damaged_cache_is_made_whole(site: Site) -> None:
    first = packed(site.packing, 1)
    site.desire(first)
    follow(site.mirror())
    (site.folder / hex_of(first.digest) / MODEL).write_bytes(b"damaged")
    follow(site.mirror())
    assert served_after(site) == first.digest


def test_what_a_disk_damages_later_is_made_whole_too(site: Site) -> None:
    first, second = packed(site.packing, 1), packed(site.packing, 2)
    site.desire(first)
    mirror = site.mirror(check_every_s=0.0)
    follow(mirror)
    (site.folder / hex_of(first.digest) / MODEL).write_bytes(b"damaged")
    follow(mirror)
    assert served_after(site) == first.digest
    for name in (desired_name("prod"), "environments/prod.absent.json"):
        for content in (b"", b"{", b'"\xff"'):
            site.cache.write(name, content)
            follow(mirror)
            assert served_after(site) == first.digest
    site.cache.write(desired_name("prod"), b"")
    site.desire(second)
    follow(mirror)
    assert served_after(site) == second.digest


def test_what_is_not_desired_any_more_is_removed_in_time(site: Site) -> None:
    first, second = packed(site.packing, 1), packed(site.packing, 2)
    site.desire(first)
    mirror = site.mirror(keep_s=0.0)
    follow(mirror)
    site.desire(second)
    follow(mirror)
    follow(mirror)
    assert [path.name for path in site.folder.iterdir() if path.is_dir()] == [hex_of(second.digest)]
    assert site.packing.held() == sorted([first.digest, second.digest])


def test_a_canary_that_cannot_be_had_is_left_out_and_the_live_version_goes_on(site: Site) -> None:
    first, second = packed(site.packing, 1), packed(site.packing, 2)
    site.object_of(second, MODEL).write_bytes(b"damaged")
    site.desire(first, canary=second)
    follow(site.mirror())
    (version,) = read_desired(site.cache, "prod").versions
    assert (version.digest, version.canary) == (first.digest, None)
    router = site.router()
    router.refresh()
    assert [refused.digest for refused in router.report.refused] == [second.digest]


class Slow(BundleStore):
    """A store in which the bundle `slow` can be opened once `lets` is set."""

    def __init__(self, folder: Path, origin: BundleOrigin, slow: str = "") -> None:
        super().__init__(folder, origin)
        self.slow, self.opens, self.lets = slow, threading.Event(), threading.Event()
        self.opened: list[str] = []

    def open(self, digest: str) -> Bundle:
        self.opened.append(digest)
        if digest == self.slow:
            self.opens.set()
            assert self.lets.wait(200), "longer than a test waits for anything"
        return super().open(digest)


def version(application: str, bundle: Bundle) -> DesiredVersion:
    return DesiredVersion(
        application=application, api_version=1, digest=bundle.digest, release="r", since_us=0
    )


@contextmanager
def following_slowly(site: Site, mirror: Mirror, store: Slow) -> Iterator[None]:
    """A node that follows the shared storage, once it has come to the slow bundle."""
    with attached(mirror, Shipper(site.folder.parent / "log", site.shared, "prod")):
        try:
            assert store.opens.wait(20)
            yield
        finally:
            store.lets.set()


def test_a_node_follows_while_a_large_bundle_is_brought(site: Site) -> None:
    first, second, large = (packed(site.packing, seed) for seed in (1, 2, 3))
    key = ApiKey(digest="ab" * 32, name="till")

    def write(*versions: DesiredVersion, keys: tuple[ApiKey, ...] = (key,)) -> None:
        write_desired(site.shared, Desired(environment="prod", versions=versions, keys=keys))

    def digests() -> list[str]:
        return [one.digest for one in read_desired(site.cache, "prod").versions]

    write(version("scoring", first), version("other", second))
    store = Slow(site.folder, BundleOrigin(site.remote), large.digest)
    mirror = site.mirror(bundles=store)
    follow(mirror)
    write(version("scoring", second), version("other", large))
    with following_slowly(site, mirror, store):
        wait_for(lambda: digests() == [second.digest, second.digest])
        write(version("scoring", first), version("other", large))
        wait_for(lambda: digests() == [first.digest, second.digest])
        write(version("scoring", first), version("other", large), keys=())
        wait_for(lambda: read_desired(site.cache, "prod").keys == ())
        assert digests() == [first.digest, second.digest]
        store.lets.set()
        wait_for(lambda: digests() == [first.digest, large.digest])
    assert served_after(site) == first.digest


def test_a_node_is_starting_until_its_bundles_are_there(site: Site) -> None:
    large = packed(site.packing, 1)
    site.desire(large)
    store = Slow(site.folder, BundleOrigin(site.remote), large.digest)
    with following_slowly(site, site.mirror(bundles=store), store):
        router = site.router()
        router.refresh()
        (refused,) = router.report.refused
        assert (refused.digest, refused.is_preparing) == (large.digest, True)
        assert router.report.is_starting
        with pytest.raises(ModelUnavailable, match="its bundle is being brought"):
            served(router)
        store.lets.set()
        wait_for(lambda: router.refresh() and not router.report.is_starting)
    assert served(router) == large.digest
    assert router.report.refused == ()


class Strange(BundleStore):
    """A store with a bundle that nobody foresaw."""

    strange = ""

    def open(self, digest: str) -> Bundle:
        if digest == self.strange:
            message = "of another kind"
            raise ValueError(message)
        return super().open(digest)


def test_a_bundle_that_nobody_foresaw_keeps_no_other_away(site: Site) -> None:
    first, second = packed(site.packing, 1), packed(site.packing, 2)
    store = Strange(site.folder, BundleOrigin(site.remote))
    store.strange = first.digest
    versions = (version("other", first), version("scoring", second))
    write_desired(site.shared, Desired(environment="prod", versions=versions))
    follow(site.mirror(bundles=store))
    router = site.router()
    router.refresh()
    assert served(router) == second.digest
    assert [one.reason for one in router.report.refused] == ["ValueError: of another kind"]


def test_a_node_follows_while_it_reads_a_bundle_again(site: Site) -> None:
    first = packed(site.packing, 1)
    key = ApiKey(digest="ab" * 32, name="till")
    served = version("scoring", first)
    write_desired(site.shared, Desired(environment="prod", versions=(served,), keys=(key,)))
    store = Slow(site.folder, BundleOrigin(site.remote))
    mirror = site.mirror(check_every_s=0.0, bundles=store)
    follow(mirror)
    store.slow = first.digest
    reading = threading.Thread(target=mirror.bring)
    reading.start()
    try:
        assert store.opens.wait(20)
        write_desired(site.shared, Desired(environment="prod", versions=(served,)))
        mirror.refresh()
        assert read_desired(site.cache, "prod") == Desired(environment="prod", versions=(served,))
    finally:
        store.lets.set()
        reading.join()
    assert served_after(site) == first.digest


def test_what_was_brought_is_served_though_storage_goes_away_meanwhile(site: Site) -> None:
    first, second = packed(site.packing, 1), packed(site.packing, 2)
    for bundle in (first, second):
        site.desire(bundle)
        follow(site.mirror())
    site.desire(first)
    store = Slow(site.folder, BundleOrigin(site.remote), first.digest)
    with following_slowly(site, site.mirror(bundles=store), store):
        site.shared.is_down = site.remote.is_down = True
        store.lets.set()
        wait_for(lambda: read_desired(site.cache, "prod").versions[0].digest == first.digest)


def test_nothing_is_said_of_storage_while_a_bundle_waits_to_be_asked_for_again(site: Site) -> None:
    site.desire(packed(site.packing, 1))
    mirror = site.mirror()
    mirror.refresh()
    site.remote.is_down = True
    assert [mirror.bring(), mirror.bring()] == [False, False]
    site.remote.is_down = False
    wait_for(mirror.bring)


def test_storage_is_up_when_all_who_asked_it_were_answered(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.desire(packed(site.packing, 1), canary=packed(site.packing, 2))
    digest = read_desired(site.shared, "prod").versions[0].digest
    store = Slow(site.folder, BundleOrigin(site.remote), digest)

    def is_up() -> float | None:
        return REGISTRY.get_sample_value("konveyer_shared_storage_up")

    with caplog.at_level("INFO"), following_slowly(site, site.mirror(bundles=store), store):
        wait_for(lambda: is_up() == 1)
        site.shared.is_down = site.remote.is_down = True
        store.lets.set()
        wait_for(lambda: is_up() == 0)
        until_s = time.monotonic() + 2.5
        while time.monotonic() < until_s:
            assert is_up() == 0
            time.sleep(0.01)
        assert "again" not in caplog.text
        site.shared.is_down = site.remote.is_down = False
        wait_for(lambda: is_up() == 1)
        assert "can bring bundles again" in caplog.text


def test_a_document_that_changed_during_a_download_says_what_is_brought_next(site: Site) -> None:
    large, second, third = (packed(site.packing, seed) for seed in (1, 2, 3))
    site.desire(large, canary=second)
    store = Slow(site.folder, BundleOrigin(site.remote), large.digest)
    with following_slowly(site, site.mirror(bundles=store), store):
        site.desire(large, canary=third)
        store.lets.set()
        wait_for(lambda: third.digest in store.opened)
    assert second.digest not in store.opened
