"""Charts as SVG that needs no script."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from markupsafe import Markup, escape

from konveyer.core.schema import ColumnType
from konveyer.core.wording import when

_WIDTH, _HEIGHT = 240, 56


def histogram(profile: Mapping[str, Any], dtype: str) -> Markup:
    """The counts of a profile as bars; each bar's title says its range and count.

    >>> "<svg" in histogram({"edges": [0.0, 1.0, 2.0], "counts": [3, 1]}, "float64")
    True
    """
    counts = profile["counts"]
    if not counts:
        return Markup('<span class="quiet">no values</span>')
    width, highest = _WIDTH / len(counts), max(counts) or 1
    bars = Markup().join(
        _bar(place * width, width, count / highest, title, count)
        for place, (count, title) in enumerate(zip(counts, _titles(profile, dtype), strict=True))
    )
    return Markup(
        '<svg class="histogram" viewBox="0 0 {} {}" role="img" aria-label="Histogram">{}</svg>'
    ).format(_WIDTH, _HEIGHT, bars)


def _bar(left: float, width: float, share: float, title: str, count: int) -> Markup:
    height = max(share * _HEIGHT, 1 if count else 0)
    return Markup(
        '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}: {}</title></rect>'
    ).format(left + 0.5, _HEIGHT - height, width - 1, height, escape(title), count)


def _titles(profile: Mapping[str, Any], dtype: str) -> list[str]:
    if "labels" in profile:
        return list(profile["labels"])
    if dtype == ColumnType.TIMESTAMP:
        return [
            f"{when(int(low))} to {when(int(high))}" for low, high in pairwise(profile["edges"])
        ]
    unit = " items" if dtype.startswith("list<") else ""
    return [f"{low:.4g} to {high:.4g}{unit}" for low, high in pairwise(profile["edges"])]
