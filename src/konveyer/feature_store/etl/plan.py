"""Which views an ETL run would compute."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.core.errors import Conflict
from konveyer.core.ids import new_id
from konveyer.feature_store.definitions.definition import Kind
from konveyer.feature_store.etl.flow import EtlPayload, PlannedView
from konveyer.feature_store.etl.pins import Pin
from konveyer.feature_store.etl.runs import written_tables
from konveyer.feature_store.registry.lookup import active_state


class NothingRegistered(Conflict):
    """There are no feature views yet."""

    code = "nothing_registered"


def plan_etl(
    session: Session,
    actor: Actor,
    names: Sequence[str],
    *,
    as_of_us: int,
    pins: Sequence[Pin] = (),
    again: bool = False,
) -> EtlPayload:
    """A run of the views `names`, or of all when there are none, by the actor.

    Besides the version of a view that holds now, the run computes those that `pins` hold: a
    released model goes on reading the version that it was trained on. With `again` it puts what
    is readable online once more, of all that was ever computed.
    """
    actor.require(Permission.RUN_ETL)
    state = active_state(session)
    held = dict.fromkeys(pair for pin in pins for pair in pin.views)
    wanted = list(names) or [*state.names(Kind.VIEW), *(view for view, _ in held)]
    if not wanted:
        raise NothingRegistered("No feature views are registered.", hint="run 'konveyer apply'")
    views: dict[tuple[str, str], None] = {}
    for name in dict.fromkeys(wanted):
        older = [(view, version) for view, version in held if view == name]
        if not older or (Kind.VIEW, name) in state.definitions:
            views[state.view(name).name, state.versions[Kind.VIEW, name]] = None
        views |= dict.fromkeys(older)
    if again:
        written = written_tables(session)
        views = {key: None for key in views if key in written}
    planned = tuple(PlannedView(view=view, version=version) for view, version in views)
    return EtlPayload(
        run_id=new_id("etl"), person=actor.name, as_of_us=as_of_us, views=planned, again=again
    )
