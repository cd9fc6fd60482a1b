"""A time in which the catalog cannot be used: work that outlives it, and words for people."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from sqlalchemy.exc import OperationalError

from konveyer.catalog.session import Catalog, CatalogUnavailable
from konveyer.core import errors

T = TypeVar("T")
_LOOK_EVERY_S = 1.0
_log = logging.getLogger(__name__)


def lasting(catalog: Catalog, work: Callable[[], T], *, tries: int | None = None) -> T:
    """What `work` gives. When the catalog could not be used it starts over, as after a kill, once
    that is back, however long it takes.

    After so many `tries` (None: never) the error is raised: it may be one of `work` itself.
    """
    tried = 0
    while True:
        try:
            return work()
        except OperationalError as error:
            tried += 1
            if tried == tries or _is_defect(error):
                raise
            _log.warning("waiting for the catalog: %s", error.orig)
        _wait_for(catalog)


def explained(error: Exception) -> errors.KonveyerError:
    """Like `core.errors.explained`; it knows a database that cannot be used, too.

    >>> explained(OperationalError("BEGIN", {}, Exception("connection refused"))).code
    'catalog_unavailable'
    """
    known = errors.explained(error)
    if not isinstance(error, OperationalError) or _is_defect(error):
        return known
    if not isinstance(known, errors.InternalError):  # a full disk has words of its own
        return known
    # The driver's words alone: what is around them has the statement and its values.
    reason = str(error.orig).strip().splitlines()
    return CatalogUnavailable(
        "A database of the workspace cannot be used: "
        f"{reason[0] if reason else type(error.orig).__name__}",
        hint="see that it is up, or that its disk works, and that the urls of [catalog] and "
        "[pipelines] in konveyer.toml are right; then try again",
    )


def _wait_for(catalog: Catalog) -> None:
    while True:
        time.sleep(_LOOK_EVERY_S)
        with suppress(OperationalError), catalog.transaction() as session:
            session.connection()
            return


def _is_defect(error: OperationalError) -> bool:
    """SQLite says of a table that is not there what PostgreSQL says of a server that is not."""
    return getattr(error.orig, "sqlite_errorname", None) == "SQLITE_ERROR"
