"""What table versions must stay readable for. It comes as data: some holders are layers above."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from konveyer.feature_store.offline.table_version import TableRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A training set or a release that holds tables.

    `tables` must stay as they are; of the (view, version) pairs in `views` the readable table and
    the online records must. `training_set` is the one that a release's model learned from.
    """

    holder: str
    training_set: str | None
    tables: tuple[TableRef, ...]
    views: tuple[tuple[str, str], ...] = ()


ReadPins = Callable[[Session], Sequence[Pin]]
