"""Releases through the public commands: a failed gate stops one, a corrected one goes through."""

import shutil
from pathlib import Path

import httpx
import pytest

from tests.support import Shop, node

PROJECT = "models/coupon_response"


def test_the_release_went_through_every_gate_with_evidence(released_shop: Shop) -> None:
    (release,) = released_shop.run("release", "list")
    skipped = [s["stage"] for s in release["stages"] if s["verdict"] == "not required"]
    assert skipped == ["replay", "shadow", "approval", "canary"]
    stages = {s["stage"]: s for s in release["stages"] if s["stage"] not in skipped}
    assert list(stages) == ["checks", "review", "functional", "integration", "load", "production"]
    for stage in stages.values():
        assert stage["verdict"] == "passed"
        assert stage["rule"]
        assert stage["measured"]
        assert stage["limit"]
        assert stage["evidence"]
    assert stages["integration"]["evidence"]["entities"] == 50
    assert stages["functional"]["evidence"]["worst_difference"] <= 1e-9
    assert stages["load"]["evidence"]["requests"] >= 4  # two a second for two seconds
    live = released_shop.run("models")
    assert {one["environment"] for one in live} == {"test", "prod"}


@pytest.mark.slow
def test_failing_project_tests_stop_a_release_and_a_corrected_one_goes_on(shop: Shop) -> None:
    test = shop.root / PROJECT / "tests" / "test_broken.py"
    test.write_text("def test_it() -> None:\n    assert 1 == 2\n")
    shop.run("train", PROJECT, profile="ana")
    release = shop.failed("submit", PROJECT, profile="ana")
    assert release["state"] == "failed"
    assert "tests failed" in release["reason"]
    assert "assert 1 == 2" in release["stages"][0]["evidence"]["tests"]
    error = shop.error("release", "approve", release["id"], profile="boris")
    assert error["code"] == "release_wrong_state"

    test.unlink()
    shop.run("train", PROJECT, profile="ana")
    again = shop.run("submit", PROJECT, profile="ana")
    assert again["state"] == "review"
    assert shop.error("submit", PROJECT, profile="ana")["code"] == "release_in_flight"
    assert shop.error("release", "approve", again["id"], profile="ana")["code"] == "not_allowed"
    rejected = shop.run("release", "reject", again["id"], "--reason", "later", profile="boris")
    assert rejected["state"] == "rejected"


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("raise RuntimeError('no data today')", "training_failed"),
        pytest.param("return None", "training_failed", marks=pytest.mark.slow),
    ],
)
def test_a_model_that_fails_leaves_nothing(shop: Shop, what: str, code: str) -> None:
    before = set((shop.root / "state/runs").iterdir())
    source = shop.root / PROJECT / "model.py"
    source.write_text(f"def train(features, labels, names, categorical, parameters):\n    {what}\n")
    error = shop.error("train", PROJECT, profile="ana")
    assert error["code"] == code
    traceback = error["detail"]["traceback"]
    assert "model.py" in traceback or "harness" in traceback
    assert "correct the project" in error["hint"]
    assert set((shop.root / "state/runs").iterdir()) == before


def test_a_model_that_ends_its_process_is_told_so(shop: Shop) -> None:
    source = shop.root / PROJECT / "model.py"
    source.write_text("raise SystemExit(0)\n")
    error = shop.error("train", PROJECT, profile="ana")
    assert error["code"] == "training_failed"
    assert "ended with exit status 0" in error["message"]


@pytest.mark.slow
def test_training_again_gives_the_same_model(shop: Shop, tmp_path: Path) -> None:
    runs = shop.root / "state/runs"
    first = {path.name for path in runs.iterdir()}
    again = shop.run("train", PROJECT, profile="ana")
    (before,) = first
    models = [(runs / run / "model.txt").read_bytes() for run in (before, again["run_id"])]
    assert models[0] == models[1]
    assert again["metrics"]["auc"] > again["metrics"]["auc_without_windows"] > 0.5


def test_an_author_tries_a_model_on_dev_without_a_release(shop: Shop) -> None:
    headers = shop.caller("dev")
    command = shop.command("serve", "dev", "--port", "0")
    with node(command, shop.root, "dev") as (url, _):
        tried = shop.run("release", "try", PROJECT, profile="ana")
        assert tried["urls"] == [f"{url}/coupon-response/v1/predict"]
        answer = httpx.post(tried["urls"][0], json={"household_id": 1}, headers=headers).json()
        assert answer["bundle"] == tried["bundle"]
    assert shop.run("release", "list") == []
    (live,) = shop.run("models")
    assert (live["environment"], live["release"]) == ("dev", "")
    assert shop.error("release", "try", PROJECT, profile="eva")["code"] == "not_allowed"


@pytest.mark.slow
def test_projects_of_one_application_are_not_mixed_up(shop_copy: Shop) -> None:
    other = "models/challenger"
    shutil.copytree(shop_copy.root / PROJECT, shop_copy.root / other)
    unborn = shop_copy.error("submit", other, "--dry-run", profile="ana")
    assert unborn["code"] == "run_not_found"
    assert f"konveyer train {other}" in unborn["hint"]
    trained = shop_copy.run("train", other, profile="ana")["run_id"]
    for command in (("submit",), ("release", "try")):
        own = shop_copy.run(*command, PROJECT, "--dry-run", profile="ana")["run"]
        named = shop_copy.run(*command, PROJECT, "--run", trained, "--dry-run", profile="ana")
        assert own != trained
        assert named["run"] == trained
        assert shop_copy.run(*command, other, "--dry-run", profile="ana")["run"] == trained


def test_the_reviewer_sees_what_a_release_changes(shop_copy: Shop) -> None:
    (live,) = shop_copy.run("release", "list")
    model = shop_copy.root / PROJECT / "model.toml"
    model.write_text(model.read_text().replace("rounds = 250", "rounds = 200"))
    shop_copy.run("train", PROJECT, profile="ana")
    release = shop_copy.run("submit", PROJECT, profile="ana")
    changed = shop_copy.run("release", "diff", release["id"], profile="boris")
    assert changed["against"] == live["id"]
    assert changed["parameters"] == [{"name": "rounds", "before": "250", "after": "200"}]
    assert [file["name"] for file in changed["code"]] == ["model.toml"]
    assert "-rounds = 250\n+rounds = 200" in changed["code"][0]["diff"]
    assert (changed["features"], changed["environment"]) == ([], [])
    auc = next(one for one in changed["metrics"] if one["name"] == "auc")
    assert auc["before"] != auc["after"]
    would_be = shop_copy.run("release", "approve", release["id"], "--dry-run", profile="boris")
    assert would_be["state"] == "functional"
    assert shop_copy.run("release", "watch", release["id"])["state"] == "review"
    withdrawn = shop_copy.run("release", "withdraw", release["id"], profile="ana")
    assert withdrawn["state"] == "withdrawn"
