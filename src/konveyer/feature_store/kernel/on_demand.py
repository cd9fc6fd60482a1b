"""On-demand features: one computation over columns, in training and at a prediction."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np
import numpy.typing as npt

from konveyer.core.decimals import nearest_doubles
from konveyer.core.schema import ColumnType, DecimalType, Dtype, ListType, ScalarColumn
from konveyer.core.texts import is_unicode
from konveyer.feature_store.kernel.errors import OnDemandFailed

if TYPE_CHECKING:
    import pyarrow as pa

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
Array = npt.NDArray[Any]
Output = int | float | bool | str | None


class OnDemandComputation:
    """Calls a view's function on arrays and makes its results exact.

    >>> outputs = [ScalarColumn("y", ColumnType.INT64)]
    >>> double = OnDemandComputation("v", lambda x: {"y": 2 * x}, outputs)
    >>> double({"x": as_array([1, None], ColumnType.INT64)})
    {'y': [2, None]}
    """

    def __init__(
        self, view: str, function: Callable[..., Any], outputs: Sequence[ScalarColumn]
    ) -> None:
        self._view, self._function, self._outputs = view, function, tuple(outputs)

    def __call__(self, arguments: Mapping[str, Array]) -> dict[str, list[Output]]:
        """The outputs by name, as Python values in the types that they are declared with."""
        rows = len(next(iter(arguments.values())))
        for array in arguments.values():
            # They may be a training set's own columns: what would change them fails everywhere.
            array.flags.writeable = False
        try:
            with np.errstate(all="ignore"):
                results = self._function(**arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic in Rust, such as one of Polars, is no `Exception`
            raise OnDemandFailed(
                f"On-demand view '{self._view}': {type(error).__name__}: {error}",
                hint="correct its function",
            ) from error
        return {column.name: self._exact(results, column, rows) for column in self._outputs}

    def _exact(self, results: Any, column: ScalarColumn, rows: int) -> list[Output]:
        where = f"On-demand view '{self._view}', feature '{column.name}'"
        if not isinstance(results, Mapping) or column.name not in results:
            raise OnDemandFailed(
                f"{where} is not in what the function returns.",
                hint="return a dict with an array for each feature",
            )
        given = results[column.name]
        # NumPy would make texts of all that stands beside a text in a list, of NaN too.
        values = _objects(given) if isinstance(given, list | tuple) else np.asanyarray(given)
        if values.dtype.kind in "mM":
            raise OnDemandFailed(
                f"{where} is {values.dtype}, whose unit nobody can tell from its numbers.",
                hint="return numbers; an instant is microseconds since 1970, with NaN for null",
            )
        if values.shape != (rows,):
            raise OnDemandFailed(
                f"{where} has the shape {values.shape} for {rows} row(s).",
                hint="return one value for each row",
            )
        try:
            return [_value(value, column.dtype) for value in values.tolist()]
        except (TypeError, ValueError, OverflowError) as error:
            raise OnDemandFailed(
                f"{where} is {error}, not {column.dtype}.", hint="correct the function or the type"
            ) from error


def _value(value: Any, dtype: ColumnType) -> Output:
    if value is None or value != value:
        return None
    match dtype:
        case ColumnType.FLOAT64 if not isinstance(value, str):
            return float(value)
        case ColumnType.INT64 | ColumnType.TIMESTAMP if (
            not isinstance(value, str)
            and float(value).is_integer()
            and _LOWEST <= (whole := int(value)) <= _HIGHEST
        ):
            return whole
        case ColumnType.BOOL if value in (0, 1):
            return bool(value)
        case ColumnType.STRING | ColumnType.UUID if isinstance(value, str) and is_unicode(value):
            return str(value)
    raise ValueError(repr(value))


def as_array(values: Sequence[Any], dtype: Dtype) -> Array:
    """Python values, as an online read or a request gives them, as the function takes them."""
    if isinstance(dtype, ListType):
        # What one function does to its lists is nothing to the next one that is given them.
        return _objects([None if value is None else list(value) for value in values])
    if dtype in (ColumnType.STRING, ColumnType.UUID):
        return _objects(values)
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _objects(values: Sequence[Any]) -> Array:
    array = np.empty(len(values), object)
    for place, value in enumerate(values):  # NumPy would make a table of lists of one length
        array[place] = value
    return array


def array_of(column: "pa.ChunkedArray", dtype: Dtype) -> Array:
    """The same of an Arrow column of that type."""
    import pyarrow as pa

    match dtype:
        case ColumnType.STRING | ColumnType.UUID | ListType():
            return as_array(column.to_pylist(), dtype)
        case DecimalType():
            column = nearest_doubles(column)
        case ColumnType.TIMESTAMP:
            column = column.cast(pa.int64())
        case ColumnType.INT64 | ColumnType.FLOAT64 | ColumnType.BOOL:
            pass
        case _:
            assert_never(dtype)
    floats = column.cast(pa.float64(), safe=False)
    return np.asarray(floats.fill_null(float("nan")).to_numpy(), np.float64)
