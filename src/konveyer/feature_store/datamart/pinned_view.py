"""A view as the jobs of a training set see it, in whatever process they run."""

from dataclasses import dataclass

from konveyer.core.schema import ScalarColumn
from konveyer.feature_store.kernel.evaluate import ViewPlan
from konveyer.feature_store.kernel.history import CREATED_TIME, EVENT_TIME
from konveyer.feature_store.offline.table_version import TableVersion


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
