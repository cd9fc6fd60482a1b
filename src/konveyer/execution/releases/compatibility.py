"""Whether callers of an API version can stay as they are when another bundle answers."""

from collections.abc import Iterable

from konveyer.bundle.manifest import Manifest
from konveyer.core.schema import Column, ScalarColumn


def breaking_changes(live: Manifest, candidate: Manifest) -> list[str]:
    """What a caller of the live contract would stumble over, in words; nothing when all is well.

    Every field of a request is required, so one more is a break as much as one less. An output more
    is none, unless it is the second: one output is answered as a value, several by their names.
    """
    before, after = _inputs(live), _inputs(candidate)
    found = _moved("input", before, after)
    for name in [name for name in after if name not in before and name not in _renamed(found)]:
        found.append(f"input '{name}' ({after[name]}) must now be sent")
    outputs, now = _named(live.model.outputs), _named(candidate.model.outputs)
    if (len(outputs) == 1) != (len(now) == 1):
        found.append(
            f"the answer has {len(now)} outputs instead of {len(outputs)}: it has another form"
        )
    else:
        found += _moved("output", outputs, now)
    found += _given_moved(live, candidate)
    return found


def _given_moved(live: Manifest, candidate: Manifest) -> list[str]:
    """Values of features that callers send: gone, of another type, or not enough without keys."""
    before, after = _named(live.service.columns), _named(candidate.service.columns)
    found = []
    for name in live.serving.given:
        if name not in candidate.serving.given:
            found.append(f"values of the feature '{name}' can no longer be given")
        elif after[name] != before[name]:
            found.append(
                f"the feature '{name}' is given as {after[name]} instead of {before[name]}"
            )
    # Who sends a value for every feature may leave the keys out.
    if set(before) <= set(live.serving.given):
        found += [
            f"without keys the feature '{name}' must now be given too"
            for name in after
            if name not in before
        ]
    return found


def _inputs(manifest: Manifest) -> dict[str, str]:
    return _named((*manifest.service.keys, *manifest.service.request))


def _named(columns: Iterable[Column | ScalarColumn]) -> dict[str, str]:
    return {column.name: str(column.dtype) for column in columns}


def _moved(kind: str, before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What is gone (perhaps under a new name) or has another type."""
    new = [name for name in after if name not in before]
    found = []
    for name, dtype in before.items():
        if name in after and after[name] != dtype:
            found.append(f"{kind} '{name}' is {after[name]} instead of {dtype}")
        elif name not in after:
            alike = [one for one in new if after[one] == dtype]
            gone = [one for one, was in before.items() if one not in after and was == dtype]
            is_renamed = len(alike) == len(gone) == 1
            found.append(
                f"{kind} '{name}' is now called '{alike[0]}'"
                if is_renamed
                else f"{kind} '{name}' is gone"
            )
    return found


def _renamed(changes: list[str]) -> set[str]:
    """The new names that `_moved` told of."""
    return {change.split("'")[3] for change in changes if "is now called" in change}
