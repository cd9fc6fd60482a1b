"""Upkeep through the commands, beside a release that is on its way."""

from pathlib import Path

import pytest

from tests.support import Shop

pytestmark = pytest.mark.slow


def test_vacuum_leaves_what_a_release_and_its_training_set_need(shop: Shop) -> None:
    shop.run("submit", "models/coupon_response", profile="ana")
    (kept,) = shop.run("training-set", "list")
    assert "review" in kept["used_by"][0]
    refused = shop.error("training-set", "remove", kept["id"], profile="ana")
    assert refused["code"] == "training_set_in_use"
    for _ in range(2):
        shop.run("etl", "run", "demographics")
    assert not any(one["files"] for one in shop.run("etl", "vacuum")["tables"])

    planned = shop.run("etl", "vacuum", "demographics", "--keep", "0", "--dry-run")
    done = shop.run("etl", "vacuum", "demographics", "--keep", "0")

    assert done["tables"] == planned["tables"]
    (table,) = done["tables"]
    assert [one["table_version"] for one in table["kept"]] == [0, 2]
    assert "release" in table["kept"][0]["reason"]
    assert len(table["files"]) == 1
    again = shop.run("training-set", "rebuild", kept["id"], profile="ana")
    assert again["rows"] == kept["rows"]
    assert shop.error("etl", "vacuum", "demographic")["code"] == "feature_view_not_found"
    by_analyst = shop.error("etl", "vacuum", profile="eva")
    assert by_analyst["code"] == "not_allowed"


def test_a_household_is_forgotten(shop: Shop) -> None:
    (kept,) = shop.run("training-set", "list")
    him = ("features", "forget", "household", "household_id=1")
    planned = shop.run(*him, "--dry-run")
    assert planned["held"]["tables"]
    assert planned["held"]["training_sets"][0]["rows"] > 0
    assert shop.error(*him, profile="ana")["code"] == "not_allowed"

    shop.run("etl", "run", "demographics")
    shop.run(*him)
    held = shop.run(*him, "--everywhere")["held"]
    assert {Path(file["path"]).suffix for file in held["old_files"]} == {".parquet"}

    left = shop.run(*him, "--dry-run")["held"]
    assert [left[name] for name in ("tables", "spaces", "old_files", "training_sets")] == [[]] * 4
    shop.run("etl", "run", "demographics")
    assert shop.run(*him, "--dry-run")["held"]["tables"] == []
    error = shop.error("training-set", "rebuild", kept["id"], profile="ana")
    assert error["code"] == "training_set_not_rebuildable"
