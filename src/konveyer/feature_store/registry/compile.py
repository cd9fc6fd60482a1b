"""Checks a view against the real columns of its source, and compiles it for ETL and the kernel."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import pyarrow as pa

from konveyer.core.decimals import DIGITS_OF_A_WORD
from konveyer.core.errors import did_you_mean
from konveyer.core.schema import (
    MOST_DIGITS,
    Column,
    ColumnType,
    DecimalType,
    Dtype,
    ListType,
    ScalarColumn,
    column_type,
)
from konveyer.feature_store.definitions.aggregation import Aggregation, AggregationFunction
from konveyer.feature_store.definitions.duration import duration_us
from konveyer.feature_store.definitions.entity import Entity
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.definitions.view import Feature, FeatureView
from konveyer.feature_store.kernel.evaluate import DerivedFeature, ViewPlan, WindowedFeature
from konveyer.feature_store.kernel.history import CREATED_TIME, EVENT_TIME
from konveyer.feature_store.offline.layout import BUCKET, TableLayout, quoted, sql_cast
from konveyer.feature_store.registry.errors import FeatureClash, UnknownReference
from konveyer.feature_store.registry.sql import check_condition, nestable
from konveyer.feature_store.sources.errors import UnknownColumn, WrongType

_NUMBERS = frozenset({ColumnType.INT64, ColumnType.FLOAT64})
_ORDERED = _NUMBERS | {ColumnType.TIMESTAMP}
# As many digits as an int64 can have.
_AS_DECIMAL = DecimalType(19, 0)
_SHORT = f"decimal(p,s) of up to {DIGITS_OF_A_WORD} digits"
# The scalar types that each function can aggregate, besides short decimals; None for all types.
_FIT: dict[AggregationFunction, frozenset[ColumnType] | None] = {
    "count": None,
    "sum": _NUMBERS,
    "mean": _NUMBERS,
    "min": _ORDERED,
    "max": _ORDERED,
    "stddev": _NUMBERS,
    "first": None,
    "last": None,
    "count_distinct": frozenset(ColumnType),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledView:
    """A view ready to run: the SQL of its rows, their layout offline, and the kernel's plan.

    `columns` are the features with their types, in the order in which they are published. A view
    with a `code` first has its rows in the layout `given`, which its function turns into `layout`.

    `read_types` are the types of the source columns that its conditions and SQL name, each called
    `source.column`: what these make of a value depends on its type.
    """

    rows_sql: str
    layout: TableLayout
    plan: ViewPlan
    columns: tuple[Column, ...]
    given: TableLayout | None = None
    code: str | None = None
    read_types: tuple[tuple[str, str], ...] = ()


def compile_view(
    view: FeatureView, entity: Entity, source: Source | None, rows: pa.Schema
) -> CompiledView:
    """`rows` is the schema of the source (or of the view's own SQL). Raises what does not fit."""
    compiled = _compiled(view, entity, source, rows)
    _check_names(view, compiled)
    _check_limits(view, {column.name: column.dtype for column in compiled.columns})
    return compiled


def _compiled(
    view: FeatureView, entity: Entity, source: Source | None, rows: pa.Schema
) -> CompiledView:
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
        _check_holds(where, columns, feature.column)
    features = tuple(feature.column for feature in view.features)
    created = CREATED_TIME if CREATED_TIME in columns else None
    return CompiledView(
        rows_sql=nestable(view.sql or ""),
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


def _check_names(view: FeatureView, compiled: CompiledView) -> None:
    """The columns of the offline table, and of a training set, have one name each."""
    taken = {BUCKET, EVENT_TIME, CREATED_TIME, *(key.name for key in compiled.layout.keys)}
    stored = [column.name for column, _ in compiled.layout.expressions]
    for name in (*stored, *(column.name for column in compiled.columns)):
        if name in taken:
            raise FeatureClash(
                f"Feature view '{view.name}': '{name}' is a join key, or a name that its table has "
                "for something else.",
                hint="give the feature another name",
            )


def _check_limits(view: FeatureView, types: Mapping[str, Dtype]) -> None:
    for feature in view.each_feature:
        dtype = types[feature.name]
        is_number = isinstance(dtype, DecimalType) or dtype in _NUMBERS
        if (feature.minimum, feature.maximum) != (None, None) and not is_number:
            raise WrongType(
                f"Feature view '{view.name}', feature '{feature.name}': it has a minimum or a "
                f"maximum, but it is {dtype}.",
                hint="only numbers have them; check other values in a SQL source",
            )
        if isinstance(feature, Feature) and feature.one_of and dtype is not ColumnType.STRING:
            raise WrongType(
                f"Feature view '{view.name}', feature '{feature.name}': it has `one_of`, which is "
                f"for texts, but it is {dtype}.",
                hint="cast it to string, or check it in a SQL source",
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
    view: FeatureView,
    keys: tuple[ScalarColumn, ...],
    source: Source,
    columns: dict[str, pa.DataType],
) -> CompiledView:
    """A view with a function: it is given every other column of the source under its own name."""
    where = f"Feature view '{view.name}'"
    special = {*(key.name for key in keys), source.event_time, source.created_time}
    given = [
        Column(name, column_type(arrow, where=f"{where}, column '{name}'"))
        for name, arrow in columns.items()
        if name not in special
    ]
    # The rows that it is given have columns of these names for something else.
    taken = {BUCKET, EVENT_TIME, *([CREATED_TIME] if source.created_time else [])}
    for column in given:
        if column.name in taken:
            raise FeatureClash(
                f"{where} cannot be given column '{column.name}' of source '{source.name}': its "
                "rows have a column of that name for something else.",
                hint="rename it, or leave it out, in a SQL source",
            )
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
    view: FeatureView,
    keys: tuple[ScalarColumn, ...],
    source: Source,
    columns: dict[str, pa.DataType],
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
        features.append(_result(at, aggregation, dtype))
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
            _difference_type(types[derived.left], types[derived.right])
            if derived.operation == "difference"
            else ColumnType.FLOAT64,
        )
        for derived in view.derived
    ]


