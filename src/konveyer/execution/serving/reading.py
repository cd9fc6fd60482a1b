"""The features of a request: given by the caller, read online, or those that stand in."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from konveyer.bundle.manifest import Serving
from konveyer.bundle.values import checked_fallbacks
from konveyer.core.clock import FeatureClock
from konveyer.execution.serving.contract import AskedRow
from konveyer.execution.serving.errors import StoreTooSlow
from konveyer.execution.serving.remote_reads import RemoteReads
from konveyer.execution.serving.room import Portion
from konveyer.feature_store.datamart.lookup import OnlineLookup
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.online.base import OnlineStore, OnlineStoreUnavailable
from konveyer.feature_store.online.codec import Value

Row = tuple[Value, ...]


class Found(NamedTuple):
    """A row for each that was asked for, None where nothing is known of the entity.

    `fallbacks` names the features that stand in for an online store that did not answer.
    """

    rows: list[Row | None]
    fallbacks: tuple[str, ...] = ()


class FeatureReader:
    """Reads for one version. A local store is read at once, one on a network by `remote`.

    Requests that wait for one on a network take of `portion`.
    """

    def __init__(
        self,
        service: ResolvedService,
        serving: Serving,
        store: OnlineStore,
        remote: RemoteReads | None,
        clock: FeatureClock,
        portion: Portion,
    ) -> None:
        self._lookup = OnlineLookup(service, store, clock)
        self._remote, self._portion = remote, portion
        self._within_s = serving.deadline_ms / 1000
        self._names = tuple(column.name for column in service.columns)
        self._fallbacks = checked_fallbacks(service, serving)

    async def rows(self, asked: Sequence[AskedRow]) -> Found:
        """In the order asked; features in that of the service."""
        unread = [row for row in asked if row.keys is not None]
        try:
            found = iter(await self._read(unread))
        except (OnlineStoreUnavailable, StoreTooSlow):
            if any(len(row.given.keys() | self._fallbacks) < len(self._names) for row in unread):
                raise
            missing = {
                place for row in unread for place in self._fallbacks if place not in row.given
            }
            return Found(
                [self._filled({**self._fallbacks, **row.given}) for row in asked],
                tuple(self._names[place] for place in sorted(missing)),
            )
        if len(unread) == len(asked):
            return Found([*found])
        return Found(
            [self._filled(row.given) if row.keys is None else next(found) for row in asked]
        )

    async def _read(self, asked: Sequence[AskedRow]) -> list[Row | None]:
        if not asked:
            return []
        lookup = self._lookup
        keys = [row.keys for row in asked if row.keys is not None]
        requests = [row.fields for row in asked]
        given = [row.given for row in asked] if any(row.given for row in asked) else ()
        if self._remote is None:
            return lookup.rows(keys, requests, given)
        with self._portion:
            records = await self._remote.get(lookup.places(keys), within_s=self._within_s)
        return lookup.found(records, len(keys), requests, given)

    def _filled(self, values: Mapping[int, Value]) -> Row:
        return tuple([values[place] for place in range(len(self._names))])
