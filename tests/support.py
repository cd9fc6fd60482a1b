"""Workspaces and nodes as real processes, driven through public commands and sockets."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from konveyer.cli.web import create_web
from konveyer.core.settings import load_settings
from konveyer.core.storage import FolderStorage
from konveyer.execution.serving.presence import Presence, nodes_of
from konveyer.wiring import Workspace, open_workspace

# A JVM that compiles less starts sooner, and is fast enough on small data.
QUICK_SPARK = (
    "spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1 -XX:%2BUseSerialGC"
    "&spark.sql.shuffle.partitions=2"
)


@dataclass(frozen=True)
class Shop:
    """A workspace driven through the public commands, each in its own process."""

    root: Path

    def command(self, *arguments: str, profile: str | None = None) -> list[str]:
        who = ["--profile", profile] if profile else []
        program = [sys.executable, "-m", "konveyer", "--workspace", str(self.root)]
        return [*program, *who, "--json", *arguments]

    def lengthen_load(self) -> None:
        """So that a release can be stopped in its load stage, also on a busy machine."""
        settings = self.root / "konveyer.toml"
        text = settings.read_text()
        assert text.count("load_seconds = 2.0") == 1
        settings.write_text(text.replace("load_seconds = 2.0", "load_seconds = 8.0"))

    def copied_to(self, root: Path) -> "Shop":
        """A workspace of its own with the same content; nodes of this one are not known there.

        Locked environments are shared: each holds hundreds of megabytes.
        """
        apart = shutil.ignore_patterns("nodes", "venvs")
        shutil.copytree(self.root, root, symlinks=True, ignore=apart)
        venvs = (self.root / "state/venvs").resolve()
        venvs.mkdir(exist_ok=True)
        (root / "state/venvs").symlink_to(venvs)
        return Shop(root)

    def caller(self, environment: str = "prod") -> dict[str, str]:
        """The headers of a system that may call everything."""
        file = self.root / f"state/keys/tests-{environment}"
        if not file.is_file():
            self.run("key", "create", "tests", "--environment", environment, "--save")
        return {"X-API-Key": file.read_text()}

    def keep_online(self, url: str) -> None:
        """Point `[online] url` somewhere else."""
        settings = self.root / "konveyer.toml"
        text = settings.read_text()
        assert text.count('"lmdb:state/online"') == 1
        settings.write_text(text.replace("lmdb:state/online", url))

    def run(self, *arguments: str, profile: str | None = None) -> Any:
        """The JSON answer of a command that must succeed."""
        done = self.attempt(*arguments, profile=profile)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def failed(self, *arguments: str, profile: str | None = None) -> Any:
        """The JSON answer of a command that did its work and exits with 1: a gate said no."""
        done = self.attempt(*arguments, profile=profile)
        assert done.returncode == 1, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def error(self, *arguments: str, profile: str | None = None) -> dict[str, Any]:
        """The error of a command that must fail."""
        done = self.attempt(*arguments, profile=profile)
        assert done.returncode == 1, done.stdout + done.stderr
        error: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["error"]
        assert error["message"]
        return error

    def attempt(
        self, *arguments: str, profile: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KONVEYER_")}
        return subprocess.run(
            self.command(*arguments, profile=profile),
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
            env=environment,
        )


def quick_of(parameters: Iterable[Any], quick: int) -> list[Any]:
    """Parameters of a test, of which only the first `quick` are not slow."""
    return [
        one if place < quick else pytest.param(one, marks=pytest.mark.slow)
        for place, one in enumerate(parameters)
    ]


@contextmanager
def node(
    command: list[str], root: Path, environment: str
) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A serving node; its URL and its process."""
    log = root / "node.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as process,
    ):
        try:
            wait_for(lambda: nodes_up(root, environment), process)
            yield nodes_up(root, environment)[0].url, process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def nodes_up(root: Path, environment: str) -> list[Presence]:
    """The nodes of a workspace that keeps everything in its folder."""
    return nodes_of(FolderStorage(root / "state"), environment)


def wait_for(
    condition: Callable[[], object], process: "subprocess.Popen[Any] | None" = None
) -> None:
    """Return once `condition` holds; fail after a minute, or when `process` has ended."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within a minute"
        assert process is None or process.poll() is None, "the process ended"
        time.sleep(0.02)


@contextmanager
def served(root: Path, *, leaves_runs: bool = False) -> Iterator[str]:
    """The web process's application on a free loopback port, in a thread."""
    workspace = open_workspace(load_settings(root))
    workspace.leaves_runs = leaves_runs
    try:
        with served_from(workspace) as url:
            yield url
    finally:
        workspace.close()


@contextmanager
def served_from(workspace: Workspace) -> Iterator[str]:
    """The same of a workspace that is open already."""
    config = uvicorn.Config(create_web(workspace), port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
