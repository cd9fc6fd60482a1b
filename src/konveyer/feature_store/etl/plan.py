"""Which views an ETL run would compute."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.core.errors import Conflict
from konveyer.core.ids import new_id
from konveyer.feature_store.definitions.definition import Kind
from konveyer.feature_store.etl.flow import EtlPayload
from konveyer.feature_store.registry.lookup import active_state


class NothingRegistered(Conflict):
    """There are no feature views yet."""

    code = "nothing_registered"


def plan_etl(session: Session, actor: Actor, names: Sequence[str], *, as_of_us: int) -> EtlPayload:
    """A run of the views `names`, or of all when there are none, by the actor."""
    actor.require(Permission.RUN_ETL)
    state = active_state(session)
    wanted = list(names) or state.names(Kind.VIEW)
    if not wanted:
        raise NothingRegistered("No feature views are registered.", hint="run 'konveyer apply'")
    views = {state.view(name).name: state.versions[Kind.VIEW, name] for name in wanted}
    return EtlPayload(run_id=new_id("etl"), person=actor.name, as_of_us=as_of_us, views=views)
