"""What the address of a request may hold."""

from http import HTTPStatus

from konveyer.core.errors import KonveyerError


class BadRequest(KonveyerError):
    """A request that does not have the form that is taken."""

    code, status = "bad_request", HTTPStatus.UNPROCESSABLE_ENTITY


def check_address(path: str, query: str) -> None:
    """Raise for a NUL in a decoded `path` or in a `query` as it was sent: no name has one, and
    PostgreSQL takes no text with it.

    >>> check_address("/releases/a%00b", "text=%2500")
    """
    if "\0" in path or "%00" in query:
        raise BadRequest(
            "The address has a NUL (%00).", hint="leave it out; names and texts have none"
        )
