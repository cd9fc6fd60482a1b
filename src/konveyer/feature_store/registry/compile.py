"""Checks a view against the real columns of its source, and compiles it for ETL and the kernel."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import pyarrow as pa

from konveyer.core.errors import did_you_mean
from konveyer.core.schema import Column, ColumnType, column_type
from konveyer.feature_store.definitions.aggregation import Aggregation, AggregationFunction
from konveyer.feature_store.definitions.duration import duration_us
from konveyer.feature_store.definitions.entity import Entity
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.definitions.view import FeatureView
from konveyer.feature_store.kernel.evaluate import DerivedFeature, ViewPlan, WindowedFeature
from konveyer.feature_store.kernel.history import CREATED_TIME, EVENT_TIME
from konveyer.feature_store.offline.layout import TableLayout, quoted, sql_cast
from konveyer.feature_store.registry.errors import UnknownReference
from konveyer.feature_store.registry.sql import check_condition
from konveyer.feature_store.sources.errors import UnknownColumn, WrongType

_NUMBERS = frozenset({ColumnType.INT64, ColumnType.FLOAT64})
_ORDERED = _NUMBERS | {ColumnType.TIMESTAMP}
_ALL = frozenset(ColumnType)
# The types that each function can aggregate.
_FIT: dict[AggregationFunction, frozenset[ColumnType]] = {
    "count": _ALL,
    "sum": _NUMBERS,
    "mean": _NUMBERS,
    "min": _ORDERED,
    "max": _ORDERED,
    "stddev": _NUMBERS,
    "first": _ALL,
    "last": _ALL,
    "count_distinct": _ALL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledView:
    """A view ready to run: the SQL of its rows, their layout offline, and the kernel's plan.

    `columns` are the features with their types, in the order in which they are published. A view
    with a `code` first has its rows in the layout `given`, which its function turns into `layout`.
    """

    rows_sql: str
    layout: TableLayout
    plan: ViewPlan
    columns: tuple[Column, ...]
    given: TableLayout | None = None
    code: str | None = None


def compile_view(
    view: FeatureView, entity: Entity, source: Source | None, rows: pa.Schema
) -> CompiledView:
    """`rows` is the schema of the source (or of the view's own SQL). Raises what does not fit."""
    where = f"Feature view '{view.name}'"
    columns = {field.name: field.type for field in rows}
    for key in entity.join_keys:
        _check_type(where, columns, key.name, _identifies(key.column.dtype))
    keys = tuple(key.column for key in entity.join_keys)
    if source is not None:
        _check_times(where, source, columns)
        if view.is_windowed:
            return _windowed(view, keys, source, columns)
        return _computed(view, keys, source, columns)
    _check_type(where, columns, EVENT_TIME, {ColumnType.TIMESTAMP})
    for feature in view.features:
        _check_type(where, columns, feature.name, _holds(feature.column.dtype))
    features = tuple(feature.column for feature in view.features)
    created = CREATED_TIME if CREATED_TIME in columns else None
    return CompiledView(
        rows_sql=view.sql or "",
        layout=TableLayout(
            keys=keys,
            event_time=EVENT_TIME,
            created_time=created,
            expressions=tuple(
                (column, sql_cast(quoted(column.name), column.dtype)) for column in features
            ),
        ),
        plan=_plan(view, keys, columns=tuple(column.name for column in features)),
        columns=features,
    )


def _check_times(where: str, source: Source, columns: dict[str, pa.DataType]) -> None:
    if source.event_time is None:
        raise UnknownReference(
            f"{where} reads source '{source.name}', which has no event time.",
            hint="set event_time on the source",
        )
    _check_type(where, columns, source.event_time, {ColumnType.TIMESTAMP})
    if source.created_time is not None:
        _check_type(where, columns, source.created_time, {ColumnType.TIMESTAMP})


def _computed(
    view: FeatureView, keys: tuple[Column, ...], source: Source, columns: dict[str, pa.DataType]
) -> CompiledView:
    """A view with a function: it is given every other column of the source under its own name."""
    where = f"Feature view '{view.name}'"
    special = {*(key.name for key in keys), source.event_time, source.created_time}
    given = [
        Column(name, column_type(arrow, where=f"{where}, column '{name}'"))
        for name, arrow in columns.items()
        if name not in special
    ]
    features = tuple(feature.column for feature in view.features)
    layout = TableLayout(
        keys=keys,
        event_time=source.event_time or "",
        created_time=source.created_time,
        expressions=tuple(
            (column, sql_cast(quoted(column.name), column.dtype)) for column in given
        ),
    )
    return CompiledView(
        rows_sql=f"SELECT * FROM {quoted(source.name)}",  # noqa: S608 - a checked name
        layout=replace(layout, expressions=tuple((column, column.name) for column in features)),
        plan=_plan(view, keys, columns=tuple(column.name for column in features)),
        columns=features,
        given=layout,
        code=view.function,
    )


def _windowed(
    view: FeatureView, keys: tuple[Column, ...], source: Source, columns: dict[str, pa.DataType]
) -> CompiledView:
    where, event_time = f"Feature view '{view.name}'", source.event_time or ""
    inputs: dict[str, tuple[Column, str]] = {}
    windowed, features = [], []
    for aggregation in view.each_aggregation:
        at = f"{where}, feature '{aggregation.name}'"
        dtype = _input_type(at, aggregation, columns)
        feature = WindowedFeature(
            name=aggregation.name,
            function=aggregation.function,
            over_us=None if aggregation.window is None else duration_us(aggregation.window),
            column=_input(inputs, aggregation, dtype),
            filter_column=_filter(inputs, aggregation, at),
        )
        windowed.append(feature)
        features.append(Column(aggregation.name, _result_type(aggregation, dtype)))
    return CompiledView(
        rows_sql=f"SELECT * FROM {quoted(source.name)}",  # noqa: S608 - a checked name
        layout=TableLayout(
            keys=keys,
            event_time=event_time,
            created_time=source.created_time,
            expressions=tuple(inputs.values()),
        ),
        plan=_plan(view, keys, windowed=tuple(windowed), derived=_derived(view, features)),
        columns=(*features, *_derived_columns(view, features)),
    )


def _derived(view: FeatureView, features: list[Column]) -> tuple[DerivedFeature, ...]:
    types = {column.name: column.dtype for column in features}
    for derived in view.derived:
        for name in (derived.left, derived.right):
            if not types[name].is_number:
                raise WrongType(
                    f"Feature view '{view.name}', feature '{derived.name}' needs '{name}' as a "
                    f"number, but it is {types[name]}.",
                    hint="derive from counts, sums and the like",
                )
    return tuple(
        DerivedFeature(name=d.name, operation=d.operation, left=d.left, right=d.right)
        for d in view.derived
    )


def _derived_columns(view: FeatureView, features: list[Column]) -> list[Column]:
    types = {column.name: column.dtype for column in features}
    return [
        Column(
            derived.name,
            ColumnType.INT64
            if derived.operation == "difference"
            and {types[derived.left], types[derived.right]} == {ColumnType.INT64}
            else ColumnType.FLOAT64,
        )
        for derived in view.derived
    ]


def _plan(
    view: FeatureView,
    keys: tuple[Column, ...],
    *,
    windowed: tuple[WindowedFeature, ...] = (),
    derived: tuple[DerivedFeature, ...] = (),
    columns: tuple[str, ...] = (),
) -> ViewPlan:
    return ViewPlan(
        keys=tuple(key.name for key in keys),
        windowed=windowed,
        derived=derived,
        columns=columns,
        ttl_us=None if view.visible_for is None else duration_us(view.visible_for),
        refresh_us=duration_us(view.refresh_every) if view.accuracy == "snapshot" else 0,
        as_known=view.as_known,
    )


def _input_type(
    where: str, aggregation: Aggregation, columns: dict[str, pa.DataType]
) -> ColumnType | None:
    if aggregation.column is None:
        return None
    return _check_type(where, columns, aggregation.column, _FIT[aggregation.function])


def _result_type(aggregation: Aggregation, dtype: ColumnType | None) -> ColumnType:
    if dtype is None or aggregation.function in ("count", "count_distinct"):
        return ColumnType.INT64
    return ColumnType.FLOAT64 if aggregation.function in ("mean", "stddev") else dtype


def _input(
    inputs: dict[str, tuple[Column, str]], aggregation: Aggregation, dtype: ColumnType | None
) -> str | None:
    if aggregation.column is None or dtype is None or aggregation.function == "count":
        return None
    name = f"of_{aggregation.column}"
    inputs[name] = (Column(name, dtype), sql_cast(quoted(aggregation.column), dtype))
    return name


def _filter(
    inputs: dict[str, tuple[Column, str]], aggregation: Aggregation, where: str
) -> str | None:
    """A boolean column for the condition; a count of a column counts where it is not null."""
    conditions = []
    if aggregation.where is not None:
        check_condition(aggregation.where, where=where)
        conditions.append(f"({aggregation.where})")
    if aggregation.function == "count" and aggregation.column is not None:
        conditions.append(f"{quoted(aggregation.column)} IS NOT NULL")
    if not conditions:
        return None
    sql = f"coalesce({' AND '.join(conditions)}, false)"
    known = {expression: column.name for column, expression in inputs.values()}
    name = known.get(sql, f"where_{len(inputs)}")
    inputs[name] = (Column(name, ColumnType.BOOL), sql)
    return name


def _identifies(dtype: ColumnType) -> set[ColumnType]:
    """The types of a column that can be the join key `dtype`: a UUID may come as text."""
    return {ColumnType.STRING, dtype} if dtype is ColumnType.UUID else {dtype}


def _holds(dtype: ColumnType) -> set[ColumnType]:
    """The types whose values `dtype` can hold."""
    return {ColumnType.INT64, dtype} if dtype is ColumnType.FLOAT64 else {dtype}


def _check_type(
    where: str, columns: dict[str, pa.DataType], name: str, fit: AbstractSet[ColumnType]
) -> ColumnType:
    if name not in columns:
        raise UnknownColumn(
            f"{where} needs column '{name}', which its rows do not have.",
            hint=did_you_mean(name, columns, otherwise=f"they have {', '.join(columns)}"),
        )
    found = column_type(columns[name], where=f"{where}, column '{name}'")
    if found not in fit:
        raise WrongType(
            f"{where} needs column '{name}' as {' or '.join(sorted(fit))}, but it is {found}.",
            hint="cast it in a SQL source, or correct the definition",
        )
    return found
