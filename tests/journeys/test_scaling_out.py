"""Nodes on many machines: folders with nothing but settings, a bucket, Redis, and no catalog."""

import itertools
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import pytest

from konveyer.bundle.manifest import MODEL
from konveyer.bundle.origin import BundleOrigin, hex_of
from konveyer.core.settings import load_settings
from konveyer.core.storage import Storage
from konveyer.execution.releases.live import publish_desired
from konveyer.execution.serving.desired import read_desired, write_desired
from konveyer.execution.serving.prediction_reader import read_predictions
from konveyer.execution.serving.presence import Presence, nodes_of
from konveyer.wiring import open_workspace
from tests.s3_servers import S3Server, s3_server
from tests.support import Shop, wait_for

pytestmark = pytest.mark.slow

PATH = "/coupon-response/v1"
MACHINES = 10


@dataclass(frozen=True)
class Site:
    """A released workspace that keeps in a bucket what nodes need."""

    shop: Shop
    server: S3Server
    storage: Storage
    bundles: Storage

    @property
    def headers(self) -> dict[str, str]:
        """Those of a system that may call everything."""
        return self.shop.caller()

    @property
    def live(self) -> str:
        return read_desired(self.storage, "prod").versions[0].digest

    def nodes(self) -> list[Presence]:
        return nodes_of(self.storage, "prod")

    @contextmanager
    def node(self, machine: Path) -> Iterator["subprocess.Popen[bytes]"]:
        """A node on a machine that has the settings and nothing else, or what it had before."""
        machine.mkdir(exist_ok=True)
        settings = (self.shop.root / "konveyer.toml").read_bytes()
        (machine / "konveyer.toml").write_bytes(settings)
        command = Shop(machine).command("serve", "prod", "--port", "0", "--processes", "1")
        with (
            (machine / "node.log").open("ab") as log,
            subprocess.Popen(command, stdout=log, stderr=log) as process,
        ):
            try:
                yield process
            finally:
                process.terminate()
                process.wait(60)

    def url_of(self, process: "subprocess.Popen[bytes]", digest: str) -> str:
        """Where a node answers, once it says that it serves the bundle."""
        found: list[Presence] = []

        def serves() -> bool:
            found[:] = [node for node in self.nodes() if node.pid == process.pid]
            return any(node.serves("coupon-response", 1, digest) for node in found)

        wait_for(serves, process)
        return found[0].url


@pytest.fixture
def site(redis_shop: Shop, tmp_path: Path) -> Iterator[Site]:
    shop = redis_shop.copied_to(tmp_path / "control")
    with s3_server() as server:
        settings = shop.root / "konveyer.toml"
        text = settings.read_text()
        for name in ("bundles", "storage"):
            text = "\n".join(line for line in text.splitlines() if line != f"[{name}]")
        text = text.replace('url = "file:bundles"', "")
        # Beside ten nodes on one machine, two seconds may see no answer.
        text = text.replace("load_seconds = 2.0", "load_seconds = 10.0")
        for name in ("bundles", "storage"):
            text += f'\n[{name}]\nurl = "{server.url(name)}"\n'
        settings.write_text(text)
        origin = BundleOrigin(server.storage("bundles"))
        for folder in (shop.root / "bundles").glob("[0-9a-f]*"):
            origin.send(f"sha256:{folder.name}", folder)
        shop.caller()
        workspace = open_workspace(load_settings(shop.root))
        publish_desired(workspace.catalog, workspace.storage, "prod")
        workspace.close()
        yield Site(shop, server, server.storage("storage"), server.storage("bundles"))


@dataclass
class Callers:
    """Ask one node after another, from a thread, until told to stop."""

    urls: list[str]
    headers: dict[str, str]
    answered: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with httpx.Client(timeout=20) as client:
            for number, url in zip(itertools.count(), itertools.cycle(self.urls), strict=False):
                if self.ended.wait(0.01):
                    return
                name = f"call-{number}"
                answer = client.post(
                    f"{url}{PATH}/predict",
                    json={"household_id": 1},
                    headers={**self.headers, "x-request-id": name},
                )
                (self.answered if answer.is_success else self.failed).append(name)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self.ended.set()
            thread.join()


