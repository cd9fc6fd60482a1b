"""What a training set reads: each view of a service, pinned to one version of its table."""

from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from konveyer.core.schema import ScalarColumn
from konveyer.feature_store.datamart.on_demand import hidden_inputs
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.etl.runs import readable_table
from konveyer.feature_store.kernel.evaluate import ViewPlan
from konveyer.feature_store.kernel.history import CREATED_TIME, EVENT_TIME
from konveyer.feature_store.offline.delta import DeltaOfflineStore, TableRef, TableVersion
from konveyer.feature_store.registry.compile import CompiledView
from konveyer.feature_store.registry.lookup import compiled_view


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedView:
    """A view at one table version, narrowed to the features that the service takes.

    `features` maps the service's names to the view's, and the hidden names of what on-demand
    features are computed from. `columns` are all that is read of the table.
    """

    table: TableVersion
    keys: tuple[ScalarColumn, ...]
    plan: ViewPlan
    features: dict[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        created = [CREATED_TIME] if CREATED_TIME in self.table.schema.names else []
        inputs = [
            name
            for feature in self.plan.windowed
            for name in (feature.column, feature.filter_column)
            if name is not None
        ]
        wanted = dict.fromkeys([*inputs, *self.plan.columns])
        return (*self.plan.keys, EVENT_TIME, *created, *wanted)


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
