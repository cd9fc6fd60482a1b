"""Which model a run scores with, and at which periods."""

import re
from collections.abc import Sequence

from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.bundle.compiled import compiled_model
from konveyer.bundle.manifest import ISOLATED
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.core.errors import KonveyerError, NotFound, did_you_mean
from konveyer.core.ids import new_id
from konveyer.execution.batch.order import NAME, BatchOrder, Given, Period, period_at, period_of
from konveyer.execution.releases.environments import PROD
from konveyer.execution.releases.records import LiveVersion, settled_versions
from konveyer.feature_store.datamart.labels import check_mapping

_MODEL = re.compile(r"(?P<application>[a-z][a-z0-9-]*)(/v(?P<version>[0-9]{1,9}))?")
_MOST_PERIODS = 10_000


class ModelNotLive(NotFound):
    """No release of the model is live where it was looked for."""

    code = "model_not_live"


class ModelUnclear(KonveyerError):
    """Several versions of the model are live, and none was named."""

    code = "model_unclear"


class RequestFieldsMissing(KonveyerError):
    """The model asks callers for more than join keys, so that entities alone cannot be scored."""

    code = "request_fields_missing"


class TooManyPeriods(KonveyerError):
    code = "too_many_periods"


def find_live(session: Session, model: str) -> LiveVersion:
    """The version `application/v1` that is live in production; `application` when it is alone.

    What other environments serve, and what nodes of production are only taking up, has not been
    through its release: scores are for all to read.
    """
    match = _MODEL.fullmatch(model)
    live = settled_versions(session, PROD)
    found = [
        one
        for one in live
        if match is not None
        and one.application == match["application"]
        and match["version"] in (None, str(one.api_version))
    ]
    if not found:
        names = [f"{one.application}/v{one.api_version}" for one in live]
        raise ModelNotLive(
            f"'{model}' is not live in {PROD}.",
            hint=did_you_mean(model, names, otherwise=f"live: {', '.join(names) or 'nothing yet'}"),
        )
    if len(found) > 1:
        names = [f"{one.application}/v{one.api_version}" for one in found]
        raise ModelUnclear(f"'{model}' is live as {', '.join(names)}.", hint="name one of them")
    return found[0]


def plan_batch(
    session: Session,
    actor: Actor,
    bundles: BundleStore,
    model: str,
    *,
    moments_us: Sequence[int],
    given: Given | None = None,
) -> BatchOrder:
    """A run of the live model by the actor: every entity at each moment, or what is `given`."""
    actor.require(Permission.RUN_ETL)
    live = find_live(session, model)
    check_scorable(bundles.open(live.digest), given)
    periods: tuple[Period, ...]
    if given is not None:
        periods = (period_of(given, moments_us[0]),)
    else:
        periods = tuple(period_at(int(at_us)) for at_us in moments_us)
    if len(periods) > _MOST_PERIODS:
        raise TooManyPeriods(
            f"That would be {len(periods):,} periods.", hint=f"ask for at most {_MOST_PERIODS:,}"
        )
    return order_of(live, person=actor.name, run_id=new_id(NAME), periods=periods, given=given)


def order_of(
    live: LiveVersion,
    *,
    person: str,
    run_id: str,
    periods: tuple[Period, ...],
    given: Given | None = None,
) -> BatchOrder:
    return BatchOrder(
        run_id=run_id,
        person=person,
        application=live.application,
        api_version=live.api_version,
        release=live.release,
        digest=live.digest,
        periods=periods,
        given=given,
    )


def check_scorable(bundle: Bundle, given: Given | None) -> None:
    """Raise now what scoring would raise in each period."""
    if bundle.manifest.model.form != ISOLATED:
        compiled_model(bundle)
    request = bundle.manifest.service.request
    if given is not None:
        check_mapping(bundle.manifest.service.keys, given.columns)
    elif request:
        names = ", ".join(field.name for field in request)
        raise RequestFieldsMissing(
            f"The model asks for {names} with each entity.",
            hint="give a table that has them: --table",
        )
