"""Commands that cannot do what is asked say why, with a code and the next step."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from konveyer.cli.main import cli, main
from konveyer.core.settings import load_settings
from konveyer.execution.releases.machine import State
from konveyer.wiring import open_workspace
from tests.journeys.candidates import opened_at
from tests.outages import failing
from tests.support import Shop


def test_help_is_quick_and_has_examples() -> None:
    import time

    command = [sys.executable, "-m", "konveyer", "--help"]
    times = []
    for _ in range(3):
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        times.append(time.monotonic() - started)
    assert "Examples:" in done.stdout
    assert min(times) < 2.0  # 0.5 s on a quiet machine; this one may be busy


def test_mlflow_tells_its_makers_nothing() -> None:
    """MLflow itself, in a process that has run one of our commands; in tests it never does."""
    code = (
        "import os, sys\n"
        "sys.argv = ['konveyer', '--version']\n"
        "from konveyer.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "from mlflow.telemetry import client\n"
        "client.set_telemetry_client()\n"
        "print(client.get_telemetry_client())"
    )
    plain = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain
    )
    assert said.stdout.splitlines()[-1] == "None"


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """All that people are shown: others are for our own processes."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        elif not command.hidden:
            yield f"{path}{name}", command


@pytest.mark.parametrize(("name", "command"), list(commands(cli)), ids=str)
def test_every_command_shows_an_example_of_itself(name: str, command: click.Command) -> None:
    assert "Example" in (command.help or "")
    example = (command.help or "").partition("Example")[2]
    assert re.search(rf"konveyer (--\S+ (\w+ )?)?{name}\b", example), example


def test_applying_again_changes_nothing(trained_shop: Shop) -> None:
    answer = trained_shop.run("apply")
    assert answer["changes"] == []
    assert answer["unchanged"] == 15


def test_a_catalog_that_goes_away_is_no_defect(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = open_workspace(load_settings(shop.root))
    monkeypatch.setattr("konveyer.wiring.open_workspace", lambda _settings: workspace)
    monkeypatch.setattr("sys.argv", shop.command("release", "list")[2:])
    with failing(workspace.catalog, 1), pytest.raises(SystemExit) as ended:
        main()
    error = json.loads(capsys.readouterr().out)["error"]
    assert (ended.value.code, error["code"]) == (1, "catalog_unavailable")
    assert error["message"].endswith("the database is away")


@pytest.mark.slow
def test_a_dry_run_changes_nothing(shop: Shop) -> None:
    file = shop.root / "features/campaigns.py"
    file.write_text(file.read_text().replace("365d", "180d"))
    service = shop.root / "features/coupon_response.py"
    planned = shop.run("apply", "--dry-run")["changes"]
    assert {(c["action"], c["name"]) for c in planned} == {
        ("change", "campaign_exposure"),
        ("change", "coupon_response"),
    }
    assert shop.run("apply", "--dry-run")["changes"] == planned
    assert shop.run("apply")["changes"] == planned
    assert shop.run("apply")["changes"] == []
    assert service.exists()
    error = shop.error(
        "training-set", "build", "coupon_response", "--labels", "data/labels.parquet"
    )
    assert error["code"] == "feature_view_not_computed"
    shop.run("etl", "run", "campaign_exposure")


def test_a_broken_definition_changes_nothing(shop: Shop) -> None:
    file = shop.root / "features/baskets.py"
    good = file.read_text()
    file.write_text(good.replace('column="amount"', 'column="amuont"'))
    error = shop.error("apply")
    assert error["code"] == "unknown_column"
    assert error["hint"] == "did you mean 'amount'?"
    file.write_text(good)
    assert shop.run("apply")["changes"] == []


def test_values_that_fail_a_check_are_not_published(shop: Shop) -> None:
    file = shop.root / "features/demographics.py"
    file.write_text(file.read_text().replace('"65+"', '"66+"'))
    shop.run("apply")
    error = shop.error("etl", "run", "demographics")
    assert error["code"] == "etl_failed"
    assert "'age'" in error["message"]
    assert "65+" in error["message"]
    (run,) = shop.run("etl", "runs", "--view", "demographics", "--limit", "1")
    assert run["status"] == "failed"
    assert run["published"] is None
    assert run["error"]["code"] == "quality_check_failed"


def test_a_second_command_does_not_disturb_a_running_one(shop: Shop) -> None:
    from konveyer.catalog.leases import lease
    from konveyer.catalog.session import Catalog
    from konveyer.pipeline.run import LEASE

    catalog = Catalog(f"sqlite:///{shop.root}/state/catalog.db")
    with lease(catalog, LEASE, purpose="konveyer etl run"):
        error = shop.error("etl", "run")
    catalog.close()
    assert error["code"] == "workspace_held"
    assert "konveyer etl run" in error["message"]
    assert "konveyer up" in error["hint"]


def test_an_analyst_may_look_and_change_nothing(trained_shop: Shop) -> None:
    assert trained_shop.run("features", "search", "basket", profile="eva")
    for command in (
        ("etl", "run"),
        ("train", "models/coupon_response"),
        ("submit", "models/coupon_response"),
        ("people", "add", "mallory", "--role", "administrator"),
        ("people", "token", "admin"),
    ):
        assert trained_shop.error(*command, profile="eva")["code"] == "not_allowed"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("features", "show", "basket_activty"), "feature_view_not_found"),
        (("etl", "run", "no_such_view"), "feature_view_not_found"),
        (("training-set", "build", "nothing", "--labels", "x"), "label_file_missing"),
        (("train", "models/nothing"), "project_not_found"),
        (("release", "show", "rel-1"), "release_not_found"),
        (("people", "token", "nobody"), "person_not_found"),
        (("serve", "staging"), "environment_unknown"),
        (("release", "lead-time", "--since", "banana"), "bad_instant"),
    ],
)
def test_a_name_that_is_not_there(
    trained_shop: Shop, arguments: tuple[str, ...], code: str
) -> None:
    error = trained_shop.error(*arguments)
    assert error["code"] == code
    assert error["hint"]


