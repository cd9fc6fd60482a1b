"""Views with a Python function: from the rows that it is given to the rows of the view."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from konveyer.core.errors import KonveyerError
from konveyer.feature_store.definitions.python_code import callable_of
from konveyer.feature_store.offline.bucket_writer import conformed
from konveyer.feature_store.offline.layout import BUCKET
from konveyer.feature_store.registry.compile import CompiledView

T = TypeVar("T")


class PythonViewFailed(KonveyerError):
    """The function of a view raised, or returned what it should not."""

    code = "python_view_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputedBuckets(Generic[T]):
    """Turns the rows that a view is given into its own, a bucket at a time, for `write` to take.

    A job for rows that come sorted by bucket. A bucket's rows are in memory while the view's
    function runs.
    """

    view: str
    compiled: CompiledView
    until_us: int
    write: Callable[[Iterator[pa.RecordBatch]], T]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> T:
        return self.write(self._computed(batches))

    def _computed(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        assert self.compiled.given is not None  # noqa: S101 - a view with a function is given rows
        given, schema = self.compiled.given.schema, self.compiled.layout.schema
        for bucket, table in _buckets(conformed(batch, given) for batch in batches):
            computed = call(self.view, self.compiled, table)
            _check_entities(self.view, self.compiled.plan.keys, table, computed)
            on_time = pc.less_equal(computed["event_time"].cast(pa.int64()), self.until_us)
            numbers = pa.array([bucket] * len(computed), pa.int32())
            whole = computed.append_column(BUCKET, numbers).select(schema.names).filter(on_time)
            yield from whole.cast(schema).to_batches()


def call_on_nothing(view: str, compiled: CompiledView) -> None:
    """What the function makes of no rows shows its columns and their types."""
    assert compiled.given is not None  # noqa: S101 - a view with a function is given rows
    call(view, compiled, _without_bucket(compiled.given.schema).empty_table())


def _without_bucket(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field for field in schema if field.name != BUCKET])


def call(view: str, compiled: CompiledView, given: pa.Table) -> pa.Table:
    """The function's rows for some entities, sorted, with the columns and types of the view."""
    schema = _without_bucket(compiled.layout.schema)
    try:
        result = callable_of(compiled.code or "")(pl.from_arrow(given))
        if isinstance(result, pa.Table):
            result = pl.from_arrow(result)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic in Rust, such as one of Polars, is no `Exception`
        raise PythonViewFailed(
            f"Feature view '{view}': {type(error).__name__}: {error}", hint="correct its function"
        ) from error
    if not isinstance(result, pl.DataFrame):
        raise PythonViewFailed(
            f"Feature view '{view}' returned {type(result).__name__}.",
            hint="return a Polars frame, or an Arrow table",
        )
    missing = [name for name in schema.names if name not in result.columns]
    if missing:
        raise PythonViewFailed(
            f"Feature view '{view}' returned no column '{missing[0]}'.",
            hint=f"return {', '.join(schema.names)}",
        )
    order = [name for name in schema.names if name not in {c.name for c in compiled.columns}]
    table = result.select(schema.names).sort(order, maintain_order=True).to_arrow()
    for field in schema:
        found = table.schema.field(field.name).type
        if not _fits(found, field.type):
            raise PythonViewFailed(
                f"Feature view '{view}' returned '{field.name}' as {found}, not {field.type}.",
                hint="cast it in the function, or correct the definition",
            )
        if field.name in order and table[field.name].null_count:
            raise PythonViewFailed(
                f"Feature view '{view}' returned '{field.name}' with nulls.",
                hint="leave those rows out",
            )
    return pa.table([_cast(view, table[field.name], field) for field in schema], schema=schema)


def _cast(view: str, column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise PythonViewFailed(
            f"Feature view '{view}' returned a '{field.name}' that is no {field.type}: {error}",
            hint="cast it in the function, or correct the definition",
        ) from error


def _check_entities(view: str, keys: Sequence[str], given: pa.Table, computed: pa.Table) -> None:
    """Rows of somebody else would lie in a bucket where nobody looks for them."""
    found = computed.select(keys).group_by(keys).aggregate([])
    others = found.join(given.select(keys), list(keys), join_type="left anti")
    if len(others):
        raise PythonViewFailed(
            f"Feature view '{view}' returned rows of {others.slice(0, 1).to_pylist()[0]}, of whom "
            "it was given none.",
            hint="leave the join keys as they are; map them in a SQL source",
        )


def _fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether every value can be held exactly."""
    if pa.types.is_null(found):
        return True
    if _is_list(found) and _is_list(wanted):
        return _fits(found.value_type, wanted.value_type)
    if pa.types.is_decimal(found) and pa.types.is_decimal(wanted):
        # Polars has 38 digits unless it is told; those that are too many are seen in the values.
        return bool(found.scale <= wanted.scale)
    same_kind = (
        (pa.types.is_integer, pa.types.is_integer),
        (pa.types.is_integer, pa.types.is_floating),
        (pa.types.is_floating, pa.types.is_floating),
        (pa.types.is_boolean, pa.types.is_boolean),
        (_is_text, _is_text),
        (pa.types.is_timestamp, pa.types.is_timestamp),
        (pa.types.is_date, pa.types.is_timestamp),
    )
    return any(of_found(found) and of_wanted(wanted) for of_found, of_wanted in same_kind)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_one(kind) for is_one in kinds)


def _buckets(rows: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.Table]]:
    """The rows of each bucket, without its number; `rows` come sorted by it."""
    bucket, parts = -1, list[pa.Table]()
    for batch in rows:
        numbers = batch.column(BUCKET).to_numpy()
        start = 0
        while start < len(numbers):
            end = int(numbers.searchsorted(numbers[start], side="right"))
            if numbers[start] != bucket and parts:
                yield bucket, pa.concat_tables(parts)
                parts = []
            bucket = int(numbers[start])
            part = pa.Table.from_batches([batch.slice(start, end - start)])
            parts.append(part.drop_columns([BUCKET]))
            start = end
    if parts:
        yield bucket, pa.concat_tables(parts)
