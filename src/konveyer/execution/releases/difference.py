"""What a release changes, for its reviewer: code, features, parameters, metrics, environment."""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from konveyer.bundle.manifest import LOCK, Manifest
from konveyer.core.digest import digest_bytes, short

_PINNED = re.compile(r"([A-Za-z0-9._-]+(?:\[[^\]]*\])?)==([^ ;]+)")
_COMMENT = re.compile(r"(^|[ \t])#[^\n]*", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A value before and after; None where it is not there."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextChange:
    """A file or a definition that is not the same, as a unified diff."""

    name: str
    diff: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What is compared: a manifest, its code, its lock, and its views' definitions.

    `code` are the texts of its files; of what is not shown `others` say the size and the digest.
    """

    manifest: Manifest
    code: Mapping[str, str]
    others: Mapping[str, str]
    lock: str
    definitions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Only what differs, but every metric. `against` is None when nothing was served before."""

    release: str
    against: str | None
    code: list[TextChange]
    features: list[Change]
    definitions: list[TextChange]
    contract: list[Change]
    parameters: list[Change]
    metrics: list[Change]
    environment: list[Change]


def difference(
    release: str, after: Packed, against: str | None, before: Packed | None
) -> Difference:
    """What `after` has that `before` has not, and the other way round."""

    def changes(read: Callable[[Packed], Mapping[str, str]], *, same: bool = False) -> list[Change]:
        return _changes({} if before is None else read(before), read(after), keep_same=same)

    def texts(read: Callable[[Packed], Mapping[str, str]]) -> list[TextChange]:
        return _texts({} if before is None else read(before), read(after))

    return Difference(
        release=release,
        against=against,
        code=[*texts(lambda packed: packed.code), *texts(lambda packed: packed.others)],
        features=changes(lambda packed: _features(packed.manifest)),
        definitions=texts(lambda packed: packed.definitions),
        contract=changes(lambda packed: _contract(packed.manifest)),
        parameters=changes(lambda packed: _flat(packed.manifest.parameters)),
        metrics=changes(lambda packed: _metrics(packed.manifest), same=True),
        environment=_environment(None if before is None else before.lock, after.lock),
    )


def _environment(before: str | None, after: str) -> list[Change]:
    """Packages in other versions, or in the same of other files; else that the lock differs."""
    if before == after:
        return []
    old, new = _packages(before or ""), _packages(after)
    same = {name for name, (version, _) in new.items() if old.get(name, ("",))[0] == version}

    def told(packages: Mapping[str, tuple[str, str]]) -> dict[str, str]:
        return {
            name: f"{version}, files {files}" if name in same else version
            for name, (version, files) in packages.items()
        }

    changes = _changes(told(old), told(new))
    return changes or _changes({LOCK: _named_by(before or "")}, {LOCK: _named_by(after)})


def _packages(lock: str) -> dict[str, tuple[str, str]]:
    """What a lock installs: of each package the version, and a name for the files that it may be.

    What pins no version is told as it stands.

    >>> _packages("numpy==2.2.1 --hash=sha256:aa  # via model")
    {'numpy': ('2.2.1', 'f70b9367ab6e')}
    """
    found: dict[str, tuple[str, str]] = {}
    for line in _COMMENT.sub("", lock).replace("\\\n", " ").split("\n"):
        said = " ".join(line.split())
        match = _PINNED.match(said)
        # A package may stand there for each of several platforms: one of them goes by its name.
        if match is not None and match[1].lower() not in found:
            found[match[1].lower()] = match[2], _named_by(said)
        elif said:
            found[said] = "yes", ""
    return found


def _named_by(text: str) -> str:
    return short(digest_bytes(text.encode()))


def _changes(
    before: Mapping[str, str], after: Mapping[str, str], *, keep_same: bool = False
) -> list[Change]:
    names = [*after, *(name for name in before if name not in after)]
    return [
        Change(name=_visible(name), before=_shown(before.get(name)), after=_shown(after.get(name)))
        for name in names
        if keep_same or before.get(name) != after.get(name)
    ]


def _texts(before: Mapping[str, str], after: Mapping[str, str]) -> list[TextChange]:
    return [
        TextChange(name=_visible(name), diff=_diff(name, before.get(name), after.get(name)))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _diff(name: str, before: str | None, after: str | None) -> str:
    """Whatever differs is in it, also a line break at the end and an empty file.

    Lines end at `\\n` alone: code behind another separator would be taken for a line of its own,
    where Python reads on in a comment. Only `\\r`, which is escaped, ends a line in Python too.
    """
    end = "\n" if all(text is None or text.endswith("\n") for text in (before, after)) else ""
    lines = difflib.unified_diff(
        [] if before is None else before.removesuffix(end).split("\n"),
        [] if after is None else after.removesuffix(end).split("\n"),
        "/dev/null" if before is None else name,
        "/dev/null" if after is None else name,
        lineterm="",
    )
    return "\n".join(_visible(line) for line in lines)


def _shown(value: str | None) -> str | None:
    return None if value is None else _visible(value)


def _visible(text: str) -> str:
    """Escaped where a character is not seen or changes how others are shown.

    >>> _visible("a\\u2028b\\u202ec\\r")
    'a\\\\u2028b\\\\u202ec\\\\r'
    """
    if text.isprintable():
        return text
    return "".join(
        one if one == "\t" or one.isprintable() else one.encode("unicode_escape").decode()
        for one in text
    )


def _features(manifest: Manifest) -> dict[str, str]:
    service = manifest.service
    versions = {view.name: view.version for view in service.views}
    versions |= {view.name: view.version for view in service.on_demand}
    return {
        feature.name: f"{feature.view}:{feature.feature} {feature.dtype}, "
        f"version {versions.get(feature.view, '?')}"
        for feature in service.features
    }


def _contract(manifest: Manifest) -> dict[str, str]:
    service, serving = manifest.service, manifest.serving
    inputs = {f"input {column.name}": str(column.dtype) for column in service.keys}
    fields = {f"input {field.name}": f"{field.dtype}, or null" for field in service.request}
    outputs = {f"output {one.name}": str(one.dtype) for one in manifest.model.outputs}
    given = {f"may be given {name}": "yes" for name in serving.given}
    objective = manifest.objective
    promise = f"{objective.rate_per_s:g} requests/s, p99 {objective.p99_ms:g} ms"
    model = manifest.model.form + (f": {manifest.model.reason}" if manifest.model.reason else "")
    fallbacks = {f"fallback {name}": str(value) for name, value in serving.fallbacks.items()}
    rules = {f"invariant {n}": _named(one) for n, one in enumerate(manifest.invariants, 1)}
    return {
        **inputs,
        **fields,
        **given,
        **outputs,
        "objective": promise,
        "model form": model,
        "deadline": f"{serving.deadline_ms:g} ms",
        **fallbacks,
        "release policy": _named(manifest.release),
        **rules,
    }


def _named(value: object) -> str:
    """A struct as people read it: what is set, without braces."""
    plain = msgspec.to_builtins(value)
    return ", ".join(f"{name} {_text(one)}" for name, one in plain.items() if one is not None)


def _metrics(manifest: Manifest) -> dict[str, str]:
    return {name: f"{value:.6g}" for name, value in manifest.metrics.items()}


def _flat(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: _text(value) for name, value in values.items()}


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
