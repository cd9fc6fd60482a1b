"""The label frame (spine): who, when, and what came of it. Checked before anything is joined."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from konveyer.core.errors import KonveyerError, did_you_mean
from konveyer.core.schema import (
    ColumnType,
    ScalarColumn,
    UnsupportedType,
    column_type,
    decoded,
)
from konveyer.core.texts import CANONICAL_UUID
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.kernel.codes import Ints, codes_of
from konveyer.feature_store.kernel.history import instants
from konveyer.feature_store.registry.errors import FeatureClash

_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_VIEWS_NAMED = 3
# Odd and without a pattern: keys and times that lie close make numbers that lie apart.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class LabelsEmpty(KonveyerError):
    code = "labels_empty"


class LabelsMissColumn(KonveyerError):
    code = "labels_miss_column"


class LabelsWrongType(KonveyerError):
    code = "labels_wrong_type"


class LabelsHaveNulls(KonveyerError):
    code = "labels_have_nulls"


class LabelsRepeat(KonveyerError):
    code = "labels_repeat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Checked labels: `table` is the frame with exact types; `at_us` is UTC.

    `keys` are the frame's own names of the join keys; `spine` has the keys under the names that
    the features have for them.
    """

    table: pa.Table
    keys: tuple[str, ...]
    spine: pa.Table
    timestamp: str
    label: str | None
    at_us: Ints


def check_labels(
    table: pa.Table,
    service: ResolvedService,
    *,
    timestamp: str,
    label: str | None,
    columns: Mapping[str, str] | None = None,
) -> Labels:
    """Raise what is wrong with a label frame; otherwise give it with its types made exact.

    `columns` maps a join key to the frame's column where that has another name. The request fields
    of the service must be columns of the frame; they may be null.

    A row is told by everything but its label: the same household may be asked about twice on one
    day, for two campaigns, when a column says which.
    """
    check_not_empty(len(table))
    table = typed_labels(table, service, timestamp=timestamp, label=label, columns=columns)
    named = key_columns(service, columns)
    names = list(named.values())
    check_no_nulls(nulls_in(table, [*names, timestamp]))
    if not _all_differ([table.column(name) for name in (*names, timestamp)]):
        check_no_repeats(table, label)
    return Labels(
        table=table,
        keys=tuple(names),
        spine=table.select(names).rename_columns(list(named)),
        timestamp=timestamp,
        label=label,
        at_us=instants(table.column(timestamp)),
    )


def check_not_empty(rows: int) -> None:
    if not rows:
        raise LabelsEmpty("The label frame has no rows.", hint="check how it was made")


def check_no_clash(names: Sequence[str], service: ResolvedService) -> None:
    """Raise when a column of the frame is called as a feature of the service."""
    for feature in service.features:
        if feature.name in names:
            raise FeatureClash(
                f"The label frame has a column '{feature.name}', as the service has.",
                hint="rename it in the label frame, or the feature in the service: "
                f"'{feature.view}:{feature.feature} as OTHER_NAME'",
            )


def key_columns(service: ResolvedService, columns: Mapping[str, str] | None) -> dict[str, str]:
    """The column of each join key; `columns` has those that are called otherwise."""
    return {key.name: (columns or {}).get(key.name, key.name) for key in service.keys}


