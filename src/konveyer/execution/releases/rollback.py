"""Rolling back: production serves an earlier release again, at once, without any gate."""

import re
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.catalog.session import Catalog
from konveyer.core.errors import Conflict
from konveyer.core.storage import Storage
from konveyer.execution.releases.environments import PROD
from konveyer.execution.releases.freshness import left_behind
from konveyer.execution.releases.live import publish_end
from konveyer.execution.releases.machine import Action, State
from konveyer.execution.releases.records import current_live, live_beside, release_row, set_live
from konveyer.execution.releases.service import need_reason
from konveyer.execution.releases.tables import LiveVersionRow, ReleaseRow
from konveyer.execution.releases.transitions import move


class NotServed(Conflict):
    """Production does not serve the release that is to be rolled back."""

    code = "release_not_served"


class NothingToRollBackTo(Conflict):
    """Production has served no earlier release of this version."""

    code = "nothing_to_roll_back_to"


class FeaturesLeftBehind(Conflict):
    """What the release reads is not computed any more."""

    code = "features_left_behind"


# Production may serve such a release again.
_RESTORABLE = (State.RETIRED, State.ROLLED_BACK)
# Production serves such a release in part, or goes back to what is live when it cannot.
_TAKING_OVER = (State.CANARY, State.PRODUCTION)
_URL = re.compile(r"(?P<application>[a-z][a-z0-9-]*)/v(?P<version>[0-9]{1,9})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """What a rollback changes. `serves` is empty where nothing has been live before."""

    release: str
    state: str
    application: str
    api_version: int
    serves: str
    digest: str


def plan_rollback(
    session: Session, bundles: BundleStore, actor: Actor, release: str, to: str | None = None
) -> Rollback:
    """What `roll_back` would do: end a canary, or a release that nodes are taking up, or replace a
    live one by `to`.

    `release` is an id, or `application/vN` for what production serves there. Without `to` it is the
    release that production served before. Raises when the bundle to go back to is gone or is not
    what was reviewed, or when its features are not computed any more.
    """
    actor.require(Permission.OPERATE_RELEASE)
    row = release_row(session, _served_release(session, release))
    if row.state in _TAKING_OVER:
        live = live_beside(session, row)
        if to is not None:
            raise NothingToRollBackTo(
                f"Release {row.id} is in '{row.state}': production goes back to what is live.",
                hint="leave out --to; then roll back what is live",
            )
        return _plan(row, "" if live is None else live.id, "" if live is None else live.digest)
    if row.state != State.LIVE:
        raise NotServed(
            f"Release {row.id} is in '{row.state}': production does not serve it.",
            hint=f"konveyer release list --application {row.application} shows what is live",
        )
    target_row = _earlier(session, row, to)
    _check_usable(session, target_row.id, bundles.open(target_row.digest))
    return _plan(row, target_row.id, target_row.digest)


def roll_back(
    catalog: Catalog,
    bundles: BundleStore,
    storage: Storage,
    actor: Actor,
    release: str,
    *,
    reason: str,
    to: str | None = None,
) -> Rollback:
    """One transaction in the catalog, then the document that the nodes follow.

    What `plan_rollback` raises changes nothing.
    """
    need_reason(reason, "A rollback needs a reason.", "say what is wrong with the release")
    with catalog.transaction() as session:
        plan = plan_rollback(session, bundles, actor, release, to)
        row = release_row(session, plan.release)
        if row.state == State.LIVE:
            target = release_row(session, plan.serves)
            move(session, target, Action.RESTORE, actor.name, instead_of=row.id)
            target.reason = None
            set_live(session, PROD, target)
        move(session, row, Action.ROLL_BACK, actor.name, reason=reason, serves=plan.serves)
        row.reason = f"rolled back by {actor.name}: {reason}"
    publish_end(catalog, storage)
    return plan


def _check_usable(session: Session, release: str, bundle: Bundle) -> None:
    behind = left_behind(session, bundle.manifest.service.views)
    if behind:
        raise FeaturesLeftBehind(
            f"Release {release} reads {', '.join(behind)}: ETL computes another version now.",
            hint="roll back to a release that is kept ([releases] kept_for_rollback), or submit it "
            "again",
        )


def _served_release(session: Session, named: str) -> str:
    """The release that production serves at `application/vN`; any other text is one by its id."""
    match = _URL.fullmatch(named)
    if match is None:
        return named
    live = current_live(session, PROD, match["application"], int(match["version"]))
    if live is None or live.release_id is None:
        raise NotServed(f"Production serves no {named}.", hint="konveyer models shows what it does")
    return live.release_id


def _plan(row: ReleaseRow, serves: str, digest: str) -> Rollback:
    return Rollback(
        release=row.id,
        state=row.state,
        application=row.application,
        api_version=row.api_version,
        serves=serves,
        digest=digest,
    )


def _earlier(session: Session, row: ReleaseRow, to: str | None) -> ReleaseRow:
    """The release `to`, or the one before, both once served by production."""
    if to == row.id:
        raise NothingToRollBackTo(
            f"Production serves release {to} now.", hint="name another one, or none: the one before"
        )
    served = session.scalars(
        select(LiveVersionRow)
        .where(LiveVersionRow.environment == PROD)
        .where(LiveVersionRow.application == row.application)
        .where(LiveVersionRow.api_version == row.api_version)
        .where(LiveVersionRow.release_id != row.id)
        .order_by(LiveVersionRow.id.desc())
    )
    ids = dict.fromkeys(live.release_id for live in served if live.release_id is not None)
    # One that nodes did not take up was never live, whatever stood in the document.
    known = [one for one in ids if release_row(session, one).state in _RESTORABLE]
    if to is not None and release_row(session, to).id in known:
        return release_row(session, to)
    before = [one for one in known if release_row(session, one).state == State.RETIRED]
    if to is None and before:
        return release_row(session, before[0])
    rolled_back = [one for one in known if release_row(session, one).state == State.ROLLED_BACK]
    if to is None and rolled_back:
        raise NothingToRollBackTo(
            f"All that production served of {row.application}/v{row.api_version} before was rolled "
            "back.",
            hint=f"to serve it all the same, say which (--to): {', '.join(rolled_back)}",
        )
    raise NothingToRollBackTo(
        f"Production has served no release {to or 'before this one'} of "
        f"{row.application}/v{row.api_version}.",
        hint=f"it has served {', '.join(known)}" if known else "release a corrected version",
    )
