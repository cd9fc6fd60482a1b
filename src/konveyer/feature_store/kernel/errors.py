"""What can go wrong while features are computed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus

from konveyer.core.errors import KonveyerError


class NumberOverflow(KonveyerError):
    """A whole number that 64 bits cannot hold, or a decimal of too many digits."""

    code = "number_overflow"

    def __init__(self, what: str, room: str = "64 bits") -> None:
        super().__init__(
            f"{what} does not fit into {room}.", hint="cast the column to DOUBLE in the source"
        )


class OnDemandFailed(KonveyerError):
    """The function of an on-demand view raised, or returned what it should not."""

    code, status = "on_demand_failed", HTTPStatus.INTERNAL_SERVER_ERROR


@contextmanager
def naming_view(view: str) -> Iterator[None]:
    """Errors of the block say which view they are about."""
    try:
        yield
    except KonveyerError as error:
        where = f"Feature view '{view}'"
        if where not in error.message:
            error.message = f"{where}: {error.message}"
        raise


@contextmanager
def naming_views(views: Sequence[str]) -> Iterator[None]:
    """Errors of the block that name none of the `views` say which they are about."""
    try:
        yield
    except KonveyerError as error:
        if views and not any(f"'{view}'" in error.message for view in views):
            listed = ", ".join(f"'{view}'" for view in views)
            error.message = f"Feature view{'s' if len(views) > 1 else ''} {listed}: {error.message}"
        raise
