"""Backends are found by scheme, and a URL that may hold a password is never shown."""

from pathlib import Path

import pytest

from konveyer.core.plugins import BackendNotInstalled, UnknownScheme, backend_for, path_of
from konveyer.wiring import ONLINE_STORES


def test_an_unknown_scheme_is_told_without_the_rest_of_the_url() -> None:
    with pytest.raises(UnknownScheme) as caught:
        backend_for("redsi://ana:SECRET@host", ONLINE_STORES, setting="online")
    assert "redsi:" in str(caught.value)
    assert "lmdb, redis, rediss" in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_backend_whose_driver_is_missing_is_told_as_such() -> None:
    table = {"demo": "no_such_driver.store:Store"}
    with pytest.raises(BackendNotInstalled, match="needs the package 'no_such_driver'") as caught:
        backend_for("demo:x", table, setting="online")
    assert caught.value.hint


def test_a_module_of_ours_that_is_missing_is_a_bug_and_not_a_missing_extra() -> None:
    with pytest.raises(ModuleNotFoundError):
        backend_for("demo:x", {"demo": "konveyer.no_such_module:Store"}, setting="online")


def test_a_local_url_takes_a_path_and_no_bucket(tmp_path: Path) -> None:
    assert path_of("delta:offline", tmp_path) == tmp_path / "offline"
    assert path_of("file:///srv/bundles", tmp_path) == Path("/srv/bundles")
    with pytest.raises(UnknownScheme, match="'delta:' takes a path of this machine") as caught:
        path_of("delta:s3://key:secret@bucket/scores", tmp_path)
    assert "secret" not in f"{caught.value} {caught.value.hint}"
