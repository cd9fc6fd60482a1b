"""What rows of production's prediction log say of the releases at one URL."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from konveyer.bundle.store import Bundles
from konveyer.execution.releases.beside import Seen, shared_names
from konveyer.execution.releases.gates.answers import distance
from konveyer.execution.serving.errors import EntityNotFound, Overloaded

Row = dict[str, Any]
# The names of the outputs of a bundle, by its digest.
NamesOf = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """An application's version."""

    application: str
    api_version: int


def names_in(bundles: Bundles) -> NamesOf:
    """Each bundle is opened once."""
    return cache(lambda digest: [one.name for one in bundles.open(digest).manifest.model.outputs])


def with_names(rows: Iterable[Row], names_of: NamesOf) -> list[Row]:
    """The rows with their outputs by name: bundles may have more, or have them in another order."""
    return [
        row
        if row["outputs"] is None
        else row | {"outputs": dict(zip(names_of(row["bundle"]), row["outputs"], strict=True))}
        for row in rows
    ]


def seen(
    rows: Iterable[Row], *, knows_as_live: bool = False, has_own_entities: bool = False
) -> Seen:
    """The rows as a side that is judged: what callers did wrong is nobody's failure. That more
    wait for a side than may is its own: it is too slow.

    Of a candidate that is to know what the live version knows (`knows_as_live`), an unknown entity
    is one: neither a canary's rows nor `paired` ones have those that the live one does not know.

    Where each side `has_own_entities`, of an entity that is asked the same again and again the
    newest answer stands for all: it was drawn once, and how often it is asked is not its answer.
    """
    counted = [
        row
        for row in rows
        if not 400 <= row["status"] < 500
        or row["error"] == Overloaded.code
        or (knows_as_live and _is_unknown(row))
    ]
    answered = [row for row in counted if row["outputs"] is not None]
    if has_own_entities:
        answered = [*{_asked(place, row): row for place, row in enumerate(answered)}.values()]
    return Seen(
        failed=[row["status"] >= 400 for row in counted],
        took_ms=[row["latency_us"] / 1000 for row in counted],
        outputs=[row["outputs"] for row in answered],
    )


def _asked(place: int, row: Row) -> object:
    """What tells a question from others; without keys it is one of its own."""
    return place if row["keys"] is None else repr((row["keys"], row["request"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Rows that both the live version and the candidate were asked, in the same order."""

    live: Sequence[Row]
    candidate: Sequence[Row]

    @property
    def distances(self) -> list[float]:
        """Between the two answers of each row that both answered."""
        return [_apart(pair) for pair in self._answered]

    def worst(self, most: int) -> list[dict[str, Any]]:
        """The rows whose answers are furthest apart, with both."""
        ranked = sorted(self._answered, key=lambda pair: -_apart(pair))[:most]
        return [
            {"keys": a["keys"], "request": a["request"], "live": a["outputs"], "this": b["outputs"]}
            for a, b in ranked
        ]

    @property
    def _answered(self) -> list[tuple[Row, Row]]:
        both = zip(self.live, self.candidate, strict=True)
        return [(a, b) for a, b in both if a["outputs"] is not None and b["outputs"] is not None]


def paired(rows: Sequence[Row], release: str) -> Pairs:
    """The answers of production and of the shadow `release` to the same rows of a request.

    Without those of entities that neither knows: there is nothing to compare.
    """
    shadows = _told_apart(row for row in rows if row["release"] == release)
    lives = _told_apart(row for row in rows if row["side"] != "shadow")
    both = [
        one
        for one, row in shadows.items()
        if one in lives and not (_is_unknown(row) and _is_unknown(lives[one]))
    ]
    return Pairs(live=[lives[one] for one in both], candidate=[shadows[one] for one in both])


def _is_unknown(row: Row) -> bool:
    return bool(row["error"] == EntityNotFound.code)


def _told_apart(rows: Iterable[Row]) -> dict[tuple[str, str, int], Row]:
    """Each row by its request, what was asked, and how many more were asked the same after it.

    Rows by values alone ask the same all of them. A request's rows are logged in their order, and
    where more are logged than are looked at, the oldest are left out.
    """
    found: dict[tuple[str, str, int], Row] = {}
    after: Counter[tuple[str, str, str]] = Counter()
    for row in reversed([*rows]):
        request, asked = row["request_id"], repr((row["keys"], row["request"]))
        found[request, asked, after[row["release"], request, asked]] = row
        after[row["release"], request, asked] += 1
    return dict(reversed(found.items()))


def _apart(pair: tuple[Row, Row]) -> float:
    live, candidate = (row["outputs"] for row in pair)
    names = shared_names([candidate, live])
    return distance(_values(live, names), _values(candidate, names))


def _values(outputs: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    return [outputs[name] for name in names]