def typed_labels(
    table: pa.Table,
    service: ResolvedService,
    *,
    timestamp: str,
    label: str | None,
    columns: Mapping[str, str] | None,
) -> pa.Table:
    """Some rows of a label frame with exact types; raises what columns and types are wrong."""
    check_mapping(service.keys, columns or {})
    table = _plain(_with_typed_nulls(table, service.request))
    named = key_columns(service, columns)
    fields = [field.name for field in service.request]
    for name in [*named.values(), timestamp, *([label] if label else []), *fields]:
        if name not in table.column_names:
            raise LabelsMissColumn(
                f"The label frame has no column '{name}'.",
                hint=lookalike(name, table.column_names, service),
            )
    for key in service.keys:
        table = _typed(table, named[key.name], key.dtype, _features_with(key, service))
    for field in service.request:
        table = _typed(table, field.name, field.dtype)
    return _typed(table, timestamp, ColumnType.TIMESTAMP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nulls:
    """How many rows of a column are null, and the number of the first."""

    column: str
    rows: int
    first: int


def nulls_in(table: pa.Table, names: Sequence[str], first_row: int = 0) -> tuple[Nulls, ...]:
    """Columns with nulls; the rows of `table` are numbered from `first_row`."""
    return tuple(
        Nulls(
            column=name,
            rows=table.column(name).null_count,
            first=first_row + int(np.argmax(np.asarray(table.column(name).is_null()))),
        )
        for name in names
        if table.column(name).null_count
    )


def check_no_nulls(found: Sequence[Nulls]) -> None:
    """Raise for the first column; `found` may name it again and again, for one part of the rows
    after the other.
    """
    if found:
        name = found[0].column
        rows = sum(one.rows for one in found if one.column == name)
        raise LabelsHaveNulls(
            f"Column '{name}' of the label frame is null in {rows} row(s), first in row "
            f"{found[0].first}.",
            hint="leave those rows out, or fill them",
        )


def lookalike(column: str, names: Sequence[str], service: ResolvedService) -> str | None:
    """A hint which of `names`, a frame's columns, may be the one that it lacks."""
    they_are = f"it has {', '.join(names)}"
    if column in {key.name for key in service.keys}:
        return f"say which column it is, --key {column}=COLUMN; {they_are}"
    return did_you_mean(column, names, otherwise=they_are)


def check_mapping(keys: tuple[ScalarColumn, ...], columns: Mapping[str, str]) -> None:
    """Raise for a key of `columns` that the features do not have."""
    known = [key.name for key in keys]
    for key in columns:
        if key not in known:
            raise LabelsMissColumn(
                f"'{key}' is no join key of the features.",
                hint=did_you_mean(key, known, otherwise=f"they have {', '.join(known)}"),
            )


def _with_typed_nulls(table: pa.Table, fields: Sequence[ScalarColumn]) -> pa.Table:
    """Request fields may be null in every row, where a data frame library knows no type."""
    for field in fields:
        for place in table.schema.get_all_field_indices(field.name):
            if pa.types.is_null(table.column(place).type):
                nulls = table.column(place).cast(field.dtype.arrow)
                table = table.set_column(place, field.name, nulls)
    return table


def _plain(table: pa.Table) -> pa.Table:
    """One Arrow type for each kind of value, however a data frame library writes it."""
    for place, field in enumerate(table.schema):
        if table.column_names.count(field.name) > 1:
            raise LabelsWrongType(
                f"The label frame has more than one column '{field.name}'.", hint="rename them"
            )
        column = _valued(table.column(place))
        kind = column.type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            raise LabelsWrongType(
                f"Column '{field.name}' of the label frame is {kind}.",
                hint="leave it out: a label frame has numbers, texts, booleans and times",
            )
        if any(is_text(kind) for is_text in _TEXTS) or pa.types.is_null(kind):
            kind = pa.string()
        elif pa.types.is_timestamp(kind) and kind.unit == "ns":
            kind = pa.timestamp("us", kind.tz)
            column = _whole_microseconds(column)
        else:
            kind = _as_kept(kind)
        if kind != field.type:
            table = table.set_column(place, field.name, _cast(column, field.name, kind))
    return table.replace_schema_metadata(None)


def _as_kept(kind: pa.DataType) -> pa.DataType:
    """The type for the same values that Parquet gives back as it was given."""
    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_date64(kind):
        return pa.date32()
    return pa.time32("ms") if pa.types.is_time32(kind) else kind


def _cast(column: pa.ChunkedArray, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    try:
        return column.cast(kind)
    except pa.ArrowInvalid as error:
        raise LabelsWrongType(
            f"Column '{name}' of the label frame has a value that {kind} cannot hold: {error}.",
            hint="leave such rows out",
        ) from error


def _valued(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Categories as their values, and UUIDs as texts."""
    column = decoded(column)
    if isinstance(column.type, pa.UuidType):
        texts = [None if value is None else str(value) for value in column.to_pylist()]
        column = pa.chunked_array([pa.array(texts, pa.string())])
    return column


def _whole_microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The last one at or before each moment in nanoseconds, also before 1970."""
    nanos = column.cast(pa.int64())
    whole = np.asarray(nanos.fill_null(0)) // 1_000
    micros = pa.array(whole, mask=np.asarray(nanos.is_null()))
    return pa.chunked_array([micros.cast(pa.timestamp("us", column.type.tz))])


def _features_with(key: ScalarColumn, service: ResolvedService) -> str:
    """As an error names them; of many views a few."""
    names = [view.name for view in service.views if key in view.keys]
    more = "" if len(names) <= _VIEWS_NAMED else f" and {len(names) - _VIEWS_NAMED} more views"
    return f"the features of {', '.join(names[:_VIEWS_NAMED])}{more}"


def _typed(
    table: pa.Table, name: str, dtype: ColumnType, features: str = "the features"
) -> pa.Table:
    column = table.column(name)
    where = f"column '{name}' of the label frame"
    try:
        found = column_type(column.type, where=where)
    except UnsupportedType as error:
        raise LabelsWrongType(
            error.message, hint=f"make it {dtype}, as {features} have it"
        ) from error
    if dtype is ColumnType.UUID and found is ColumnType.STRING:
        return _with_canonical_uuids(table, name, where)
    if found is ColumnType.INT64 and dtype is ColumnType.FLOAT64:
        return table.set_column(
            table.column_names.index(name), name, column.cast(dtype.arrow, safe=False)
        )
    if found is not dtype:
        raise LabelsWrongType(
            f"{where[0].upper()}{where[1:]} is {found}; {features} have {dtype}.",
            hint=f"cast it to {dtype}",
        )
    place = table.column_names.index(name)
    try:
        if dtype is ColumnType.TIMESTAMP:
            naive = pa.timestamp("us", tz=getattr(column.type, "tz", None))
            column = column.cast(naive).cast(dtype.arrow)
        return table.set_column(place, name, column.cast(dtype.arrow))
    except pa.ArrowInvalid as error:
        raise LabelsWrongType(
            f"{where[0].upper()}{where[1:]} has a value that {dtype} cannot hold: {error}.",
            hint="leave such rows out",
        ) from error


def _with_canonical_uuids(table: pa.Table, name: str, where: str) -> pa.Table:
    texts = pc.utf8_lower(table.column(name).cast(pa.string()))
    wrong = pc.invert(pc.match_substring_regex(texts, CANONICAL_UUID)).fill_null(False)
    if pc.any(wrong).as_py():
        first = texts.filter(wrong)[0].as_py()
        raise LabelsWrongType(
            f"{where[0].upper()}{where[1:]} has '{first}', which is no UUID.",
            hint="write UUIDs as 8-4-4-4-12 hexadecimal digits",
        )
    return table.set_column(table.column_names.index(name), name, texts)


def _all_differ(columns: Sequence[pa.ChunkedArray]) -> bool:
    """Whether rows make different numbers, and so are different. Equal numbers prove nothing.

    For keys and times several times as quick as `repeats_in`.
    """
    numbers = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        exact = pa.types.is_integer(column.type) or pa.types.is_timestamp(column.type)
        codes = column.cast(pa.int64()).to_numpy() if exact else codes_of(column)
        numbers = numbers * _MULTIPLIER + codes.astype(np.uint64)
    numbers.sort()
    return bool((numbers[1:] != numbers[:-1]).all())


def check_no_repeats(table: pa.Table, label: str | None) -> None:
    """Raise when two rows are alike in all columns but the label."""
    names = [name for name in table.column_names if name != label]
    rows = pa.array(np.arange(len(table)))
    repeated = repeats_in(table.select(names), rows)
    if repeated is not None:
        raise repeat(repeated.rows, table.select(names).slice(repeated.first, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """How many different rows occur more than once, and the number of the first."""

    rows: int
    first: int


def repeats_in(table: pa.Table, numbers: pa.Array) -> Repeats | None:
    """What occurs more than once in `table`, whose rows have `numbers`."""
    # A frame's own columns may be called anything.
    names = [str(place) for place in range(table.num_columns)]
    numbered = table.rename_columns(names).append_column("row", numbers)
    counted = numbered.group_by(names, use_threads=False).aggregate(
        [("row", "count"), ("row", "min")]
    )
    if len(counted) == len(table):
        return None
    firsts = counted.filter(pc.greater(counted["row_count"], 1))["row_min"]
    return Repeats(rows=len(firsts), first=pc.min(firsts).as_py())


def repeat(rows: int, example: pa.Table) -> LabelsRepeat:
    return LabelsRepeat(
        f"{rows} row(s) of the label frame occur more than once, such as {example.to_pylist()[0]}.",
        hint="remove the repeats, or add a column that tells the rows apart",
    )
