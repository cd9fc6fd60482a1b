"""`konveyer up`: everything a person needs, handed-over runs, and nothing left when it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from konveyer.cli.supervisor import Child, keep_running
from konveyer.core.processes import is_alive
from tests.support import Shop, nodes_up, wait_for


@contextmanager
def up(shop: Shop) -> Iterator[tuple["subprocess.Popen[str]", dict[str, str]]]:
    command = shop.command("up", "--free-ports")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def children(process: "subprocess.Popen[Any]") -> list[int]:
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    return [int(pid) for pid in found.stdout.split()]


def test_it_serves_takes_runs_restarts_what_dies_and_stops_all(shop_copy: Shop) -> None:
    with up(shop_copy) as (process, addresses):
        assert set(addresses) == {"portal", "dev", "test", "prod"}
        assert httpx.get(addresses["portal"] + "/features").is_success
        path = "/coupon-response/v1/predict"
        answer = httpx.post(
            addresses["prod"] + path, json={"household_id": 1}, headers=shop_copy.caller()
        )
        assert answer.is_success
        run = shop_copy.run("etl", "run", "demographics")["views"][0]
        assert run["status"] == "succeeded"

        first = nodes_up(shop_copy.root, "prod")[0].pid
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: [n for n in nodes_up(shop_copy.root, "prod") if n.pid != first])
        wait_for(lambda: reachable(addresses["prod"] + "/health/ready"))

        running = children(process)
        assert len(running) == 5
    assert process.returncode == 0
    assert not [pid for pid in running if is_alive(pid)]


def test_who_ran_for_long_is_restarted_soon_however_often_it_was_before(tmp_path: Path) -> None:
    child = Child("brief", (sys.executable, "-c", ""), tmp_path / "log", restarts=5)
    child.start()
    assert child.process is not None
    child.process.wait()
    child.started_at -= 60
    keep_running([child], until=lambda: child.restart_at > 0)
    assert child.restart_at - time.monotonic() <= 1


def reachable(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.ConnectError:
        return False


@pytest.mark.slow
def test_stopping_it_in_the_middle_of_a_release_fails_nothing(shop: Shop) -> None:
    shop.lengthen_load()
    release = shop.run("submit", "models/coupon_response", profile="ana")["id"]

    def stage() -> str:
        return str(shop.run("release", "show", release)["state"])

    with up(shop) as (process, _):
        assert shop.error("up", "--free-ports")["code"] == "workspace_held"
        command = shop.command("release", "approve", release, profile="boris")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as approval:
            wait_for(lambda: stage() == "load", approval)
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            answer, _ = approval.communicate(timeout=60)
    assert json.loads(answer.splitlines()[-1])["error"]["code"] == "worker_gone"
    assert stage() == "load"
    with up(shop):
        wait_for(lambda: stage() == "live")


@pytest.mark.slow
def test_several_commands_at_once_share_the_worker(shop_copy: Shop) -> None:
    with up(shop_copy):
        commands = [
            shop_copy.command("etl", "run", *views)
            for views in ((), ("basket_activity",), ("demographics", "coupon_savings"))
        ]
        running = [subprocess.Popen(c, stdout=subprocess.PIPE, text=True) for c in commands]
        answers = [json.loads(process.communicate(timeout=120)[0]) for process in running]
    for answer in answers:
        assert {run["status"] for run in answer["views"]} == {"succeeded"}


def test_nothing_outlives_a_killed_one(shop_copy: Shop) -> None:
    with up(shop_copy) as (process, _):
        running = children(process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_for(lambda: not [pid for pid in running if is_alive(pid)])


def test_a_taken_port_is_a_clear_error(shop_copy: Shop) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        settings = shop_copy.root / "konveyer.toml"
        port = other.getsockname()[1]
        settings.write_text(settings.read_text().replace("port = 8080", f"port = {port}"))
        error = shop_copy.error("up")
    assert error["code"] == "port_taken"
    assert str(port) in error["message"]


@pytest.mark.slow
@pytest.mark.parametrize("command", [("etl", "run", "demographics"), ("apply",)])
def test_errors_of_handed_over_runs_arrive_in_the_same_words(
    shop_copy: Shop, command: tuple[str, ...]
) -> None:
    file = shop_copy.root / "features/demographics.py"
    file.write_text(file.read_text().replace('"65+"', '"66+"'))
    with up(shop_copy):
        if command == ("apply",):
            assert shop_copy.run("apply")["changes"]
            return
        shop_copy.run("apply")
        error = shop_copy.error(*command)
    assert error["code"] == "etl_failed"
    assert "65+" in error["message"]
