"""Names of definitions and features: they become columns, paths and URLs."""

import re
from collections import Counter
from collections.abc import Iterable

from konveyer.feature_store.definitions.errors import BadDefinition

RESERVED = ("bucket", "event_time", "created_time")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


def check_name(kind: str, name: str) -> None:
    """A lower-case letter, then letters, digits and underscores; at most 63."""
    if not _NAME.fullmatch(name):
        raise BadDefinition(
            f"{kind} name '{name}' cannot be used.",
            hint="use lower-case letters, digits and '_', a letter first, 63 at most",
        )


def check_column(kind: str, name: str) -> None:
    """A name that becomes a column of an offline table, beside those that every table has."""
    check_name(kind, name)
    if name in RESERVED:
        raise BadDefinition(
            f"{kind} name '{name}' cannot be used: every table has a column of that name.",
            hint="choose another",
        )


def check_unique(where: str, names: Iterable[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise BadDefinition(f"{where} has '{twice[0]}' more than once.", hint="rename one of them")
