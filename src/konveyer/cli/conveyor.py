"""The steps of `konveyer demo`: public commands in their own processes, a line for each."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import httpx

from konveyer.cli.render import print_json, print_table
from konveyer.core.errors import Conflict, KonveyerError
from konveyer.core.storage import FolderStorage
from konveyer.core.wording import seconds
from konveyer.execution.serving.presence import nodes_of

EXAMPLE = "coupon-response"
SERVICE, PROJECT = "coupon_response", "models/coupon_response"
HOUSEHOLD, PROD_PORT, MARK = 1, 8081, ".konveyer-demo"
LOGGED_WITHIN_S = 10.0
AUTHOR, REVIEWER, CALLER = "ana", "boris", "till"


class DemoFolderTaken(Conflict):
    """The folder holds something that no demo made."""

    code = "demo_folder_taken"


class DemoStepFailed(KonveyerError):
    """A command of the demo failed."""

    code = "demo_step_failed"


@dataclass
class Conveyor:
    """Runs public commands in one workspace and prints a line for each."""

    root: Path
    quiet: bool
    started: float = field(default_factory=time.monotonic)

    def command(self, *arguments: str, profile: str | None = None) -> list[str]:
        who = ["--profile", profile] if profile else []
        program = [sys.executable, "-m", "konveyer"]
        return [*program, "--workspace", str(self.root), *who, "--json", *arguments]

    def run(self, *arguments: str, profile: str | None = None) -> Any:
        """The JSON answer of one command; its error ends the demo with the same words.

        A release that a gate stopped is an answer too.
        """
        done = subprocess.run(
            self.command(*arguments, profile=profile), capture_output=True, text=True, check=False
        )
        lines = done.stdout.strip().splitlines()
        try:
            answer = json.loads(lines[-1])
        except (IndexError, json.JSONDecodeError):
            answer = {"error": {"message": done.stderr.strip() or "it printed nothing"}}
        if done.returncode and "error" in answer:
            error = answer["error"]
            raise DemoStepFailed(
                f"'konveyer {' '.join(arguments)}' failed: {error['message']}",
                hint=error.get("hint"),
                detail=error,
            )
        return answer

    @contextmanager
    def step(self, title: str) -> Iterator[list[str]]:
        """Print the title with its time, then what the block appended."""
        before = time.monotonic()
        facts: list[str] = []
        if not self.quiet:
            click.echo(f"{click.style('…', dim=True)} {title}", nl=not sys.stdout.isatty())
        yield facts
        took = seconds(time.monotonic() - before)
        if not self.quiet:
            start = "\r" if sys.stdout.isatty() else ""
            mark = click.style("✓", fg="green")
            click.echo(f"{start}{mark} {title:<34} {took:>8}   {'; '.join(facts)}")

    @contextmanager
    def up(self) -> Iterator[Mapping[str, str]]:
        """`konveyer up` in the background; yields the addresses that it announced."""
        command = self.command("up", "--free-ports")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None  # noqa: S101 - asked for above
                answer = json.loads(process.stdout.readline() or "{}")
                if "error" in answer or not answer:
                    reason = answer.get("error", {}).get("message", "it gave no answer")
                    raise DemoStepFailed(
                        f"'konveyer up' failed: {reason}",
                        hint=f"read the logs in {self.root / 'state' / 'logs'}",
                    )
                yield answer
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(30)


def fresh_folder(folder: Path) -> None:
    """Remove an earlier demo; never anything else."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / MARK).is_file():
        raise DemoFolderTaken(
            f"{folder} is not empty and was not made by a demo.", hint="give another --folder"
        )
    storage = FolderStorage(folder / "state")
    running = [node for one in ("test", "prod") for node in nodes_of(storage, one)]
    if running:
        raise DemoFolderTaken(
            f"Something still serves from {folder} (process {running[0].pid}).",
            hint="stop 'konveyer up' there, or give another --folder",
        )
    shutil.rmtree(folder)


