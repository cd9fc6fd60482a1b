"""Join keys and request fields as people give them in Python, with their exact types."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, assert_never
from uuid import UUID

from konveyer.core.clock import to_us
from konveyer.core.errors import KonveyerError
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.core.texts import is_unicode

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1


class BadValue(KonveyerError):
    """A join key or a request field is missing, or of another type."""

    code = "bad_value"


class TypedColumns:
    """Takes the values of columns out of mappings, in order, with their exact types.

    Instants are microseconds, UUIDs canonical texts. Request fields may be None, join keys not.

    >>> read = TypedColumns([ScalarColumn("client", ColumnType.INT64)])
    >>> read({"client": 7, "more": 1})
    [7]
    """

    def __init__(self, columns: Sequence[ScalarColumn], *, nullable: bool = False) -> None:
        self._columns = [(column.name, _exact(column.dtype), column.dtype) for column in columns]
        self._nullable = nullable

    def __call__(self, values: Mapping[str, Any]) -> list[Any]:
        found = []
        for name, exact, dtype in self._columns:
            try:
                value = values[name]
                found.append(None if value is None and self._nullable else exact(value))
            except KeyError:
                raise BadValue(
                    f"'{name}' is missing.", hint=f"give it for each entity, as {dtype}"
                ) from None
            except (TypeError, ValueError, AttributeError, OverflowError):
                wanted = "a datetime" if dtype is ColumnType.TIMESTAMP else dtype
                raise BadValue(f"'{name}' is {value!r}.", hint=f"give it as {wanted}") from None
        return found


def _exact(dtype: ColumnType) -> Callable[[Any], Any]:
    """A function that gives a value of the type, or raises."""
    match dtype:
        case ColumnType.INT64:
            return _int64
        case ColumnType.FLOAT64:
            return lambda value: float(_of(value, int, float))
        case ColumnType.BOOL:
            return lambda value: _of(value, bool)
        case ColumnType.STRING:
            return _text
        case ColumnType.UUID:
            return lambda value: str(value if isinstance(value, UUID) else UUID(value))
        case ColumnType.TIMESTAMP:
            return to_us
        case _:
            assert_never(dtype)


def _int64(value: Any) -> int:
    if type(value) is int and _LOWEST <= value <= _HIGHEST:
        return value
    raise TypeError


def _text(value: Any) -> str:
    if type(value) is str and is_unicode(value):
        return value
    raise TypeError


def _of(value: Any, *kinds: type) -> Any:
    if type(value) in kinds:
        return value
    raise TypeError
