"""Commands that take a while, at a terminal: they show how far they are, and Ctrl-C is clean."""

import json
import os
import pty
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer import FeatureStore
from konveyer.feature_store.etl.runs import ViewNotComputed
from tests.support import Shop

pytestmark = pytest.mark.slow

DEFINITIONS = """
from konveyer import Aggregation, Entity, Feature, FeatureService, FeatureView, JoinKey, Source

client = Entity(name="client", join_keys=(JoinKey("client", "int64"),))
payments = Source(name="payments", path="payments.parquet", event_time="paid_at")
newest = FeatureView(
    name="newest",
    entity="client",
    sql="SELECT client, paid_at AS event_time, amount AS last FROM payments",
    features=(Feature(name="last", dtype="int64"),),
)
spend = FeatureView(
    name="spend",
    entity="client",
    source="payments",
    aggregations=(Aggregation(column="amount", function="sum", over="30d"),),
)
scoring = FeatureService(name="scoring", features=("newest", "spend"))
"""
START_US = 1_700_000_000_000_000
BUILD = ("training-set", "build", "scoring", "--labels", "labels.parquet", "--label", "amount")


def rows(count: int, time_name: str) -> pa.Table:
    random = np.random.default_rng(count)
    at_us = START_US + random.integers(0, 90 * 86_400_000_000, count)
    return pa.table(
        {
            "client": random.integers(0, 100_000, count),
            time_name: pa.array(at_us, pa.timestamp("us", "UTC")),
            "amount": random.integers(0, 1000, count),
        }
    )


@pytest.fixture(scope="module")
def big_shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("big") / "shop")
    shop.run("init", str(shop.root))
    (shop.root / "features/definitions.py").write_text(DEFINITIONS)
    pq.write_table(rows(2_000_000, "paid_at"), shop.root / "payments.parquet")
    pq.write_table(rows(1_100_000, "label_timestamp"), shop.root / "labels.parquet")
    shop.run("apply")
    shop.run("etl", "run")
    return shop


def at_a_terminal(
    shop: Shop, *arguments: str, interrupt: Callable[[str], bool] = lambda _shown: False
) -> tuple[int, str, float]:
    """Exit code, what was shown, and how many seconds after Ctrl-C it ended."""
    # A test run that was started in the background ignores it, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ours, theirs = pty.openpty()
    command = [word for word in shop.command(*arguments) if word != "--json"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown, sent = "", 0.0
    while True:
        try:
            shown += os.read(ours, 65_536).decode(errors="replace")
        except OSError:  # the other side is closed
            break
        if not sent and interrupt(shown):
            process.send_signal(signal.SIGINT)
            sent = time.monotonic()
    os.close(ours)
    return process.wait(), re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown), time.monotonic() - sent


def parts_done(shown: str, what: str) -> set[tuple[int, int]]:
    found = re.findall(rf"{what} [━╸╺ ]+(\d+)/(\d+)", shown)
    return {(int(done), int(of)) for done, of in found}


def test_etl_shows_how_far_a_view_is(big_shop: Shop) -> None:
    code, shown, _ = at_a_terminal(big_shop, "etl", "run")
    assert code == 0
    seen = [
        parts_done(shown, rf"newest \w+: {stage}") for stage in ("rows", "checked", "published")
    ]
    assert any(len(some) > 1 for some in seen)
    assert "✓ newest" in shown


def test_a_training_set_shows_how_far_it_is(big_shop: Shop) -> None:
    code, shown, _ = at_a_terminal(big_shop, *BUILD)
    assert code == 0
    for what in ("labels", "rows"):
        assert {of for _, of in parts_done(shown, what)} == {5}
    assert len({done for done, _ in parts_done(shown, "newest, spend")}) > 1
    # Of more than a million labels; an error when the digest is another one.
    built = re.findall(r"set-\w+", shown)[0]
    code, shown, _ = at_a_terminal(big_shop, "training-set", "rebuild", built)
    assert code == 0
    assert parts_done(shown, "newest, spend")


