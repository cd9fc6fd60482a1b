"""The portal in real Chromium, over the released workspace; without a script, a CDN or an error."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

from konveyer.catalog.session import Catalog
from konveyer.execution.releases.records import list_releases
from konveyer.execution.releases.tables import ReleaseRow
from tests.support import Shop, served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


@pytest.fixture(scope="module")
def portal(released_shop: Shop) -> Iterator[str]:
    with served(released_shop.root) as url:
        yield url


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    assert CHROMIUM, "install chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900}, java_script_enabled=False)
        yield page
        browser.close()


def test_a_feature_is_found_and_explained(portal: str, page: Page) -> None:
    problems: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(portal)
    page.fill("input[name=q]", "basket 30d")
    page.click("button")
    rows = page.locator("tbody tr")
    assert rows.count() == 6
    rows.first.locator("a").first.click()
    assert page.locator("h1").inner_text() == "basket_activity"
    text = page.inner_text("main")
    for expected in (
        "How often and how much",
        "SELECT household_id, basket_id",
        "succeeded",
        "ana",
    ):
        assert expected in text
    assert page.locator("svg.histogram").count() == 15
    assert page.locator("svg.histogram").first.bounding_box() is not None
    assert problems == []
    assert all(url.startswith(portal) for url in requests)


def test_the_release_shows_each_gate_with_its_evidence(portal: str, page: Page) -> None:
    page.goto(f"{portal}/releases")
    assert page.locator(".dot.passed").count() == 6
    page.click("tbody a")
    stages = page.locator(".timeline li.passed h2").all_inner_texts()
    assert [stage.split()[0].lower() for stage in stages] == [
        "checks",
        "review",
        "functional",
        "integration",
        "load",
        "production",
    ]
    page.locator("summary").nth(4).click()
    assert "p99_ms" in page.locator("details").nth(4).inner_text()


def test_releases_that_stopped_or_wait_are_shown_too(
    shop_with_many_releases: Shop, page: Page
) -> None:
    with served(shop_with_many_releases.root) as url:
        answer = page.goto(f"{url}/releases")
        assert answer is not None
        assert answer.ok
        states = page.locator("tbody .status").all_inner_texts()
        assert sorted(states) == ["checks", "failed", "live", "review"]
        for link in page.locator("tbody a").all():
            href = link.get_attribute("href") or ""
            assert httpx.get(url + href).is_success
        page.goto(f"{url}/releases/rel-failed")
        assert "konveyer release rerun rel-failed" in page.inner_text("main")


@pytest.fixture
def shop_with_many_releases(released_shop: Shop, tmp_path: Path) -> Shop:
    """One that is live, and others that stand before, in and after their first stages."""
    shop = released_shop.copied_to(tmp_path / "many")
    catalog = Catalog(f"sqlite:///{shop.root}/state/catalog.db")
    with catalog.transaction() as session:
        (live,) = list_releases(session)
        for number, state in enumerate(("checks", "review", "failed")):
            session.add(
                ReleaseRow(
                    id=f"rel-{state}",
                    application=live.application,
                    api_version=number + 2,
                    digest=live.digest,
                    author="ana",
                    state=state,
                    reason="checks: ruff failed" if state == "failed" else None,
                    opened_us=live.opened_us,
                )
            )
    catalog.close()
    return shop


@pytest.mark.slow
def test_a_release_shows_what_it_changes_and_outlives_its_bundle(
    released_shop: Shop, tmp_path: Path, page: Page
) -> None:
    shop = released_shop.copied_to(tmp_path / "changed")
    model = shop.root / "models/coupon_response/model.toml"
    model.write_text(model.read_text().replace("rounds = 250", "rounds = 200"))
    shop.run("train", "models/coupon_response", profile="ana")
    release = shop.run("submit", "models/coupon_response", profile="ana")
    with served(shop.root) as url:
        page.goto(f"{url}/releases/{release['id']}#changes")
        text = page.inner_text("main")
        assert "rounds" in text
        assert page.locator("pre.diff .added").all_inner_texts()[-1] == "+rounds = 200"
        shutil.rmtree(shop.root / "bundles" / release["digest"].removeprefix("sha256:"))
        answer = page.goto(f"{url}/releases/{release['id']}")
        assert answer is not None
        assert answer.ok
        assert "There is no bundle" in page.inner_text("main")
        (live,) = {one["digest"] for one in shop.run("release", "list") if one["state"] == "live"}
        shutil.rmtree(shop.root / "bundles" / live.removeprefix("sha256:"))
        page.goto(f"{url}/models")
        assert "There is no bundle" in page.inner_text("main")


def test_runs_and_models(portal: str, page: Page) -> None:
    page.goto(f"{portal}/runs")
    assert page.locator("tbody tr").count() == 5
    page.goto(f"{portal}/models")
    text = page.inner_text("main")
    assert "household_id" in text
    assert "2.5 requests/s, p99 2000 ms" in text


def test_a_page_that_is_not_there_says_so(portal: str, page: Page) -> None:
    answer = page.goto(f"{portal}/features/basket_activty")
    assert answer is not None
    assert answer.status == 404
    assert "did you mean 'basket_activity'?" in page.inner_text("main")
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_an_empty_workspace_says_what_to_do(tmp_path: Path, trained_shop: Shop, page: Page) -> None:
    empty = Shop(tmp_path / "empty")
    empty.run("init", str(empty.root))
    with served(empty.root) as url:
        for path, command in (
            ("features", "konveyer apply"),
            ("runs", "konveyer etl run"),
            ("models", "konveyer submit"),
            ("releases", "konveyer submit"),
        ):
            page.goto(f"{url}/{path}")
            assert command in page.inner_text("main")
