"""Processes of a node killed with -9 under load."""

import signal
import subprocess
import time

import httpx
import psutil
import pytest

from tests.serving_nodes import Load, Node, command_of, kill, rows_logged, serving
from tests.serving_space import ServingSpace
from tests.support import nodes_up, wait_for


def test_a_killed_process_loses_only_what_it_was_answering(space: ServingSpace) -> None:
    with serving(space, processes=2) as node:
        with Load(node.url) as load:
            load.more(200)
            victim = node.processes()[0]
            kill(victim)
            load.more(500)
            wait_for(lambda: len(node.processes()) == 2 and victim not in node.processes())
            load.more(500)
        assert load.statuses == {200}
        assert len(load.broken) <= load.connections
        assert node.parent.poll() is None


def test_processes_end_with_a_killed_parent_and_a_new_one_takes_the_port(
    space: ServingSpace,
) -> None:
    with serving(space, processes=2) as node:
        orphans = node.processes()
        with Load(node.url) as load:
            load.more(200)
            node.parent.kill()
            node.parent.wait()
            began = time.monotonic()
            with serving(space, processes=2, port=node.port) as again:
                took_s = time.monotonic() - began
                load.more(200)
                wait_for(lambda: not any(one.is_running() for one in orphans))
                assert again.port == node.port
                assert [one.pid for one in nodes_up(space.root, "prod")] == [again.parent.pid]
        # Requests under way were answered; connections that came between the two were refused, or
        # ended by the system when they stood in the queue of a socket that closed.
        assert load.statuses == {200}
        assert not [one for one in load.broken if not one.startswith(("connect", "new"))]
        assert took_s < 20


def test_processes_end_with_a_parent_that_had_not_heard_them(space: ServingSpace) -> None:
    """Then their connection to it ends with an error, not with an end of what there is to read."""
    with serving(space, processes=2) as node:
        orphans = node.processes()
        node.parent.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        node.parent.kill()
        node.parent.wait()
        wait_for(lambda: not any(one.is_running() for one in orphans))


def test_a_stopped_node_answers_what_is_under_way_and_logs_it(space: ServingSpace) -> None:
    with serving(space, processes=2) as node, Load(node.url) as load:
        load.more(200)
        node.parent.send_signal(signal.SIGTERM)
        assert node.parent.wait(30) == 0
    assert not [one for one in load.broken if not one.startswith(("connect", "new"))]
    assert load.statuses == {200}
    logged = {row["request_id"] for row in rows_logged(space.root)}
    assert set(load.ids) <= logged
    assert not list((space.state / "predictions/prod").glob("*.jsonl"))
    assert not list((space.state / "run").iterdir())


def test_a_node_with_the_id_of_one_before_says_what_it_serves_itself(space: ServingSpace) -> None:
    """As in a container that starts again, where the folder of the one before is still there."""
    folder = space.state / "run"
    said = '{"serving":[]}'
    script = f"mkdir -p {folder}/prod-$$ && echo '{said}' > {folder}/prod-$$/process-7.json && "
    node = subprocess.Popen(["sh", "-c", script + 'exec "$@"', "sh", *command_of(space)])
    try:
        wait_for(lambda: nodes_up(space.root, "prod"), node)
        (up,) = nodes_up(space.root, "prod")
        wait_for(lambda: httpx.get(up.url + "/health/ready").json()["versions"], node)
    finally:
        node.terminate()
        node.wait(30)


@pytest.mark.slow
def test_a_process_that_hangs_is_replaced(space: ServingSpace) -> None:
    """SIGSTOP is a loop that does not turn; the parent hears nothing and kills it."""
    with serving(space, processes=1) as node:
        (hung,) = node.processes()
        hung.suspend()
        wait_for(lambda: not hung.is_running() or hung.status() == psutil.STATUS_ZOMBIE)
        wait_for(lambda: node.processes() and node.processes()[0].pid != hung.pid)
        with node.client() as client:
            assert client.post("/scoring/v1/predict", json={"client_id": 1}).status_code == 200


def test_a_killed_process_loses_at_most_the_last_second_of_its_log(space: ServingSpace) -> None:
    with serving(space, processes=1) as node:
        with node.client() as client:
            for number in range(50):
                client.post(
                    "/scoring/v1/predict",
                    json={"client_id": 1},
                    headers={"x-request-id": f"early-{number}"},
                )
            time.sleep(1.0)
            client.post("/scoring/v1/predict", json={"client_id": 1})
        kill(node.processes()[0])
        wait_for(lambda: list((space.state / "predictions/prod").glob("*.parquet")))
        # Whoever packs is short-lived, and must leave no counts for each scrape to add up.
        counts = (space.state / "run").glob("prod-*/metrics/*.db")
        assert len({path.stem.rpartition("_")[2] for path in counts}) <= 2
    ids = {row["request_id"] for row in rows_logged(space.root)}
    assert {f"early-{number}" for number in range(50)} <= ids


def measured(node: Node, name: str) -> float:
    with node.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


def counted(node: Node) -> float:
    name = 'konveyer_requests_total{api_version="1",application="scoring",side="live",status="200"}'
    return measured(node, name)


def test_counts_are_those_of_all_processes_also_of_one_that_was_killed(
    space: ServingSpace,
) -> None:
    with serving(space, processes=2) as node:
        with Load(node.url, connections=16) as load:
            load.more(300)
        assert counted(node) == load.total
        kill(node.processes()[0])
        wait_for(lambda: len(node.processes()) == 2)
        with node.client() as client:
            wait_for(lambda: client.get("/health/ready").json()["versions"])
        assert counted(node) == load.total


def test_what_a_process_served_that_was_killed_is_served_no_more(space: ServingSpace) -> None:
    space.desire(space.pack(1), space.pack(2, application="other"))
    with serving(space, processes=1) as node:
        wait_for(lambda: measured(node, "konveyer_live_versions") == 2)
        (victim,) = node.processes()
        kill(victim)
        space.desire(space.pack(1))
        wait_for(lambda: victim not in node.processes())
        wait_for(lambda: measured(node, "konveyer_live_versions") == 1)
