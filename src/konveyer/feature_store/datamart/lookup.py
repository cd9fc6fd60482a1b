"""Reading features online: the part of a prediction that happens before the model.

Needs the store and the codec, and neither Arrow nor SQL.
"""

from collections.abc import Sequence

from konveyer.core.clock import FeatureClock
from konveyer.feature_store.definitions.resolved import ResolvedService, ResolvedView
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
    return tuple(nothing[feature.view, feature.feature] for feature in service.features)


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
        order = {view.name: place for place, view in enumerate(service.views)}
        self._picks = [
            (
                order[feature.view],
                [column.name for column in service.views[order[feature.view]].columns].index(
                    feature.feature
                ),
            )
            for feature in service.features
        ]

    def rows(self, keys: Sequence[KeyValues]) -> list[tuple[Value, ...] | None]:
        """The features of each entity, in the order of the service; `keys` in that of its keys.

        An entity that no view knows gives None. One read of the store for each view.
        """
        now_us = self._clock.now_us()
        by_view = [view.read(self._store, keys, now_us) for view in self._views]
        answers: list[tuple[Value, ...] | None] = []
        for place in range(len(keys)):
            known = [rows[place] for rows in by_view]
            if not any(found for found, _ in known):
                answers.append(None)
                continue
            answers.append(tuple(known[view][1][column] for view, column in self._picks))
        return answers


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
