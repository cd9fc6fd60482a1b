"""The steps of `konveyer demo`: public commands in their own processes, a line for each."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from konveyer.cli.render import print_json, seconds
from konveyer.core.errors import Conflict, KonveyerError
from konveyer.core.settings import FILE_NAME, parse_settings

EXAMPLE = "coupon-response"
PROJECT = "models/coupon_response"
AUTHOR, REVIEWER = "ana", "boris"
MARK = ".konveyer-demo"


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
        """The JSON answer of one command; its error ends the demo with the same words."""
        done = subprocess.run(
            self.command(*arguments, profile=profile), capture_output=True, text=True, check=False
        )
        lines = done.stdout.strip().splitlines()
        try:
            answer = json.loads(lines[-1])
        except (IndexError, json.JSONDecodeError):
            answer = {"error": {"message": done.stderr.strip() or "it printed nothing"}}
        if done.returncode:
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
                    raise DemoStepFailed(
                        f"'konveyer up' failed: {answer.get('error', {}).get('message', 'no answer')}",
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
    settings = folder / FILE_NAME
    is_demo = settings.is_file() and (
        parse_settings(settings.read_bytes(), root=folder).workspace.name == EXAMPLE
    )
    if not is_demo:
        raise DemoFolderTaken(
            f"{folder} is not empty and was not made by a demo.", hint="give another --folder"
        )
    shutil.rmtree(folder)


def run_conveyor(folder: Path, *, as_json: bool) -> None:
    """The demo, start to end. Raises when a step fails; stops what it started in any case."""
    root = folder.resolve()
    fresh_folder(root)
    conveyor = Conveyor(root, quiet=as_json)
    summary: dict[str, Any] = {}
    with conveyor.step("Workspace and real data") as facts:
        made = conveyor.run("init", str(root), "--example", EXAMPLE)
        facts += [f"{rows:,} {name}" for name, rows in made["data"].items()]
    with conveyor.step("People: an author and a reviewer") as facts:
        for name, role in ((AUTHOR, "data-scientist"), (REVIEWER, "ml-engineer")):
            conveyor.run("people", "add", name, "--role", role)
            conveyor.run("people", "token", name, "--save")
            facts.append(f"{name} ({role})")
    _features(conveyor, summary)
    _training(conveyor, summary)
    with conveyor.step("Start portal, nodes and worker") as facts:
        up = conveyor.up()
        addresses = up.__enter__()
        facts += [f"{name} {address}" for name, address in addresses.items()]
    try:
        _release(conveyor, summary)
        _predict(conveyor, summary, addresses["prod"])
    finally:
        up.__exit__(None, None, None)
    summary["wall_s"] = round(time.monotonic() - conveyor.started, 1)
    if as_json:
        print_json(summary)
    else:
        _print_summary(summary, folder)