def said_url(machine: Path, node: "subprocess.Popen[bytes]", starts: int) -> str:
    """Where a node says in its log that it answers, after so many starts."""
    log = machine / "node.log"
    wait_for(lambda: log.read_text().count("serving prod at") == starts, node)
    urls: list[str] = re.findall(r"serving prod at (http://[0-9.:]+)", log.read_text())
    return urls[-1]


def served_by(site: Site, url: str) -> str:
    answer = httpx.get(f"{url}{PATH}", timeout=20, headers=site.headers)
    bundle: str = answer.json()["bundle"]
    return bundle


@pytest.mark.timeout(900)
def test_ten_nodes_take_up_a_release_under_load_and_log_every_answer(
    site: Site, tmp_path: Path
) -> None:
    before = site.live
    with ExitStack() as stack:
        nodes = [stack.enter_context(site.node(tmp_path / f"m{n}")) for n in range(MACHINES)]
        urls = [site.url_of(node, before) for node in nodes]
        assert len(set(urls)) == MACHINES
        callers = Callers(urls, site.headers)
        with callers.at_work():
            release = site.shop.run("submit", "models/coupon_response", profile="ana")
            release = site.shop.run("release", "approve", release["id"], profile="boris")
            assert release["state"] == "live", release
            # Every node serves it when the release is live, so any balancer gives the same.
            after = site.live
            assert {served_by(site, url) for url in urls} == {after}
        (stage,) = [one for one in release["stages"] if one["stage"] == "production"]
        assert len(stage["evidence"]["nodes"]) == MACHINES
        assert after != before
        listed = site.shop.run("nodes", "prod")
        assert {one["url"] for one in listed} == set(urls)
        assert {one["report"]["serving"][0]["digest"] for one in listed} == {after}
    assert callers.failed == []
    assert len(callers.answered) > 100
    shipped = [row["request_id"] for row in read_predictions(site.storage, "prod")]
    assert sorted(shipped) == sorted(callers.answered)
    for machine in (tmp_path / f"m{n}" for n in range(MACHINES)):
        assert not (machine / "state" / "catalog.db").exists()
        assert list(machine.rglob("predictions/**/*.parquet")) == []


def test_nodes_answer_and_start_without_the_storage_and_catch_up_with_it(
    site: Site, tmp_path: Path
) -> None:
    live = site.live
    with site.server.hanging(), site.node(tmp_path / "new") as node:
        url = said_url(tmp_path / "new", node, 1)
        ready = httpx.get(f"{url}/health/ready", timeout=20)
        assert (ready.status_code, ready.json()["status"]) == (503, "starting")
    with site.node(tmp_path / "one") as node:
        url = site.url_of(node, live)
        callers = Callers([url], site.headers)
        with site.server.hanging(), callers.at_work():
            wait_for(lambda: len(callers.answered) + len(callers.failed) > 300)
        assert callers.failed == []
        node.kill()
        node.wait()
    with site.server.hanging(), site.node(tmp_path / "one") as node:
        url = said_url(tmp_path / "one", node, 2)
        assert served_by(site, url) == live
        body = {"household_id": 1}
        assert httpx.post(f"{url}{PATH}/predict", json=body, headers=site.headers).is_success
    with site.node(tmp_path / "one") as node:
        site.url_of(node, live)
    logged = {row["request_id"] for row in read_predictions(site.storage, "prod")}
    assert set(callers.answered[:-60]) <= logged


def test_a_corrupted_object_is_refused_by_a_node_that_goes_on_with_the_old_version(
    site: Site, tmp_path: Path
) -> None:
    live = site.live
    desired = read_desired(site.storage, "prod")
    other = site.shop.run("submit", "models/coupon_response", profile="ana")["digest"]
    name = f"{hex_of(other)}/{MODEL}"
    content = site.bundles.read(name)
    site.bundles.write(name, content[:-1])
    with site.node(tmp_path / "one") as node:
        url = site.url_of(node, live)
        version = msgspec.structs.replace(desired.versions[0], digest=other)
        write_desired(site.storage, msgspec.structs.replace(desired, versions=(version,)))
        wait_for(lambda: site.nodes()[0].refusal("coupon-response", 1, other), node)
        assert served_by(site, url) == live
        ready = httpx.get(f"{url}/health/ready").json()
        assert "is missing or was changed" in ready["refused"]["coupon-response/v1"]
        site.bundles.write(name, content)
        site.url_of(node, other)
        assert served_by(site, url) == other
