"""The rows that a compiled model must answer like the native one: real, and at the edges.

Runs in the model's environment.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from konveyer.bundle.native.inputs import plain
from konveyer.bundle.native.model import NativeModel

REAL_ROWS, EDGE_BASES = 200, 3
UNSEEN = "\u2205 never seen"
_INT64 = 2**63 - 1


def real_rows(table: pa.Table, names: list[str]) -> list[list[Any]]:
    """Rows spread over `table`: all of them where they are few.

    NaN is a null, as it is to a model. Rows with an infinite number, for which JSON has no word,
    are left out.
    """
    usable = np.flatnonzero(~_has_infinity(table, names))
    places = usable[np.linspace(0, len(usable) - 1, min(REAL_ROWS, len(usable))).astype(int)]
    columns = [table[name].take(pa.array(places)).to_pylist() for name in names]
    rows = zip(*columns, strict=True)
    return [[None if value != value else plain(value) for value in row] for row in rows]


def _has_infinity(table: pa.Table, names: list[str]) -> Any:
    """For each row of `table`, whether one of its features is infinite."""
    found = np.zeros(len(table), bool)
    for name in names:
        if pa.types.is_floating(table.schema.field(name).type):
            found |= pc.is_inf(table[name]).fill_null(False).to_numpy()
    return found


def edge_rows(table: pa.Table, names: list[str], rows: list[list[Any]]) -> list[list[Any]]:
    """Some of the real `rows` with one feature, or all, at each edge."""
    edges = [edges_of(table[name]) for name in names]
    count = EDGE_BASES if rows else 0
    bases = [rows[place] for place in np.linspace(0, len(rows) - 1, count).astype(int)]
    changed = [
        [*base[:place], edge, *base[place + 1 :]]
        for base in bases
        for place, values in enumerate(edges)
        for edge in values
    ]
    most = max(len(values) for values in edges)
    everywhere = [[values[min(n, len(values) - 1)] for values in edges] for n in range(most)]
    return [*changed, *everywhere]


def edges_of(column: pa.ChunkedArray) -> list[Any]:
    """A null, then what is unusual for the column's type."""
    kind = column.type
    if pa.types.is_string(kind):
        return [None, UNSEEN, ""]
    if pa.types.is_boolean(kind):
        return [None, True, False]
    if pa.types.is_integer(kind) or pa.types.is_timestamp(kind):
        return [None, 0, 1, -1, 10**12, -(10**12), _INT64]
    return [None, 0.0, -0.0, 1e-12, 1e12, -1e12, 1e30, -1e30, 1e300, -1e300]


def golden_cases(model: NativeModel, rows: list[list[Any]]) -> list[dict[str, Any]]:
    """What the model says of each row, or the error that it raises.

    All are asked at once; when that raises, one by one, to see for which row it does.
    """
    try:
        return [_case(row, given) for row, given in zip(rows, model.predict(rows), strict=True)]
    except Exception:  # noqa: BLE001 - the project's code may raise anything
        return [_case_alone(model, row) for row in rows]


def _case_alone(model: NativeModel, row: list[Any]) -> dict[str, Any]:
    try:
        return _case(row, model.predict([row])[0])
    except Exception as error:  # noqa: BLE001 - the project's code may raise anything
        return _raised(row, f"{type(error).__name__}: {error}"[:300])


def _case(row: list[Any], outputs: list[Any]) -> dict[str, Any]:
    if any(isinstance(value, float) and not np.isfinite(value) for value in outputs):
        return _raised(row, "the answer is not a finite number")
    return {"features": row, "outputs": outputs}


def _raised(row: list[Any], error: str) -> dict[str, Any]:
    return {"features": row, "outputs": [], "error": error}
