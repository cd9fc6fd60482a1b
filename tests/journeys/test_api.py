"""The REST API acts as the holder of a token, over the same services as the commands."""

import re
from collections.abc import Iterator

import httpx
import pytest

from konveyer import FeatureStore
from konveyer.access.actor import NotAllowed
from konveyer.access.profiles import saved_token
from konveyer.core.settings import load_settings
from konveyer.wiring import open_workspace
from tests.outages import failing
from tests.support import Shop, served, served_from, wait_for

KINDS = ("etl/runs", "releases")


@pytest.fixture
def api(shop: Shop) -> Iterator[httpx.Client]:
    with served(shop.root) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def bearer(shop: Shop, profile: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {saved_token(shop.root / 'state', profile)}"}


def test_without_a_known_token_nothing_is_told(api: httpx.Client) -> None:
    for headers in ({}, {"Authorization": "Bearer kvy_nothing"}, {"Authorization": "Basic eA=="}):
        answer = api.get("/api/features", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] in ("token_missing", "token_unknown")
    assert api.get("/health/ready").is_success


def test_reading(api: httpx.Client, shop: Shop) -> None:
    eva = bearer(shop, "eva")
    assert api.get("/api/me", headers=eva).json() == {"name": "eva", "roles": ["analyst"]}
    found = api.get("/api/features", params={"text": "basket 30d"}, headers=eva).json()
    assert found == shop.run("features", "search", "basket 30d")
    view = api.get("/api/features/demographics", headers=eva).json()
    assert view["computed"]["status"] == "succeeded"
    assert len(api.get("/api/etl/runs", headers=eva).json()) == 5
    assert api.get("/api/features/nope", headers=eva).status_code == 404
    assert api.get("/api/releases/nope", headers=eva).status_code == 404
    assert api.get("/api/models", headers=eva).json() == []


@pytest.mark.parametrize("limit", ["0", "-1", "99999999999999999999"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_list_is_of_one_or_more_and_not_of_endlessly_many(
    api: httpx.Client, shop: Shop, kind: str, limit: str
) -> None:
    answer = api.get(f"/api/{kind}", params={"limit": limit}, headers=bearer(shop, "eva"))
    assert answer.status_code == 422, answer.text


def test_changing_needs_the_role(api: httpx.Client, shop: Shop) -> None:
    person = {"name": "mia", "roles": ["qa"]}
    assert api.post("/api/people", json=person, headers=bearer(shop, "eva")).status_code == 403
    assert api.post("/api/people", json=person, headers=bearer(shop, None)).status_code == 201
    audit = api.get("/api/audit", params={"subject": "mia"}, headers=bearer(shop, "eva")).json()
    assert [(entry["actor"], entry["action"]) for entry in audit] == [("admin", "added")]
    order = {"views": ["demographics"]}
    assert api.post("/api/etl/runs", json=order, headers=bearer(shop, "eva")).status_code == 403


def test_a_producer_sees_nothing(api: httpx.Client, shop: Shop) -> None:
    shop.run("people", "add", "till", "--role", "producer")
    shop.run("people", "token", "till", "--save")
    till = bearer(shop, "till")
    assert api.get("/api/me", headers=till).json()["name"] == "till"
    paths = api.get("/api/openapi.json").json()["paths"]
    read = [path for path, does in paths.items() if path.startswith("/api/") and "get" in does]
    assert len(read) > 8
    for path in {*read} - {"/api/me"}:
        answer = api.get(re.sub(r"{\w+}", "some", path), headers=till)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_allowed"), path
    for command in ("release diff rel-1", "features search baskets", "people audit"):
        assert shop.error(*command.split(), profile="till")["code"] == "not_allowed"
    with FeatureStore(shop.root, profile="till") as store:
        for ask in (store.search, lambda: store.show("some"), lambda: store.online("some", [])):
            with pytest.raises(NotAllowed):
                ask()


def test_etl_and_a_training_set(api: httpx.Client, shop: Shop) -> None:
    (run,) = api.post(
        "/api/etl/runs", json={"views": ["demographics"]}, headers=bearer(shop, "boris")
    ).json()
    assert (run["status"], run["person"]) == ("succeeded", "boris")
    order = {"service": "coupon_response", "labels": "data/labels.parquet", "label": "redeemed"}
    built = api.post("/api/training-sets", json=order, headers=bearer(shop, "ana"))
    assert built.status_code == 201
    assert built.json()["rows"] == 6589
    outside = {**order, "labels": "../../etc/passwd"}
    answer = api.post("/api/training-sets", json=outside, headers=bearer(shop, "ana"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "outside_workspace")


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("training-sets", '{"service": "coupon_response", "labels": "a\\u0000b"}'),
        ("training-sets", '{"service": "s", "labels": "l", "keys": {"a": "\\ud800"}}'),
        ("etl/runs", '{"views": ["\\ud800"]}'),
        ("etl/runs", '{"\\ud800": 1}'),
        ("releases/r/rejection", '{"reason": "\\ud800"}'),
    ],
)
def test_characters_that_no_text_has_are_refused(
    api: httpx.Client, shop: Shop, path: str, content: str
) -> None:
    headers = {**bearer(shop, "boris"), "content-type": "application/json"}
    answer = api.post(f"/api/{path}", content=content, headers=headers)
    assert answer.status_code == 422
    assert "half a surrogate pair" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "address",
    [
        "/api/releases/a%00b",
        "/api/releases?application=%00",
        "/api/audit?subject=%00",
        "/api/nothing%00",
        "/releases/a%00b",
        "/features?q=%00",
    ],
)
def test_an_address_with_a_nul_is_refused(api: httpx.Client, shop: Shop, address: str) -> None:
    answer = api.get(address, headers=bearer(shop, "eva"))
    assert answer.status_code == 422
    assert "bad_request" in answer.text


def test_a_catalog_that_is_away_is_no_defect(shop: Shop) -> None:
    workspace = open_workspace(load_settings(shop.root))
    with served_from(workspace) as url, httpx.Client(base_url=url) as client:
        with failing(workspace.catalog, 1, 2):
            answer = client.get("/api/releases", headers=bearer(shop, "eva"))
            page = client.get("/releases")
        for one in (answer, page):
            assert one.status_code == 503
            assert "catalog_unavailable" in one.text
            assert "the database is away" in one.text
        assert client.get("/releases").is_success
    workspace.close()


def test_a_portal_that_leaves_runs_refuses_them_without_a_worker(shop: Shop) -> None:
    boris = bearer(shop, "boris")
    with served(shop.root, leaves_runs=True) as url, httpx.Client(base_url=url) as client:
        runs, releases = (client.get(f"/api/{name}", headers=boris).json() for name in KINDS)
        for path, order in (("etl/runs", {}), ("releases", {"application": "coupon-response"})):
            answer = client.post(f"/api/{path}", json=order, headers=boris)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "worker_missing"
        for name, before in zip(KINDS, (runs, releases), strict=True):
            assert client.get(f"/api/{name}", headers=boris).json() == before


def test_a_run_is_submitted_reviewed_and_taken_back(api: httpx.Client, shop: Shop) -> None:
    ana, boris = bearer(shop, "ana"), bearer(shop, "boris")
    order = {"application": "coupon-response"}
    assert api.post("/api/releases", json=order, headers=bearer(shop, "eva")).status_code == 403
    nobody = api.post("/api/releases", json={"application": "nope"}, headers=ana)
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (404, "run_not_found")
    opened = api.post("/api/releases", json=order, headers=ana)
    assert (opened.status_code, opened.json()["state"]) == (202, "checks")
    path = f"/api/releases/{opened.json()['id']}"
    wait_for(lambda: api.get(path, headers=ana).json()["state"] == "review")
    changed = api.get(f"{path}/diff", headers=boris).json()
    assert changed["against"] is None
    assert changed["features"]
    would = api.post(f"{path}/approval", params={"dry_run": True}, json={}, headers=boris)
    assert (would.status_code, would.json()["state"]) == (200, "functional")
    own = api.post(f"{path}/approval", params={"dry_run": True}, json={}, headers=ana)
    assert own.status_code == 403
    misspelt = api.post(f"{path}/approval", json={"coment": "fine"}, headers=boris)
    assert "body.coment" in misspelt.json()["error"]["message"]
    waiver = {"reason": "x"}
    nothing = api.post(
        f"{path}/waiver", params={"dry_run": True}, json=waiver, headers=bearer(shop, None)
    )
    assert nothing.json()["error"]["code"] in ("release_in_flight", "release_wrong_state")
    taken = api.post(f"{path}/withdrawal", json={"reason": "later"}, headers=ana).json()
    assert (taken["state"], taken["reason"]) == ("withdrawn", "withdrawn by ana: later")
    times = api.get("/api/lead-time", params={"since": "1d"}, headers=ana).json()
    assert (times["arrivals"], times["stopped"]) == ([], 1)


def test_openapi_describes_every_route(api: httpx.Client) -> None:
    document = api.get("/api/openapi.json").json()
    assert "/api/releases/{release}/approval" in document["paths"]
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["description"]
