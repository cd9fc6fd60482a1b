"""Decisions about releases in real processes: waived, approved by a third person, rolled back."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from konveyer.access.profiles import saved_token
from konveyer.execution.releases.machine import State
from tests.journeys.callers import Callers, calling
from tests.journeys.candidates import PATH, PROJECT, opened_at
from tests.support import Shop, node, served, wait_for


def hire(shop: Shop, name: str, role: str) -> None:
    shop.run("people", "add", name, "--role", role)
    shop.run("people", "token", name, "--save")


def set_up(shop: Shop, old: str, new: str, *, file: str = f"{PROJECT}/model.toml") -> None:
    path = shop.root / file
    text = path.read_text()
    assert text.count(old) == 1, text
    path.write_text(text.replace(old, new))


@contextmanager
def no_catalog(shop: Shop) -> Iterator[None]:
    """Its files are away, and none can be made in their place."""
    state, away = shop.root / "state", shop.root / "away"
    away.mkdir()
    for file in state.glob("catalog.db*"):
        file.rename(away / file.name)
    (state / "catalog.db").mkdir()
    yield
    (state / "catalog.db").rmdir()
    for file in away.iterdir():
        file.rename(state / file.name)


def serve_again(shop: Shop, api: str, callers: Callers, release: str, bundle: str) -> float:
    """Roll production back to `release`; how many seconds callers still got another bundle."""
    token = saved_token(shop.root / "state", "boris")
    began = time.monotonic()
    said = httpx.post(
        f"{api}/api/releases/coupon-response/v1/rollback",
        json={"reason": "it was right", "to": release},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert said.json()["serves"] == release
    wait_for(lambda: {one for _, _, one in callers.answers[-200:]} == {bundle})
    return max(at for at, _, one in callers.answers if one != bundle) - began


@pytest.mark.slow
def test_a_failed_gate_is_waived_and_a_third_person_approves(shop: Shop) -> None:
    hire(shop, "quinn", "qa")
    set_up(shop, "p99_ms = 2000", "p99_ms = 0.001")
    set_up(shop, "load_seconds", "releases.approval = true\nload_seconds", file="konveyer.toml")
    shop.run("train", PROJECT, profile="ana")
    release = shop.run("submit", PROJECT, profile="ana")["id"]
    failed = shop.failed("release", "approve", release, profile="boris")
    assert (failed["state"], failed["stages"][-1]["stage"]) == ("failed", "load")
    assert failed["stages"][-1]["evidence"]["node_cores"] > 0

    again = shop.failed("release", "rerun", release, profile="ana")
    assert (again["state"], again["attempt"]) == ("failed", 2)
    assert again["stages"][-1]["started_us"] > failed["stages"][-1]["started_us"]
    assert again["stages"][:-1] == failed["stages"][:-1]

    reason = ("--reason", "a laptop is no server")
    assert (
        shop.error("release", "waive", release, *reason, profile="boris")["code"] == "not_allowed"
    )
    would = shop.run("release", "waive", release, *reason, "--dry-run", profile="quinn")
    assert would["state"] == "replay"
    waived = shop.run("release", "waive", release, *reason, profile="quinn")
    assert waived["state"] == "approval"
    load = next(stage for stage in waived["stages"] if stage["stage"] == "load")
    assert load["verdict"] == "waived"
    assert load["evidence"]["waived"] == {"by": "quinn", "reason": "a laptop is no server"}
    same = shop.error("release", "approve", release, profile="boris")
    assert same["code"] == "same_person"
    live = shop.run("release", "approve", release, profile="quinn")
    assert live["state"] == "live"
    said = shop.run("people", "audit")
    assert ("quinn", "waived") in {(entry["actor"], entry["action"]) for entry in said}


def test_production_is_rolled_back_under_load_without_a_lost_request(shop_copy: Shop) -> None:
    """And forward again, over the API, also to what no process has loaded any more; not while the
    catalog is away, when callers are answered.
    """
    (first,) = shop_copy.run("release", "list")
    headers = shop_copy.caller()
    made = opened_at(shop_copy.root, State.PRODUCTION)
    second, digest = made.release, made.digest
    command = shop_copy.command("serve", "prod", "--port", "0")
    with node(command, shop_copy.root, "prod") as (url, _):
        with calling(url, PATH, headers, pause_s=0.005) as callers:
            wait_for(lambda: callers.bundles_since(0) == {first["digest"]})
            assert shop_copy.run("release", "continue", second)["state"] == "live"
            wait_for(lambda: callers.answers[-1][2] == digest)

            act = ("release", "rollback", second, "--reason", "refuses every student")
            assert shop_copy.error(*act, profile="ana")["code"] == "not_allowed"
            plan = shop_copy.run(*act, "--dry-run", profile="boris")
            assert plan["serves"] == first["id"]
            assert callers.answers[-1][2] == digest
            with no_catalog(shop_copy):
                error = shop_copy.error(*act, profile="boris")
                asked = len(callers.answers)
                wait_for(lambda: len(callers.answers) > asked + 200)
                assert callers.answers[-1][2] == digest
            assert error["code"] == "catalog_unavailable"
            shop_copy.run(*act, profile="boris")
            wait_for(lambda: callers.answers[-1][2] == first["digest"])
            back = time.monotonic()

            with served(shop_copy.root) as api:
                serve_again(shop_copy, api, callers, second, digest)
                third = opened_at(shop_copy.root, State.PRODUCTION)
                assert shop_copy.run("release", "continue", third.release)["state"] == "live"
                wait_for(lambda: callers.answers[-1][2] == third.digest)
                # What is live and what was before it are loaded, and none of these is either.
                took_s = [
                    serve_again(shop_copy, api, callers, first["id"], first["digest"]),
                    serve_again(shop_copy, api, callers, second, digest),
                    serve_again(shop_copy, api, callers, third.release, third.digest),
                ]
                assert min(took_s) < 5.0  # on a machine that has other work too
        assert callers.bundles_since(back) == {first["digest"], digest, third.digest}
        assert callers.failures == []
    states = {one["id"]: one["state"] for one in shop_copy.run("release", "list")}
    back_again = dict.fromkeys([first["id"], second], "rolled-back")
    assert states == {**back_again, third.release: "live"}
    times = shop_copy.run("release", "lead-time", "--since", "1d")
    assert {one["release"] for one in times["arrivals"]} == states.keys()
