"""The label frame (spine): who, when, and what came of it. Checked before anything is joined."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from konveyer.core.errors import KonveyerError, NotFound, did_you_mean
from konveyer.core.schema import Column, ColumnType, UnsupportedType, column_type
from konveyer.feature_store.kernel.history import Ints, instants


class LabelFileMissing(NotFound):
    code = "label_file_missing"


class LabelsUnreadable(KonveyerError):
    code = "labels_unreadable"


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
    """Checked labels: `table` has the keys in the types of the features; `at_us` is UTC."""

    table: pa.Table
    keys: tuple[str, ...]
    timestamp: str
    label: str | None
    at_us: Ints


def read_labels(path: Path) -> pa.Table:
    if not path.is_file():
        raise LabelFileMissing(
            f"The label file {path} does not exist.", hint="give the path of a Parquet file"
        )
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise LabelsUnreadable(
            f"{path} is not a readable Parquet file: {error}", hint="write it again"
        ) from error


def check_labels(
    table: pa.Table, keys: tuple[Column, ...], *, timestamp: str, label: str | None
) -> Labels:
    """Raise what is wrong with a label frame; otherwise give it with its types made exact.

    A row is told by everything but its label: the same household may be asked about twice on one
    day, for two campaigns, when a column says which.
    """
    if not len(table):
        raise LabelsEmpty("The label frame has no rows.", hint="check how it was made")
    names = [key.name for key in keys]
    for name in [*names, timestamp, *([label] if label else [])]:
        if name not in table.column_names:
            raise LabelsMissColumn(
                f"The label frame has no column '{name}'.",
                hint=did_you_mean(
                    name, table.column_names, otherwise=f"it has {', '.join(table.column_names)}"
                ),
            )
    for key in keys:
        table = _typed(table, key.name, key.dtype)
    table = _typed(table, timestamp, ColumnType.TIMESTAMP)
    for name in [*names, timestamp]:
        nulls = table.column(name).null_count
        if nulls:
            first = int(np.argmax(np.asarray(table.column(name).is_null())))
            raise LabelsHaveNulls(
                f"Column '{name}' of the label frame is null in {nulls} row(s), first in row "
                f"{first}.",
                hint="leave those rows out, or fill them",
            )
    _check_repeats(table, [name for name in table.column_names if name != label])
    return Labels(
        table=table,
        keys=tuple(names),
        timestamp=timestamp,
        label=label,
        at_us=instants(table.column(timestamp)),
    )


def _typed(table: pa.Table, name: str, dtype: ColumnType) -> pa.Table:
    column = table.column(name)
    where = f"column '{name}' of the label frame"
    try:
        found = column_type(column.type, where=where)
    except UnsupportedType as error:
        raise LabelsWrongType(error.message, hint=f"make it {dtype}") from error
    if found is not dtype:
        raise LabelsWrongType(
            f"{where[0].upper()}{where[1:]} is {found}; the features have {dtype}.",
            hint=f"cast it to {dtype}",
        )
    place = table.column_names.index(name)
    if dtype is ColumnType.TIMESTAMP:
        naive = pa.timestamp("us", tz=getattr(column.type, "tz", None))
        column = column.cast(naive).cast(dtype.arrow)
    return table.set_column(place, name, column.cast(dtype.arrow))


def _check_repeats(table: pa.Table, names: list[str]) -> None:
    counted = table.select(names).group_by(names, use_threads=False).aggregate([([], "count_all")])
    if len(counted) == len(table):
        return
    twice = counted.filter(pc.greater(counted["count_all"], 1))
    raise LabelsRepeat(
        f"{len(twice)} row(s) of the label frame occur more than once, such as "
        f"{twice.select(names).slice(0, 1).to_pylist()[0]}.",
        hint="remove the repeats, or add a column that tells the rows apart",
    )
