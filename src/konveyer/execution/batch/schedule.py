"""Batch scoring that starts by itself: each live model once in each period of its `[batch]`."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec
from sqlalchemy.orm import Session

from konveyer.bundle.store import BundleStore
from konveyer.catalog.session import Catalog
from konveyer.core.errors import KonveyerError
from konveyer.execution.batch.order import NAME, BatchOrder, period_at
from konveyer.execution.batch.plan import order_of
from konveyer.execution.batch.runs import last_scored_us
from konveyer.execution.releases.records import LiveVersion, settled_versions
from konveyer.feature_store.definitions.duration import duration_us, parse_duration
from konveyer.pipeline.flow import Run
from konveyer.pipeline.schedule import SCHEDULE, is_due, next_us, period_name, period_us

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledModel:
    """A live model, how often it scores by itself (None: never), and what was and comes next.

    `error` says why that cannot be told.
    """

    live: LiveVersion
    every: str | None
    last_us: int | None
    next_us: int | None
    error: str = ""


def scheduled_models(
    session: Session, bundles: BundleStore, environment: str, now_us: int
) -> list[ScheduledModel]:
    """All models that are live in the environment, by name.

    One whose bundle cannot be opened hides no other.
    """
    found = []
    for live in settled_versions(session, environment):
        last_us = last_scored_us(session, live.application, live.api_version, now_us)
        model = ScheduledModel(live=live, every=None, last_us=last_us, next_us=None)
        try:
            batch = bundles.open(live.digest).manifest.batch
        except KonveyerError as error:
            model = replace(model, error=error.message)
        else:
            if batch is not None:
                following = next_us(every_us(batch.every), last_us, now_us)
                model = replace(model, every=batch.every, next_us=following)
        found.append(model)
    return found


class DueBatches:
    """The runs of models that are due: a `konveyer.pipeline.schedule.Due`.

    A model that is being scored is left out. Each bundle is opened once. A period that was asked
    for by a person counts, also one that failed; those that were missed are not made up for. The
    rows of a table are no period, and what was scored ahead of time holds up nothing.
    """

    def __init__(
        self, catalog: Catalog, bundles: BundleStore, environment: str, now_us: Callable[[], int]
    ) -> None:
        self._catalog, self._bundles = catalog, bundles
        self._environment, self._now_us = environment, now_us
        self._every: dict[str, str | None] = {}

    def __call__(self, under_way: Sequence[Run]) -> list[Run]:
        now_us = self._now_us()
        orders = (msgspec.convert(r.payload, BatchOrder) for r in under_way if r.flow == NAME)
        busy = {order.model for order in orders}
        with self._catalog.reading() as session:
            runs = [
                self._run(session, live, now_us)
                for live in settled_versions(session, self._environment)
                if f"{live.application}/v{live.api_version}" not in busy
            ]
        return [run for run in runs if run is not None]

    def _run(self, session: Session, live: LiveVersion, now_us: int) -> Run | None:
        every = self._every_of(live)
        if every is None:
            return None
        last_us = last_scored_us(session, live.application, live.api_version, now_us)
        if not is_due(every_us(every), last_us, now_us):
            return None
        name = period_name(every_us(every), now_us)
        order = order_of(
            live,
            person=SCHEDULE,
            run_id=f"{NAME}-{live.application}-v{live.api_version}-{name}",
            periods=(period_at(period_us(every_us(every), now_us)),),
        )
        return order.run

    def _every_of(self, live: LiveVersion) -> str | None:
        """A model whose bundle cannot be opened must not keep the others from being scored."""
        if live.digest not in self._every:
            try:
                batch = self._bundles.open(live.digest).manifest.batch
            except KonveyerError as error:
                _log.error("what is due of %s cannot be told: %s", live.application, error)
                return None
            self._every[live.digest] = None if batch is None else batch.every
        return self._every[live.digest]


def every_us(every: str) -> int:
    return duration_us(parse_duration(every, where="[batch] every"))
