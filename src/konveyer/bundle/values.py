"""JSON values as features have them: what callers give, and what model.toml declares."""

import math
from contextlib import suppress
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any, assert_never
from uuid import UUID

import msgspec

from konveyer.bundle.manifest import Serving
from konveyer.core.clock import BadInstant, parse_instant
from konveyer.core.errors import KonveyerError, did_you_mean
from konveyer.core.schema import MOST_DIGITS, ColumnType, DecimalType, Dtype, ListType
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.online.codec import Value

INT64 = range(-(2**63), 2**63)
_EXACT = Context(prec=MOST_DIGITS, traps=[Inexact, InvalidOperation])


class BadServing(KonveyerError):
    """A `[serving]` section that does not fit the features of its model."""

    code = "bad_serving"


def checked_fallbacks(service: ResolvedService, serving: Serving) -> dict[int, Value]:
    """The values that stand in for features, by their places; raises for what does not fit."""
    columns = {column.name: (place, column) for place, column in enumerate(service.columns)}
    for setting, names in (("given", serving.given), ("fallbacks", serving.fallbacks)):
        for name in names:
            if name not in columns:
                raise BadServing(
                    f"[serving] {setting} names '{name}', which is no feature of the model.",
                    hint=did_you_mean(name, columns, otherwise="correct model.toml"),
                )
    if serving.deadline_ms <= 0:
        raise BadServing("[serving] deadline_ms is not positive.", hint="correct model.toml")
    found: dict[int, Value] = {}
    for name, value in msgspec.to_builtins(serving.fallbacks).items():
        place, column = columns[name]
        exact = exact_feature(value, column.dtype)
        if exact is None:
            raise BadServing(
                f"[serving] fallbacks has {value!r} for '{name}', which is {column.dtype}.",
                hint="correct model.toml",
            )
        found[place] = exact
    return found


def exact_feature(value: Any, dtype: Dtype) -> Value:
    """Like `exact_scalar`; a decimal comes as a number or as text."""
    match dtype:
        case ColumnType():
            return exact_scalar(value, dtype)
        case DecimalType():
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                return None
            with suppress(Inexact, InvalidOperation, ValueError):  # too many digits
                return _exact_decimal(Decimal(str(value)), dtype)
            return None
        case ListType():
            return None
        case _:
            assert_never(dtype)


def exact_scalar(value: Any, dtype: ColumnType) -> int | float | str | None:
    """The value as the features have it; None when it is not of its type.

    Nothing infinite: JSON has no word for it.
    """
    match value:
        case bool():
            return value if dtype is ColumnType.BOOL else None
        case int() | float() if dtype is ColumnType.FLOAT64:
            with suppress(OverflowError):
                number = float(value)
                return None if math.isinf(number) else number
        case str() if dtype is ColumnType.TIMESTAMP:
            with suppress(BadInstant):
                return parse_instant(value)
        case int() if dtype is ColumnType.INT64 and value in INT64:
            return value
        case str() if dtype is ColumnType.STRING:
            return value
        case str() if dtype is ColumnType.UUID:
            with suppress(ValueError):
                return str(UUID(value))
    return None


def _exact_decimal(decimal: Decimal, dtype: DecimalType) -> Decimal | None:
    """As the features have it. None, or an error of `_EXACT`, when a digit other than 0 stands
    before or behind those that the type has: an exponent may name a billion of them.
    """
    exact = decimal.quantize(Decimal(1).scaleb(-dtype.scale), context=_EXACT)
    fits = exact.is_finite() and exact.adjusted() < dtype.precision - dtype.scale
    return exact if fits else None