def test_scripts_are_shown_no_bars(big_shop: Shop) -> None:
    done = big_shop.attempt(*BUILD)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("stage", ["labels", "newest, spend", "rows"])
def test_ctrl_c_leaves_nothing_of_a_training_set(big_shop: Shop, stage: str) -> None:
    before = held_by(big_shop)
    code, shown, took_s = at_a_terminal(
        big_shop, *BUILD, interrupt=lambda text: f"{stage} " in re.sub(r"\x1b\[[\d;]*m", "", text)
    )
    assert code == 130
    assert took_s < 15
    assert "Interrupted. Nothing was kept." in shown
    assert "error" not in shown
    assert held_by(big_shop) == before


def held_by(shop: Shop) -> tuple[list[str], list[Path]]:
    listed = [one["id"] for one in shop.run("training-set", "list")]
    folders = shop.root / "training_sets", shop.root / "state/reading"
    held = (path for folder in folders for path in folder.rglob("*"))
    return listed, sorted(path for path in held if not path.match(".drafts*"))


def test_ctrl_c_in_etl_says_that_it_goes_on(big_shop: Shop) -> None:
    code, shown, took_s = at_a_terminal(
        big_shop, "etl", "run", interrupt=lambda text: "newest" in text
    )
    assert code == 130
    assert took_s < 15
    assert "goes on with it" in shown
    big_shop.run("etl", "run", "spend")
    assert {run["status"] for run in big_shop.run("etl", "runs")} == {"succeeded"}


def test_a_disk_that_is_full_keeps_nothing_of_a_training_set(big_shop: Shop) -> None:
    """As far as a process may write no file of more than a megabyte."""
    before = held_by(big_shop)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    done = subprocess.run(
        big_shop.command(*BUILD), preexec_fn=limited, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert error["code"] == "training_set_not_written"
    assert "room" in error["hint"]
    assert held_by(big_shop) == before


def test_an_open_feature_store_takes_up_what_is_applied_within_ten_seconds(big_shop: Shop) -> None:
    definitions = big_shop.root / "features/definitions.py"
    text = definitions.read_text()
    client = int(pq.read_table(big_shop.root / "payments.parquet")["client"][0].as_py())
    with FeatureStore(big_shop.root) as store:
        (before,) = store.online("scoring", [{"client": client}])
        assert before is not None
        assert set(before) == {"last", "amount_sum_30d"}
        definitions.write_text(text.replace('"newest", "spend"', '"newest:last as newest_amount",'))
        big_shop.run("apply")
        applied_s = time.monotonic()
        while set(store.online("scoring", [{"client": client}])[0] or ()) != {"newest_amount"}:
            assert time.monotonic() - applied_s < 12
            time.sleep(0.2)
    definitions.write_text(text)
    big_shop.run("apply")


def test_an_open_feature_store_reads_what_was_until_a_changed_view_is_computed(
    big_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("konveyer.sdk._RESOLVED_EVERY_S", 0.0)
    definitions = big_shop.root / "features/definitions.py"
    text = definitions.read_text()
    client = int(pq.read_table(big_shop.root / "payments.parquet")["client"][0].as_py())
    with FeatureStore(big_shop.root) as store:
        before = store.online("scoring", [{"client": client}])
        definitions.write_text(text.replace('over="30d"', 'over="29d"'))
        big_shop.run("apply")
        assert store.online("scoring", [{"client": client}]) == before
        with FeatureStore(big_shop.root) as fresh, pytest.raises(ViewNotComputed, match="'spend'"):
            fresh.online("scoring", [{"client": client}])
        big_shop.run("etl", "run", "spend")
        (after,) = store.online("scoring", [{"client": client}])
        assert after is not None
        assert "amount_sum_29d" in after
    definitions.write_text(text)
    big_shop.run("apply")
