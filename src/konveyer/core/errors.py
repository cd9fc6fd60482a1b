"""The one error type that reaches people: what happened, where, and the next step."""

import errno
import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from http import HTTPStatus
from typing import ClassVar


class KonveyerError(Exception):
    """An error for a person: a message, a stable `code`, and a hint with the next step.

    Subclasses set `code` (never changed once released: scripts match on it) and `status`, the
    HTTP status that the API and the serving node answer with.

    >>> class FileMissing(KonveyerError):
    ...     code, status = "file_missing", HTTPStatus.NOT_FOUND
    >>> error = FileMissing("data/baskets.parquet does not exist.", hint="Check the source's path.")
    >>> error.as_dict()["code"]
    'file_missing'
    >>> print(error)
    data/baskets.parquet does not exist. Hint: Check the source's path.
    """

    code: ClassVar[str] = "konveyer_error"
    status: ClassVar[HTTPStatus] = HTTPStatus.BAD_REQUEST

    def __init__(
        self, message: str, *, hint: str | None = None, detail: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail: Mapping[str, object] = detail or {}

    def __str__(self) -> str:
        return f"{self.message} Hint: {self.hint}" if self.hint else self.message

    def as_dict(self) -> dict[str, object]:
        """The JSON form used by `--json`, the API and the serving node."""
        answer: dict[str, object] = {"code": self.code, "message": self.message}
        if self.hint:
            answer["hint"] = self.hint
        if self.detail:
            answer["detail"] = dict(self.detail)
        return answer


class InternalError(KonveyerError):
    """What nobody foresaw; its cause is in the log, or shown with `KONVEYER_TRACEBACK=1`."""

    code, status = "internal_error", HTTPStatus.INTERNAL_SERVER_ERROR


class DiskFull(KonveyerError):
    """Something could not be written; what was there before is as it was."""

    code, status = "disk_full", HTTPStatus.INSUFFICIENT_STORAGE


def explained(error: Exception) -> KonveyerError:
    """What people are told of an error that nobody caught; one that is ours speaks for itself.

    >>> explained(OSError(errno.ENOSPC, "No space left on device")).code
    'disk_full'
    """
    if isinstance(error, KonveyerError):
        return error
    first = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {first[0]}" if first else type(error).__name__
    if is_of_full_disk(error):
        return DiskFull(
            f"A disk is full, of the workspace or of a database: {what}",
            hint="make room, then run it again; nothing is half-written",
        )
    return InternalError(
        what, hint="run it again with KONVEYER_TRACEBACK=1 to see where, and report it"
    )


def is_of_full_disk(error: Exception) -> bool:
    """Whether a library's error says that there was no room to write."""
    return any(text in str(error) for text in _OF_FULL_DISKS)


# As the operating system says it (and PostgreSQL, and Arrow), and SQLite.
_OF_FULL_DISKS = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "database or disk is full")


class NotFound(KonveyerError):
    """Base of every "no such thing" error."""

    code, status = "not_found", HTTPStatus.NOT_FOUND


class Conflict(KonveyerError):
    """Base of every "not in this state" error."""

    code, status = "conflict", HTTPStatus.CONFLICT


class Forbidden(KonveyerError):
    """Base of every "you may not" error."""

    code, status = "forbidden", HTTPStatus.FORBIDDEN


# Comparing takes longer the longer a name is, and a caller's may be a million characters.
_MOST_COMPARED = 100


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str | None = None) -> str | None:
    """A hint naming the nearest of `known`, or `otherwise` when nothing is near.

    >>> did_you_mean("card_spendd", ["card_spend", "clients"])
    "did you mean 'card_spend'?"
    >>> did_you_mean("zzz", ["card_spend"]) is None
    True
    """
    near = get_close_matches(name[:_MOST_COMPARED], list(known), n=1)
    return f"did you mean '{near[0]}'?" if near else otherwise
