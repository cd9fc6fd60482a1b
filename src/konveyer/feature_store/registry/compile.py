"""Checks a view against the real columns of its source, and compiles it for ETL and the kernel."""

from dataclasses import dataclass

import pyarrow as pa

from konveyer.core.errors import did_you_mean
from konveyer.core.schema import Column, ColumnType, column_type
from konveyer.feature_store.definitions.aggregation import Aggregation
from konveyer.feature_store.definitions.duration import duration_us
from konveyer.feature_store.definitions.entity import Entity
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.definitions.view import FeatureView
from konveyer.feature_store.kernel.evaluate import ViewPlan, WindowedFeature
from konveyer.feature_store.kernel.history import CREATED_TIME, EVENT_TIME
from konveyer.feature_store.offline.layout import TableLayout, quoted, sql_cast
from konveyer.feature_store.registry.errors import UnknownReference
from konveyer.feature_store.registry.sql import check_condition
from konveyer.feature_store.sources.errors import UnknownColumn, WrongType


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledView:
    """A view ready to run: the SQL of its rows, their layout offline, and the kernel's plan.

    `columns` are the features with their types, in the order in which they are published.
    """

    rows_sql: str
    layout: TableLayout
    plan: ViewPlan
    columns: tuple[Column, ...]


def compile_view(
    view: FeatureView, entity: Entity, source: Source | None, rows: pa.Schema
) -> CompiledView:
    """`rows` is the schema of the source (or of the view's own SQL). Raises what does not fit."""
    where = f"Feature view '{view.name}'"
    columns = {field.name: field.type for field in rows}
    for key in entity.join_keys:
        _check_type(where, columns, key.name, {key.column.dtype})
    keys = tuple(key.column for key in entity.join_keys)
    if source is not None:
        return _windowed(view, keys, source, columns)
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


def _windowed(
    view: FeatureView, keys: tuple[Column, ...], source: Source, columns: dict[str, pa.DataType]
) -> CompiledView:
    where = f"Feature view '{view.name}'"
    if source.event_time is None:
        raise UnknownReference(
            f"{where} aggregates source '{source.name}', which has no event time.",
            hint="set event_time on the source",
        )
    _check_type(where, columns, source.event_time, {ColumnType.TIMESTAMP})
    if source.created_time is not None:
        _check_type(where, columns, source.created_time, {ColumnType.TIMESTAMP})
    inputs: dict[str, tuple[Column, str]] = {}
    windowed, features = [], []
    for aggregation in view.aggregations:
        at = f"{where}, feature '{aggregation.name}'"
        dtype = _input_type(at, aggregation, columns)
        feature = WindowedFeature(
            name=aggregation.name,
            function=aggregation.function,
            over_us=duration_us(aggregation.window),
            column=_input(inputs, aggregation, dtype),
            filter_column=_filter(inputs, aggregation, at),
        )
        windowed.append(feature)
        features.append(Column(aggregation.name, _result_type(aggregation, dtype)))
    return CompiledView(
        rows_sql=f"SELECT * FROM {quoted(source.name)}",  # noqa: S608 - a checked name
        layout=TableLayout(
            keys=keys,
            event_time=source.event_time,
            created_time=source.created_time,
            expressions=tuple(inputs.values()),
        ),
        plan=_plan(view, keys, windowed=tuple(windowed)),
        columns=tuple(features),
    )


def _plan(
    view: FeatureView,
    keys: tuple[Column, ...],
    *,
    windowed: tuple[WindowedFeature, ...] = (),
    columns: tuple[str, ...] = (),
) -> ViewPlan:
    return ViewPlan(
        keys=tuple(key.name for key in keys),
        windowed=windowed,
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
    if aggregation.function == "count":
        return _check_type(where, columns, aggregation.column, set(ColumnType))
    fit = {ColumnType.INT64, ColumnType.FLOAT64}
    if aggregation.function in ("min", "max"):
        fit.add(ColumnType.TIMESTAMP)
    return _check_type(where, columns, aggregation.column, fit)


def _result_type(aggregation: Aggregation, dtype: ColumnType | None) -> ColumnType:
    if aggregation.function == "count" or dtype is None:
        return ColumnType.INT64
    return ColumnType.FLOAT64 if aggregation.function == "mean" else dtype


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


def _holds(dtype: ColumnType) -> set[ColumnType]:
    """The types whose values `dtype` can hold."""
    return {ColumnType.INT64, dtype} if dtype is ColumnType.FLOAT64 else {dtype}


def _check_type(
    where: str, columns: dict[str, pa.DataType], name: str, fit: set[ColumnType]
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