def run_conveyor(folder: Path, *, as_json: bool) -> None:
    """The demo, start to end. Raises when a step fails; stops what it started in any case."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    root = folder.resolve()
    fresh_folder(root)
    conveyor = Conveyor(root, quiet=as_json)
    summary: dict[str, Any] = {}
    with conveyor.step("Workspace and real data") as facts:
        made = conveyor.run("init", str(root), "--example", EXAMPLE)
        (root / MARK).write_text("Made by 'konveyer demo', which may replace this folder.\n")
        summary["label_rows"] = made["data"]["labels"]
        facts += [f"{made['data'][name]:,} {name}" for name in ("transactions", "labels")]
    with conveyor.step("People: an author and a reviewer") as facts:
        for name, role in ((AUTHOR, "data-scientist"), (REVIEWER, "ml-engineer")):
            conveyor.run("people", "add", name, "--role", role)
            conveyor.run("people", "token", name, "--save")
            facts.append(f"{name} ({role})")
    _features(conveyor, summary)
    _training(conveyor, summary)
    with conveyor.up() as addresses:
        _release(conveyor, summary)
        _predict(conveyor, summary, addresses["prod"])
    summary["wall_s"] = round(time.monotonic() - conveyor.started, 1)
    if as_json:
        stages = [
            {name: stage[name] for name in ("stage", "verdict", "waited_s", "worked_s")}
            for stage in summary["release_stages"]
        ]
        print_json(summary | {"release_stages": stages})
    else:
        _print_summary(summary, folder)


def _features(conveyor: Conveyor, summary: dict[str, Any]) -> None:
    with conveyor.step("Apply feature definitions") as facts:
        changes = conveyor.run("apply")["changes"]
        kinds = Counter(change["kind"] for change in changes)
        facts += [f"{count} {kind}" for kind, count in kinds.items()]
    with conveyor.step("ETL: compute, check, publish") as facts:
        views = conveyor.run("etl", "run")["views"]
        summary["etl_runs"] = len(views)
        facts.append(f"{len(views)} views, {sum(view['rows'] for view in views):,} rows offline")
        facts.append(f"{sum(view['published'] for view in views):,} records online")
    with conveyor.step("Datamart: search 'basket'") as facts:
        found = conveyor.run("features", "search", "basket")
        conveyor.run("features", "show", found[0]["view"])
        facts.append(f"{len(found)} features, first {found[0]['view']}:{found[0]['feature']}")


def _training(conveyor: Conveyor, summary: dict[str, Any]) -> None:
    with conveyor.step("Training set, as it was then") as facts:
        labels = ("--labels", "data/labels.parquet", "--label", "redeemed")
        built = conveyor.run("training-set", "build", SERVICE, *labels, profile=AUTHOR)
        summary["training_rows"], summary["features"] = built["rows"], built["features"]
        facts.append(f"{built['rows']:,} rows, {built['features']} features")
    with conveyor.step("Train in the model's environment") as facts:
        metrics = conveyor.run("train", PROJECT, profile=AUTHOR)["metrics"]
        summary["auc"], summary["baseline_auc"] = metrics["auc"], metrics["auc_without_windows"]
        facts.append(f"AUC {metrics['auc']:.3f} out of time")
        facts.append(f"without windows {metrics['auc_without_windows']:.3f}, label rate 0.500")


def _release(conveyor: Conveyor, summary: dict[str, Any]) -> None:
    with conveyor.step("Submit: bundle and checks") as facts:
        release = conveyor.run("submit", PROJECT, profile=AUTHOR)
        facts.append(f"{release['id']}, {release['state']}")
    with conveyor.step("Review and gates, to production") as facts:
        release = conveyor.run("release", "approve", release["id"], profile=REVIEWER)
        facts.append(f"approved by {REVIEWER}, {release['state']}")
        if release["state"] != "live":
            raise DemoStepFailed(
                f"The release stopped: {release['reason']}",
                hint=f"konveyer release show {release['id']}",
            )
    summary["release_stages"] = [
        {
            "stage": stage["stage"],
            "verdict": stage["verdict"],
            "waited_s": round(stage["waited_s"], 3),
            "worked_s": round(stage["worked_s"], 3),
            "measured": stage["measured"],
        }
        for stage in release["stages"]
        if stage["verdict"] != "not required"
    ]


def _predict(conveyor: Conveyor, summary: dict[str, Any], address: str) -> None:
    with conveyor.step("Predict by the household's key") as facts:
        url = f"{address}/{EXAMPLE}/v1/predict"
        made = conveyor.run("key", "create", CALLER, "--application", EXAMPLE, "--save")
        key = Path(made["file"]).read_text()
        with httpx.Client(headers={"X-API-Key": key}, timeout=10.0) as client:
            answer = _when_the_key_is_known(client, url)
        body = answer.json()
        summary |= {"url": url, "status": answer.status_code, "prediction": body.get("prediction")}
        if not answer.is_success:
            raise DemoStepFailed(f"The prediction failed: {answer.text}", hint="read state/logs")
        facts.append(f"household {HOUSEHOLD}: {body['prediction']:.4f}")
        features = _logged_features(conveyor, body["request_id"])
        facts.append(f"logged with {len(features)} features")


def _when_the_key_is_known(client: httpx.Client, url: str) -> httpx.Response:
    """Nodes know a new key within a second."""
    deadline = time.monotonic() + LOGGED_WITHIN_S
    while True:
        answer = client.post(url, json={"household_id": HOUSEHOLD})
        if answer.status_code != httpx.codes.UNAUTHORIZED or time.monotonic() > deadline:
            return answer
        time.sleep(0.1)


def _logged_features(conveyor: Conveyor, request_id: str) -> dict[str, Any]:
    """From the prediction log, which has an answer within a second."""
    deadline = time.monotonic() + LOGGED_WITHIN_S
    while time.monotonic() < deadline:
        found = conveyor.run("predictions", "prod", "--request", request_id)
        if found:
            features: dict[str, Any] = found[0]["features"]
            return features
    raise DemoStepFailed(
        f"Request {request_id} is not in the prediction log.", hint="read state/logs/prod.log"
    )


def _print_summary(summary: dict[str, Any], folder: Path) -> None:
    click.echo()
    rows = [
        (
            stage["stage"],
            stage["verdict"],
            seconds(stage["waited_s"]),
            seconds(stage["worked_s"]),
            stage["measured"],
        )
        for stage in summary["release_stages"]
    ]
    print_table(("stage", "verdict", "waited", "worked", "measured"), rows, empty="")
    waited = sum(stage["waited_s"] for stage in summary["release_stages"])
    worked = sum(stage["worked_s"] for stage in summary["release_stages"])
    click.echo(f"Lead time: waited {seconds(waited)}, worked {seconds(worked)}.")
    click.echo(f"The demo took {seconds(summary['wall_s'])}; all that it started is stopped.\n")
    click.echo("Keep it running, then look at the portal and ask for a prediction:")
    program = "konveyer" if shutil.which("konveyer") else sys.argv[0]
    click.echo(f"  {program} --workspace {folder} up")
    path = f"http://127.0.0.1:{PROD_PORT}/{EXAMPLE}/v1/predict"
    key = f'-H "X-API-Key: $(cat {folder}/state/keys/{CALLER}-prod)"'
    click.echo(f"  curl -X POST {path} {key} -d '{{\"household_id\": {HOUSEHOLD}}}'")
