"""ETL that starts by itself: each view once in each period of its `refresh`."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import msgspec
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from konveyer.catalog.session import Catalog
from konveyer.feature_store.definitions.definition import Kind
from konveyer.feature_store.definitions.duration import duration_us, format_duration
from konveyer.feature_store.etl import flow
from konveyer.feature_store.etl.flow import EtlPayload, PlannedView
from konveyer.feature_store.etl.landing import Held
from konveyer.feature_store.etl.runs import (
    FAILED,
    SUCCEEDED,
    EtlRun,
    list_runs,
    running_views,
    times_withdrawn,
)
from konveyer.feature_store.etl.tables import EtlRunRow
from konveyer.feature_store.registry.lookup import active_versions, state_at
from konveyer.pipeline.flow import Run
from konveyer.pipeline.schedule import SCHEDULE, is_due, next_us, period_name

Version = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledView:
    """A version of a view with its last run, and from when on the next one is due."""

    view: str
    version: str
    refresh: str
    last: EtlRun | None
    next_us: int


def scheduled_views(session: Session, held: Held, now_us: int) -> list[ScheduledView]:
    """All that is computed by itself, the next one first. `held` are versions that are served."""
    found = []
    for view, version in _wanted(session, held):
        refresh = _refresh(session, view, version)
        last_us = _last_us(session, view, version, now_us)
        runs = list_runs(session, view=view, version=version, limit=1)
        found.append(
            ScheduledView(
                view=view,
                version=version,
                refresh=format_duration(refresh),
                last=runs[0] if runs else None,
                next_us=next_us(duration_us(refresh), last_us, now_us),
            )
        )
    return sorted(found, key=lambda one: (one.next_us, one.view, one.version))


class DueViews:
    """The runs of views that are due: a `konveyer.pipeline.schedule.Due`.

    A view that is being computed, or is going to be by a run that has not ended, is left out. A run
    that the schedule started counts for its period even when it failed; one of a person that failed
    does not. It remembers until when nothing can be due, so that asking often is cheap.
    """

    def __init__(self, catalog: Catalog, held: Held, now_us: Callable[[], int]) -> None:
        self._catalog, self._held, self._now_us = catalog, held, now_us
        self._every_us: dict[Version, int] = {}
        self._rests_until_us: dict[Version, int] = {}
        self._lock = threading.Lock()

    def __call__(self, under_way: Sequence[Run]) -> list[Run]:
        now_us = self._now_us()
        with self._lock, self._catalog.reading() as session:
            wanted = _wanted(session, self._held)
            awake = [key for key in wanted if self._rests_until_us.get(key, now_us) <= now_us]
            due = [key for key in awake if self._is_due(session, key, now_us)]
            # What nobody wants any more may be removed, and is due at once when it comes back.
            rests = self._rests_until_us
            self._rests_until_us = {key: rests[key] for key in wanted}
            busy = _busy(session, under_way) if due else set()
            return [
                _run(session, *key, self._every_us[key], now_us) for key in due if key not in busy
            ]

    def _is_due(self, session: Session, key: Version, now_us: int) -> bool:
        if key not in self._every_us:
            self._every_us[key] = duration_us(_refresh(session, *key))
        every_us, last_us = self._every_us[key], _last_us(session, *key, now_us)
        self._rests_until_us[key] = next_us(every_us, last_us, now_us)
        return is_due(every_us, last_us, now_us)


def _wanted(session: Session, held: Held) -> list[Version]:
    active = active_versions(session)
    now = [(name, version) for (kind, name), version in active.items() if kind is Kind.VIEW]
    return list(dict.fromkeys([*sorted(now), *held(session)]))


def _refresh(session: Session, view: str, version: str) -> timedelta:
    return state_at(session, view, version).view(view).refresh_every


def _last_us(session: Session, view: str, version: str, now_us: int) -> int | None:
    """Up to when the view was last computed. A feature time that was fixed ahead does not count,
    and neither does a table that was removed.
    """
    query = (
        select(func.max(EtlRunRow.as_of_us))
        .where(EtlRunRow.view == view, EtlRunRow.version == version)
        .where(or_(EtlRunRow.status != FAILED, EtlRunRow.person == SCHEDULE))
        .where(or_(EtlRunRow.status != SUCCEEDED, EtlRunRow.table_version.is_not(None)))
        .where(EtlRunRow.as_of_us <= now_us)
    )
    return session.scalar(query)


def _busy(session: Session, under_way: Iterable[Run]) -> set[Version]:
    orders = (msgspec.convert(r.payload, EtlPayload) for r in under_way if r.flow == flow.NAME)
    planned = {(one.view, one.version) for order in orders for one in order.views}
    return planned | running_views(session)


def _run(session: Session, view: str, version: str, every_us: int, now_us: int) -> Run:
    # Where its table was removed, the run of this period may be one that has ended.
    withdrawn = times_withdrawn(session, view, version)
    again = f"-{withdrawn}" if withdrawn else ""
    payload = EtlPayload(
        run_id=f"etl-{view}-{version}-{period_name(every_us, now_us)}{again}",
        person=SCHEDULE,
        as_of_us=now_us,
        views=(PlannedView(view=view, version=version),),
    )
    return payload.run
