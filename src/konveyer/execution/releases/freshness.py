"""How old the published features are, against how often they should be published."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.orm import Session

from konveyer.core.clock import from_us
from konveyer.core.wording import seconds, when
from konveyer.feature_store.definitions.resolved import ResolvedView
from konveyer.feature_store.etl.runs import SUCCEEDED, list_runs, readable_table
from konveyer.feature_store.registry.lookup import state_at

# The run that is due takes its time: a view is late when it missed a whole refresh.
_REFRESHES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Age:
    """A view that is read online: up to when it was computed, and how old that is."""

    view: str
    as_of: str
    age_s: float
    limit_s: float
    why: str

    @property
    def is_stale(self) -> bool:
        return self.age_s > self.limit_s


def ages(session: Session, views: Iterable[ResolvedView], now_us: int) -> list[Age]:
    """Of each view. A view is stale after two refreshes, or once its ttl hides every value."""
    found = []
    for view in views:
        _, run = readable_table(session, view.name, view.version)
        refresh = state_at(session, view.name, view.version).view(view.name).refresh_every
        found.append(age_of(view, run.as_of_us, now_us, refresh))
    return found


def age_of(view: ResolvedView, as_of_us: int, now_us: int, refresh: timedelta) -> Age:
    """Pure: the age of one view at `now_us`."""
    limit_s, why = _REFRESHES * refresh.total_seconds(), f"twice its refresh ({refresh})"
    if view.ttl_us is not None and view.ttl_us / 1e6 < limit_s:
        limit_s, why = view.ttl_us / 1e6, f"its ttl ({timedelta(microseconds=view.ttl_us)})"
    return Age(
        view=view.name,
        as_of=when(as_of_us),
        age_s=(from_us(now_us) - from_us(as_of_us)).total_seconds(),
        limit_s=limit_s,
        why=why,
    )


def left_behind(session: Session, views: Iterable[ResolvedView]) -> list[str]:
    """Of these versions of views, in words, those that ETL has stopped computing.

    While it computes another version of the view, and this one is two refreshes older. That ETL is
    down altogether leaves nothing behind.
    """
    found = []
    for view in views:
        _, own = readable_table(session, view.name, view.version)
        runs = [run for run in list_runs(session, view=view.name) if run.status == SUCCEEDED]
        newest_us = max((run.as_of_us for run in runs), default=own.as_of_us)
        refresh = state_at(session, view.name, view.version).view(view.name).refresh_every
        behind_s = (newest_us - own.as_of_us) / 1e6
        if behind_s > _REFRESHES * refresh.total_seconds():
            found.append(f"'{view.name}' {view.version}, last computed {when(own.as_of_us)}")
    return found


def named(stale: Iterable[Age]) -> str:
    """The stale views in words."""
    return ", ".join(
        f"'{one.view}' is {seconds(one.age_s)} old, more than {one.why}" for one in stale
    )
