"""What a model asks of its releases: `[release]` and `[[invariants]]` of `model.toml`."""

from itertools import pairwise
from typing import Annotated, Literal

from msgspec import Meta, Struct

# From 0 to 1. Requests are shared out in thousandths: less than one of them would be nothing.
Part = Annotated[float, Meta(ge=0, le=1)]
Share = Annotated[float, Meta(ge=0.001, le=1)]
Rows = Annotated[int, Meta(ge=1)]
# A stage that watches production looks at the newest rows only, so many of them.
MOST_WATCHED_ROWS = 10_000
WatchedRows = Annotated[int, Meta(ge=1, le=MOST_WATCHED_ROWS)]
Seconds = Annotated[float, Meta(ge=0)]


class _Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Invariant(_Section, frozen=True):
    """What must hold for every input.

    `kind` "increasing" or "decreasing": the output never goes the other way when `feature` grows
    and nothing else changes. "range": the output lies in `minimum` to `maximum`. "sum-to-one": the
    outputs are a distribution. `output` is needed where there are several; `tolerance` is what may
    be missing.
    """

    kind: Literal["increasing", "decreasing", "range", "sum-to-one"]
    feature: str | None = None
    output: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    tolerance: float = 1e-9


class Replay(_Section, frozen=True):
    """Recorded requests of production, asked of the candidate on test.

    `most_slow` is what the share of answers slower than the objective's p99 may be more by, and
    `most_shift` how far apart the distributions of the answers may be (0 to 1).
    """

    rows: Rows = 200
    most_failures: Part = 0.0
    most_slow: Part = 0.01
    most_shift: Part = 0.25


class Shadow(_Section, frozen=True):
    """Mirrored requests of production: `share` of them (0 to 1), until `rows` were compared.

    Fewer than that `within_s` is a failure.
    """

    share: Share = 0.1
    rows: WatchedRows = 200
    within_s: Seconds = 86_400.0
    most_failures: Part = 0.01
    most_slow: Part = 0.01
    most_shift: Part = 0.25


class Canary(_Section, frozen=True):
    """The candidate answers for `weights` of the requests (0 to 1), one after another.

    Each is held for `hold_s` and until the candidate answered `rows`. Production promotes it when
    the last has passed, and rolls it back at once when one does not.
    """

    weights: Annotated[tuple[Share, ...], Meta(min_length=1)] = (0.05, 0.25)
    hold_s: Seconds = 600.0
    rows: WatchedRows = 100
    within_s: Seconds = 86_400.0
    most_failures: Part = 0.01
    most_slow: Part = 0.01
    most_shift: Part = 0.25

    def __post_init__(self) -> None:
        if any(before >= after for before, after in pairwise(self.weights)):
            message = "the weights of a canary must grow"
            raise ValueError(message)


class ReleasePolicy(_Section, frozen=True):
    """The stages that a model asks for, and how far an answer may be from the recorded one.

    `tolerance` is of a share beyond 1, and absolute below: libraries that count in float32, such
    as XGBoost, differ by less than one in a million.
    """

    tolerance: Annotated[float, Meta(ge=0)] = 1e-6
    replay: Replay | None = None
    shadow: Shadow | None = None
    canary: Canary | None = None
