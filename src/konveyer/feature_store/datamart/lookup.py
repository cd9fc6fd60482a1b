"""Reading features online: the part of a prediction that happens before the model.

Needs the store, the codec and, for on-demand features, NumPy; neither Arrow nor SQL.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter

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

# Longer than there are instants.
_FOREVER_US = 2**64
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
        self.names = tuple(feature.name for feature in service.features)
        self._store, self._clock = store, clock
        self._views = [_ViewReader(view, service) for view in service.views]
        # Views with the same keys need them encoded once.
        self._key_places = {view.key_places for view in self._views}
        cells = _cells(service)
        self._on_demand = [_OnDemandReader(view, service, cells) for view in service.on_demand]
        self._cells = [cells[feature.view, feature.feature] for feature in service.features]
        self._stored_cells = sum(len(view.columns) for view in service.views)
        self._pick = _picker(self._cells)

    def rows(
        self,
        keys: Sequence[KeyValues],
        requests: Sequence[Sequence[Value]] = (),
        given: Sequence[Mapping[int, Value]] = (),
    ) -> list[tuple[Value, ...] | None]:
        """The features of each entity, in the order of the service; `keys` in that of its keys.

        `requests` are the request fields of each row, in the order of the service's. An entity
        that no view knows gives None. One read of the store for all views and entities. `given`
        are values of each row's features, by their places, that win over those that are read; what
        is computed on demand is computed from them.
        """
        return self.found(self._store.get(self.places(keys)), len(keys), requests, given)

    def places(self, keys: Sequence[KeyValues]) -> list[tuple[str, bytes]]:
        """What `found` needs of the store, in this order."""
        encoded = {
            places: [encode_key([key[place] for place in places]) for key in keys]
            for places in self._key_places
        }
        return [(view.space, key) for view in self._views for key in encoded[view.key_places]]

    def found(
        self,
        records: Sequence[bytes | None],
        count: int,
        requests: Sequence[Sequence[Value]] = (),
        given: Sequence[Mapping[int, Value]] = (),
    ) -> list[tuple[Value, ...] | None]:
        """Like `rows` for `count` entities, from what the store has at their `places`."""
        now_us = self._clock.now_us()
        rows = [self._stored(records[row::count], now_us) for row in range(count)]
        if given:
            self._give(rows, given, range(self._stored_cells))
        if self._on_demand:
            self._compute(rows, requests)
            if given:
                self._give(rows, given, range(self._stored_cells, 2**31))
        return [None if cells is None else self._pick(cells) for cells in rows]

    def _give(
        self,
        rows: Sequence[list[Value] | None],
        given: Sequence[Mapping[int, Value]],
        cells: range,
    ) -> None:
        """Put given values into those of the `cells` that they belong to."""
        for row, values in zip(rows, given, strict=True):
            for place, value in values.items():
                if row is not None and self._cells[place] in cells:
                    row[self._cells[place]] = value

    def _stored(self, records: Sequence[bytes | None], now_us: int) -> list[Value] | None:
        """The cells of one entity, from its record of each view; None when there is none."""
        cells: list[Value] = []
        known = not records
        for view, record in zip(self._views, records, strict=True):
            if record is None:
                cells += view.defaults
                continue
            known = True
            event_us, values = view.decode(record)
            cells += values if event_us >= now_us - view.ttl_us else view.stale
        return cells if known else None

    def _compute(
        self, rows: Sequence[list[Value] | None], requests: Sequence[Sequence[Value]]
    ) -> None:
        """Add the on-demand cells to those of the entities that are known."""
        known = [place for place, cells in enumerate(rows) if cells is not None]
        stored = [cells for cells in rows if cells is not None]
        if stored:
            asked = [requests[place] for place in known] if requests else []
            for view in self._on_demand:
                view.extend(stored, asked)


def _cells(service: ResolvedService) -> dict[tuple[str, str], int]:
    """The place of each feature among an entity's cells: stored ones first, then on-demand ones."""
    stored = [(view.name, column.name) for view in service.views for column in view.columns]
    computed = [(view.name, column.name) for view in service.on_demand for column in view.outputs]
    return {feature: place for place, feature in enumerate([*stored, *computed])}


def _picker(places: Sequence[int]) -> Callable[[list[Value]], tuple[Value, ...]]:
    if len(places) == 1:
        return lambda cells: (cells[places[0]],)
    return itemgetter(*places)


class _OnDemandReader:
    """Computes one on-demand view for the rows of a request."""

    def __init__(
        self,
        view: ResolvedOnDemand,
        service: ResolvedService,
        cells: Mapping[tuple[str, str], int],
    ) -> None:
        self._compute = OnDemandComputation(view.name, callable_of(view.code), view.outputs)
        self._outputs = [column.name for column in view.outputs]
        fields = [field.name for field in service.request]
        self._fields = [(field, fields.index(field.name)) for field in view.request]
        self._inputs = [(one, cells[one.view, one.feature]) for one in view.inputs]

    def extend(self, rows: Sequence[list[Value]], requests: Sequence[Sequence[Value]]) -> None:
        """Put this view's outputs behind the cells of each row."""
        arguments = {
            field.name: as_array([request[place] for request in requests], field.dtype)
            for field, place in self._fields
        }
        for one, place in self._inputs:
            arguments[one.feature] = as_array([cells[place] for cells in rows], one.dtype)
        results = self._compute(arguments)
        for number, cells in enumerate(rows):
            cells += [results[name][number] for name in self._outputs]


class _ViewReader:
    """What is known of one view; instead of values older than `ttl_us` there are the `stale`."""

    def __init__(self, view: ResolvedView, service: ResolvedService) -> None:
        places = {key.name: place for place, key in enumerate(service.keys)}
        self.key_places = tuple(places[key.name] for key in view.keys)
        self.space, self.defaults = view.space, view.defaults
        self.ttl_us = _FOREVER_US if view.ttl_us is None else view.ttl_us
        self.stale = (None,) * len(view.columns)
        self.decode = RecordCodec(view.columns).decode
