"""Reading features online: the part of a prediction that happens before the model.

Needs the store, the codec and, for on-demand features, NumPy; neither Arrow nor SQL.
"""

from collections.abc import Sequence

from konveyer.core.clock import FeatureClock
from konveyer.feature_store.definitions.python_code import callable_of
from konveyer.feature_store.definitions.resolved import (
    ResolvedOnDemand,
    ResolvedService,
    ResolvedView,
)
from konveyer.feature_store.kernel.on_demand import OnDemandComputation, as_array
from konveyer.feature_store.online.base import OnlineStore
from konveyer.feature_store.online.codec import RecordCodec, Value, encode_key

KeyValues = Sequence[int | str]


def features_of_nobody(service: ResolvedService) -> tuple[Value, ...]:
    """The features of an entity that no view knows: 0 for a count, otherwise None."""
    nothing = {
        (view.name, column.name): default
        for view in service.views
        for column, default in zip(view.columns, view.defaults, strict=True)
    }
    return tuple(nothing.get((f.view, f.feature)) for f in service.features)


class OnlineLookup:
    """Reads the features of one resolved service. Thread-safe when the store is.

    All that does not depend on the request is worked out here, once.
    """

    def __init__(self, service: ResolvedService, store: OnlineStore, clock: FeatureClock) -> None:
        self.service = service
        self._store, self._clock = store, clock
        places = {key.name: place for place, key in enumerate(service.keys)}
        self._views = [
            _ViewReader(view, [places[key.name] for key in view.keys]) for view in service.views
        ]
        cells = _cells(service)
        self._picks = [cells.get((f.view, f.feature)) for f in service.features]
        self._on_demand = [_OnDemandReader(view, service, cells) for view in service.on_demand]

    def rows(
        self, keys: Sequence[KeyValues], requests: Sequence[Sequence[Value]] = ()
    ) -> list[tuple[Value, ...] | None]:
        """The features of each entity, in the order of the service; `keys` in that of its keys.

        `requests` are the request fields of each row, in the order of the service's. An entity
        that no view knows gives None. One read of the store for each view.
        """
        now_us = self._clock.now_us()
        by_view = [view.read(self._store, keys, now_us) for view in self._views]
        stored = [
            [rows[place][1] for rows in by_view]
            if any(rows[place][0] for rows in by_view) or not by_view
            else None
            for place in range(len(keys))
        ]
        answers = [
            None
            if values is None
            else [None if pick is None else values[pick[0]][pick[1]] for pick in self._picks]
            for values in stored
        ]
        known = [place for place, values in enumerate(stored) if values is not None]
        if known:
            for view in self._on_demand:
                view.fill(answers, stored, requests, known)
        return [None if row is None else tuple(row) for row in answers]


def _cells(service: ResolvedService) -> dict[tuple[str, str], tuple[int, int]]:
    """Where each stored feature stands: the place of its view, and its own in the record."""
    return {
        (view.name, column.name): (place, own)
        for place, view in enumerate(service.views)
        for own, column in enumerate(view.columns)
    }


class _OnDemandReader:
    """Computes one on-demand view for the rows of a request."""

    def __init__(
        self,
        view: ResolvedOnDemand,
        service: ResolvedService,
        cells: dict[tuple[str, str], tuple[int, int]],
    ) -> None:
        self._compute = OnDemandComputation(view.name, callable_of(view.code), view.outputs)
        fields = [field.name for field in service.request]
        self._fields = [(field, fields.index(field.name)) for field in view.request]
        self._inputs = [(one, cells[one.view, one.feature]) for one in view.inputs]
        self._places = [
            (feature.feature, place)
            for place, feature in enumerate(service.features)
            if feature.view == view.name
        ]

    def fill(
        self,
        answers: list[list[Value] | None],
        stored: list[list[tuple[Value, ...]] | None],
        requests: Sequence[Sequence[Value]],
        known: list[int],
    ) -> None:
        """Put this view's features into the answers of the `known` rows."""
        arguments = {
            field.name: as_array([requests[row][place] for row in known], field.dtype)
            for field, place in self._fields
        }
        rows = [values for values in stored if values is not None]
        for one, (view, own) in self._inputs:
            arguments[one.feature] = as_array([values[view][own] for values in rows], one.dtype)
        results = self._compute(arguments)
        for row, number in zip(known, range(len(known)), strict=True):
            answer = answers[row]
            if answer is not None:
                for feature, place in self._places:
                    answer[place] = results[feature][number]


class _ViewReader:
    def __init__(self, view: ResolvedView, places: list[int]) -> None:
        self._view, self._places = view, places
        self._codec = RecordCodec(view.columns)
        self._nothing = (None,) * len(view.columns)

    def read(
        self, store: OnlineStore, keys: Sequence[KeyValues], now_us: int
    ) -> list[tuple[bool, tuple[Value, ...]]]:
        """For each entity whether it has a record, and its values."""
        encoded = [encode_key([key[place] for place in self._places]) for key in keys]
        return [
            (record is not None, self._values(record, now_us))
            for record in store.get(self._view.space, encoded)
        ]

    def _values(self, record: bytes | None, now_us: int) -> tuple[Value, ...]:
        if record is None:
            return self._view.defaults
        event_us, values = self._codec.decode(record)
        ttl_us = self._view.ttl_us
        return values if ttl_us is None or event_us >= now_us - ttl_us else self._nothing