@pytest.mark.slow
def test_an_output_that_is_a_folder_is_refused_before_anything_is_built(trained_shop: Shop) -> None:
    kept = trained_shop.run("training-set", "list")
    labels = ("--labels", "data/labels.parquet", "--label", "redeemed")
    for command in (("build", "coupon_response", *labels), ("rebuild", kept[0]["id"])):
        folder = str(trained_shop.root / "data")
        error = trained_shop.error("training-set", *command, "--output", folder)
        assert error["code"] == "output_exists"
        assert "name a file" in error["hint"]
    assert trained_shop.run("training-set", "list") == kept


@pytest.mark.parametrize("limit", ["0", "-1", "99999999999999999999"])
@pytest.mark.parametrize(
    "command",
    ["etl runs", "batch runs", "release list", "people audit", "predictions prod"],
)
def test_a_list_is_of_one_or_more_and_not_of_endlessly_many(
    trained_shop: Shop, command: str, limit: str
) -> None:
    made = trained_shop.command(*command.split(), "--limit", limit)
    done = subprocess.run(made, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Invalid value for '--limit'" in done.stderr


@pytest.mark.slow
def test_what_people_read_of_releases(shop: Shop) -> None:
    def told(*arguments: str) -> str:
        command = [part for part in shop.command(*arguments, profile="ana") if part != "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return " ".join(done.stdout.split())

    releases = []
    for _ in range(3):
        releases.append(opened_at(shop.root, State.APPROVAL).release)
        shop.run("release", "withdraw", releases[-1], profile="ana")
    count = len(shop.run("release", "list"))
    shown = told("release", "list", "--limit", "2")
    assert releases[0] not in shown
    assert shown.endswith(f"2 of {count} shown: --limit {count} shows all.")
    assert "shown" not in told("release", "list", "--limit", str(count))
    assert f"ana withdrew approval release {releases[2]}" in told("people", "audit")
    project = "models/coupon_response"
    assert "changed since" not in told("release", "try", project, "--dry-run")
    toml = shop.root / project / "model.toml"
    toml.write_text(f"{toml.read_text()}\n[serving]\ndeadline_ms = 5\n")
    for command in (("release", "try"), ("submit",)):
        said = told(*command, project, "--dry-run")
        assert f"[serving] of {project}/model.toml changed since this run was trained" in said


def test_who_is_not_signed_in_sees_nothing(trained_shop: Shop) -> None:
    error = trained_shop.error("features", "search", profile="stranger")
    assert error["code"] == "not_signed_in"


def test_an_unfinished_or_foreign_folder_is_no_workspace(
    tmp_path: Path, trained_shop: Shop
) -> None:
    shop = Shop(tmp_path)
    assert shop.error("features", "search")["code"] == "workspace_not_found"
    (tmp_path / "konveyer.toml").write_text("[workspace]\nname = 'x'\ncolour = 'red'\n")
    error = shop.error("features", "search")
    assert error["code"] == "bad_settings"
    assert "colour" in error["message"]
    assert shop.error("init", str(tmp_path))["code"] == "workspace_exists"


def test_every_change_names_who_made_it(trained_shop: Shop) -> None:
    made = {(e["actor"], e["action"], e["kind"]) for e in trained_shop.run("people", "audit")}
    assert ("admin", "added", "view") in made
    assert ("admin", "computed", "view") in made
    assert ("ana", "built", "training set") in made
    assert ("ana", "trained", "run") in made
