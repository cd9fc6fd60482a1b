"""What a training set reads: each view of a service, pinned to one version of its table."""

from dataclasses import replace

from sqlalchemy.orm import Session

from konveyer.feature_store.datamart.on_demand import hidden_inputs
from konveyer.feature_store.datamart.pinned_view import PinnedView
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.etl.runs import readable_table
from konveyer.feature_store.kernel.evaluate import ViewPlan
from konveyer.feature_store.offline.delta import DeltaOfflineStore
from konveyer.feature_store.offline.table_version import TableRef
from konveyer.feature_store.registry.compile import CompiledView
from konveyer.feature_store.registry.lookup import compiled_view


def pin_views(
    session: Session,
    offline: DeltaOfflineStore,
    service: ResolvedService,
    tables: tuple[TableRef, ...] | None = None,
) -> tuple[PinnedView, ...]:
    """Each view of `service` at the version in `tables`, or at the readable one when None."""
    refs = {ref.view: ref for ref in tables or ()}
    pinned = []
    for view in service.views:
        ref = refs.get(view.name) or readable_table(session, view.name, view.version)[0]
        compiled = compiled_view(session, view.name, view.version)
        features = {f.name: f.feature for f in service.features if f.view == view.name}
        features |= hidden_inputs(service, view.name)
        pinned.append(
            PinnedView(
                table=offline.open(ref),
                keys=compiled.layout.keys,
                plan=_narrowed(compiled, features),
                features=features,
            )
        )
    return tuple(pinned)


def _narrowed(compiled: CompiledView, features: dict[str, str]) -> ViewPlan:
    """The plan of the wanted features, and of what derived ones are made of."""
    plan, wanted = compiled.plan, set(features.values())
    derived = tuple(feature for feature in plan.derived if feature.name in wanted)
    needed = wanted | {name for feature in derived for name in (feature.left, feature.right)}
    return replace(
        plan,
        windowed=tuple(feature for feature in plan.windowed if feature.name in needed),
        derived=derived,
        columns=tuple(name for name in plan.columns if name in wanted),
    )
