"""Columns of a file as a model's preparation reads them, without a Python value for each cell."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from konveyer.bundle.plan import Distinct


class ArrowColumns:
    """The columns `names` of a batch: `konveyer.bundle.plan.Columns`.

    >>> batch = pa.RecordBatch.from_pydict({"age": [30, None], "city": ["Rome", None]})
    >>> columns = ArrowColumns(batch, ["age", "city"])
    >>> columns.numbers(0).tolist(), columns.distinct(1).values
    ([30.0, nan], ['Rome', None])
    """

    def __init__(self, batch: pa.RecordBatch, names: Sequence[str]) -> None:
        self._columns = [plain(batch.column(name)) for name in names]
        self.rows = len(batch)

    def numbers(self, place: int) -> npt.NDArray[np.float64]:
        column = self._columns[place]
        if pa.types.is_decimal(column.type):
            # The nearest number, as a node makes it; Arrow's cast may be one off.
            values, places = self.distinct(place)
            nearest: npt.NDArray[np.float64] = np.array(values, np.float64)[places]
            return nearest
        numbers: npt.NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(
            zero_copy_only=False
        )
        return numbers

    def distinct(self, place: int) -> Distinct:
        encoded = self._columns[place].dictionary_encode(null_encoding="encode")
        return Distinct(encoded.dictionary.to_pylist(), encoded.indices.to_numpy())


def plain(column: pa.Array) -> pa.Array:
    """Instants are microseconds, as in a prediction."""
    return column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
