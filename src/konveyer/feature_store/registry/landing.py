"""Which views pushed rows can land in at once: those that make each row from one pushed row."""

from konveyer.core.schema import ColumnType
from konveyer.feature_store.definitions.definition import Kind
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.definitions.view import FeatureView
from konveyer.feature_store.registry.errors import CannotLandAtOnce
from konveyer.feature_store.registry.row_by_row import beyond_one_row
from konveyer.feature_store.registry.state import RegistryState


def pushed_sources(state: RegistryState, view: str) -> tuple[str, ...]:
    """The pushed sources that a view reads, directly or through SQL."""
    return tuple(source.name for source in state.sources_of((Kind.VIEW, view)) if source.pushed)


def row_keys(state: RegistryState, source: Source) -> dict[str, ColumnType]:
    """The columns of a pushed source that are join keys of views over it, with their types.

    None may be null; one that is a UUID somewhere must be one in every row.
    """
    columns = {column.name for column in source.pushed}
    keys: dict[str, ColumnType] = {}
    for name in state.names(Kind.VIEW):
        if source.name in pushed_sources(state, name):
            for key in state.entity(state.view(name).entity).join_keys:
                if key.name in columns and keys.get(key.name) is not ColumnType.UUID:
                    keys[key.name] = key.column.dtype
    return keys


def lands_at_once(state: RegistryState, view: FeatureView) -> bool:
    """Whether pushed rows are online in `view` before any ETL run takes them up."""
    return view.accuracy == "exact" and bool(pushed_sources(state, view.name))


def check_landing(state: RegistryState, view: FeatureView) -> None:
    """Raise when `view` shall show pushed rows at once, and cannot."""
    problem = why_not_at_once(state, view)
    if lands_at_once(state, view) and problem:
        raise CannotLandAtOnce(
            f"Feature view '{view.name}' is exact and reads pushed rows, which cannot land in it "
            f"at once: {problem}.",
            hint='make it accuracy="snapshot", to take them up at its refresh, or leave that out',
        )


def why_not_at_once(state: RegistryState, view: FeatureView) -> str | None:
    """What of a view over pushed sources needs more than the pushed rows themselves."""
    if view.function is not None:
        return "its function needs all rows of an entity"
    leading: set[str] = set()
    for source in state.sources_of((Kind.VIEW, view.name)):
        reads = {name for _, name in state.reads[Kind.SOURCE, source.name]}
        if source.sql is not None and reads & leading:
            beyond = beyond_one_row(source.sql, leading, where=f"source '{source.name}'")
            if beyond:
                return f"the SQL of source '{source.name}' has {beyond}"
        if source.pushed or reads & leading:
            leading.add(source.name)
    if view.sql is not None:
        beyond = beyond_one_row(view.sql, leading, where=f"feature view '{view.name}'")
        if beyond:
            return f"its SQL has {beyond}"
    return None