def _difference_type(*types: Dtype) -> Dtype:
    scales = [dtype.scale for dtype in types if isinstance(dtype, DecimalType)]
    if ColumnType.FLOAT64 in types:
        return ColumnType.FLOAT64
    return DecimalType(MOST_DIGITS, max(scales)) if scales else ColumnType.INT64


def _plan(
    view: FeatureView,
    keys: tuple[ScalarColumn, ...],
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
) -> Dtype | None:
    if aggregation.column is None:
        return None
    fit = _FIT[aggregation.function]
    found = _column_type(where, columns, aggregation.column)
    match found:
        case DecimalType(precision=precision):
            fits = fit is None or precision <= DIGITS_OF_A_WORD
        case _:
            fits = fit is None or found in fit
    if fit is not None and not fits:
        raise _wrong_type(
            f"{where}: {aggregation.function}", aggregation.column, [*sorted(fit), _SHORT], found
        )
    return found


def _result(where: str, aggregation: Aggregation, dtype: Dtype | None) -> Column:
    result = _result_type(aggregation, dtype)
    if isinstance(result, ListType) and (aggregation.minimum, aggregation.maximum) != (None, None):
        raise WrongType(
            f"{where} is {result} and has a minimum or a maximum.",
            hint="leave them out: only numbers and instants have limits",
        )
    return Column(aggregation.name, result)


def _result_type(aggregation: Aggregation, dtype: Dtype | None) -> Dtype:
    match aggregation.function, dtype:
        case (_, None) | ("count" | "count_distinct", _):
            return ColumnType.INT64
        case "mean" | "stddev", _:
            return ColumnType.FLOAT64
        case "sum", DecimalType(scale=scale):
            return DecimalType(MOST_DIGITS, scale)
        case _, found:
            return found


def _input(
    inputs: dict[str, tuple[Column, str]], aggregation: Aggregation, dtype: Dtype | None
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


def _holds(dtype: Dtype, found: Dtype) -> bool:
    """Whether `dtype` can hold every value of the type `found`."""
    match dtype, found:
        case DecimalType(), DecimalType():
            return dtype.holds(found)
        case DecimalType(), ColumnType.INT64:
            return dtype.holds(_AS_DECIMAL)
        case ListType(item=item), ListType(item=other):
            return _holds(item, other)
        case ColumnType.FLOAT64, ColumnType.INT64:
            return True
        case _:
            return dtype == found


def _check_holds(where: str, columns: dict[str, pa.DataType], wanted: Column) -> None:
    found = _column_type(where, columns, wanted.name)
    if not _holds(wanted.dtype, found):
        raise _wrong_type(where, wanted.name, [str(wanted.dtype)], found)


def _check_type(
    where: str, columns: dict[str, pa.DataType], name: str, fit: AbstractSet[ColumnType]
) -> None:
    found = _column_type(where, columns, name)
    if found not in fit:
        raise _wrong_type(where, name, sorted(fit), found)


def _wrong_type(where: str, name: str, fit: Sequence[str], found: Dtype) -> WrongType:
    return WrongType(
        f"{where} needs column '{name}' as {' or '.join(fit)}, but it is {found}.",
        hint="cast it in a SQL source, or correct the definition",
    )


def _column_type(where: str, columns: dict[str, pa.DataType], name: str) -> Dtype:
    if name not in columns:
        raise UnknownColumn(
            f"{where} needs column '{name}', which its rows do not have.",
            hint=did_you_mean(name, columns, otherwise=f"they have {', '.join(columns)}"),
        )
    return column_type(columns[name], where=f"{where}, column '{name}'")
