"""Backends are found by scheme, and a URL that may hold a password is never shown."""

import pytest

from konveyer.core.plugins import BackendNotInstalled, UnknownScheme, backend_for
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
