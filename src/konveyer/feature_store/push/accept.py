"""A push: rows of a source, kept exactly once for each idempotency key, and online at once."""

import hashlib
import logging
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.catalog.session import Catalog
from konveyer.core.clock import FeatureClock
from konveyer.core.digests import table_digest
from konveyer.core.errors import Conflict, KonveyerError, did_you_mean, explained
from konveyer.core.schema import ColumnType
from konveyer.core.texts import is_unicode
from konveyer.feature_store.definitions.definition import Kind
from konveyer.feature_store.definitions.pushed import ARRIVAL
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.etl.flow import EtlServices
from konveyer.feature_store.etl.forgotten import forgotten_digests, forgotten_entities
from konveyer.feature_store.etl.landing import Base, Evaluated, Held, LandingView
from konveyer.feature_store.offline.identity import key_digest
from konveyer.feature_store.push.compaction import compact
from konveyer.feature_store.push.errors import (
    BadIdempotencyKey,
    EntityForgotten,
    IdempotencyKeyReused,
    PushNotOnline,
    SourceNotFound,
    SourceNotPushed,
)
from konveyer.feature_store.push.rows import checked_rows
from konveyer.feature_store.registry.landing import row_keys
from konveyer.feature_store.registry.lookup import active_state, active_versions
from konveyer.feature_store.registry.state import RegistryState
from konveyer.feature_store.sources.pushes import (
    LastPush,
    PushRow,
    SegmentRow,
    find_push,
    last_push,
    not_online,
    note_online,
)
from konveyer.feature_store.sources.segments import write_segment

_log = logging.getLogger(__name__)
_LONGEST_KEY = 255
# A process that begins reads all segments since the last run, so that they must not become many.
_COMPACTED_EVERY = 500
# Only machines that do not share the lock of a folder can be in each other's way.
_ATTEMPTS = 20


class PushesCollide(Conflict):
    """Other machines push all the time, and this one did not get its turn."""

    code = "pushes_collide"


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """What was kept: `rows` of `source` as push `number`, at `arrived_us`; `online` names the views
    that have them by now. The same for every repetition of its key.

    `number` is 0 after a dry run, and `online` names the views that would have them.
    """

    source: str
    number: int
    rows: int
    arrived_us: int
    online: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """Rows that were looked at, with the digests of their key and of themselves."""

    source: Source
    key: str
    content: str
    rows: pa.Table
    person: str


class Pusher:
    """Takes pushes of one workspace. Thread-safe; keep it, for it remembers what pushes need."""

    def __init__(self, services: EtlServices, clock: FeatureClock, *, held: Held) -> None:
        self._services, self._clock = services, clock
        self._landing = services.landing(held)
        self._known: tuple[dict[tuple[Kind, str], str], RegistryState] | None = None

    def push(
        self, actor: Actor, source: str, rows: Any, *, key: str, dry_run: bool = False
    ) -> Push:
        """Keep `rows` and put them online; a repetition of `key` changes nothing.

        `rows` are mappings, or what Arrow reads (a table, a Polars or a pandas frame). Either all
        are kept or an error says what is wrong with which. The rows are kept by the time that this
        returns, also when the machine loses power; when it raises `PushNotOnline` too. Otherwise
        repeating the push with the same key tells.
        """
        actor.require(Permission.PUSH_ROWS)
        _check_key(key)
        with self._catalog.reading() as session:
            state = self._state(session)
        found = _pushed_source(state, source)
        table = checked_rows(found, row_keys(state, found), rows, now_us=self._clock.now_us())
        offer = _Offer(
            source=found,
            key=hashlib.sha256(key.encode()).hexdigest(),
            content=table_digest(table),
            rows=table,
            person=actor.name,
        )
        with self._landing.lock:
            for _ in range(_ATTEMPTS):
                done = self._attempt(offer, dry_run=dry_run)
                if done is not None:
                    return done
        raise PushesCollide("Others push at the same time.", hint="push again, with the same key")

    @property
    def _catalog(self) -> Catalog:
        return self._services.catalog

    @cached_property
    def _folder(self) -> Path:
        return self._services.pushed

    def _state(self, session: Session) -> RegistryState:
        versions = active_versions(session)
        known = self._known
        if known is None or known[0] != versions:
            known = self._known = (versions, active_state(session))
        return known[1]

    def _attempt(self, offer: _Offer, *, dry_run: bool) -> Push | None:
        """None when somebody else pushed between the look at the catalog and the commit."""
        with self._catalog.reading() as session:
            before = find_push(session, offer.source.name, offer.key)
            last = last_push(session)
            _refuse_forgotten(session, offer)
            left = {row.number: row.source for row in not_online(session)}
            views = [
                (view, base)
                for view in self._landing.views(session)
                if offer.source.name in view.sources
                and (base := self._landing.base(session, view)) is not None
            ]
        if before is not None:
            _check_same(before, offer)
            if before.number in left and not dry_run:
                self._land_again(left, before.source, before.number)
            return self._answer(offer, before.number)
        number, arrived_us = last.number + 1, max(self._clock.now_us(), last.arrived_us)
        arrived_us = max(arrived_us, _newest_us(offer))
        rows = _arrived(offer, arrived_us)
        evaluated = list(self._evaluated(views, offer, rows, last, arrived_us))
        online = tuple(one.view.view.name for one in evaluated if one.view.at_once)
        push = Push(
            source=offer.source.name,
            number=0 if dry_run else number,
            rows=len(rows),
            arrived_us=arrived_us,
            online=tuple(dict.fromkeys(online)),
        )
        if dry_run:
            return push
        if not self._commit(offer, push, rows):
            return None
        self._put(push, evaluated, left)
        return push

    def _evaluated(
        self,
        views: list[tuple[LandingView, Base]],
        offer: _Offer,
        rows: pa.Table,
        last: LastPush,
        at_us: int,
    ) -> Iterator[Evaluated]:
        new = {offer.source.name: rows}
        for view, base in views:
            yield self._landing.evaluate(view, base, new, until=last.number, at_us=at_us)

    def _commit(self, offer: _Offer, push: Push, rows: pa.Table) -> bool:
        """The file first, then the rows that make it a push."""
        name = f"{push.number:012d}-{secrets.token_hex(4)}.parquet"
        file = self._folder / push.source / name
        write_segment(file, rows)
        try:
            with self._catalog.transaction() as session:
                session.add(
                    PushRow(
                        number=push.number,
                        source=push.source,
                        key=offer.key,
                        content=offer.content,
                        rows=push.rows,
                        arrived_us=push.arrived_us,
                        person=offer.person,
                    )
                )
                session.add(
                    SegmentRow(
                        source=push.source,
                        first=push.number,
                        last=push.number,
                        name=name,
                        rows=push.rows,
                        first_us=push.arrived_us,
                        last_us=push.arrived_us,
                    )
                )
        except IntegrityError:
            file.unlink(missing_ok=True)
            return False
        return True

    def _put(self, push: Push, evaluated: list[Evaluated], left: dict[int, str]) -> None:
        """Online, after what was `left`: whatever is away, these rows are kept by now."""
        if left:
            self._land_again(left, push.source, push.number)
        try:
            for one in evaluated:
                self._landing.put(one, number=push.number)
        except KonveyerError as error:
            raise _not_online(push.number, error) from error
        with self._catalog.transaction() as session:
            note_online(session, push.number, push.online)
        if push.number % _COMPACTED_EVERY == 0:
            self._compact()

    def _compact(self) -> None:
        """The push is done: whatever this meets, the next one tries again."""
        try:
            compact(self._catalog, self._folder)
        except (OSError, pa.ArrowException):
            _log.exception("segments could not be merged")

    def _land_again(self, left: dict[int, str], source: str, kept: int) -> None:
        """What a killed process, or an online store that was away, left behind. Errors of the same
        `source` are of push `kept`; those of others are for who pushes to them.
        """
        for other in dict.fromkeys([source, *left.values()]):
            mine = {number: of for number, of in left.items() if of == other}
            if not mine:
                continue
            try:
                landed = self._landing.land_again(mine)
            except (KonveyerError, OSError, pa.ArrowException) as error:
                if other == source:
                    raise _not_online(kept, explained(error)) from error
                _log.error("what was pushed to '%s' is still not online: %s", other, error)
                continue
            with self._catalog.transaction() as session:
                for number, views in landed.items():
                    note_online(session, number, views)

    def _answer(self, offer: _Offer, number: int) -> Push:
        with self._catalog.reading() as session:
            row = session.get_one(PushRow, number)
        return Push(
            source=offer.source.name,
            number=row.number,
            rows=row.rows,
            arrived_us=row.arrived_us,
            online=tuple(row.online or ()),
        )


def _check_key(key: str) -> None:
    if not 0 < len(key) <= _LONGEST_KEY or not is_unicode(key):
        raise BadIdempotencyKey(
            f"A push needs an idempotency key of 1 to {_LONGEST_KEY} characters.",
            hint="give each push a key of its own, and the same one when you repeat it",
        )


def _pushed_source(state: RegistryState, name: str) -> Source:
    names = state.names(Kind.SOURCE)
    if name not in names:
        pushed = [known for known in names if state.source(known).pushed]
        raise SourceNotFound(
            f"Source '{name}' is not registered.",
            hint=did_you_mean(name, pushed, otherwise="define it, then run 'konveyer apply'"),
        )
    source = state.source(name)
    if not source.pushed:
        raise SourceNotPushed(
            f"Source '{name}' has its rows from {source.place}.",
            hint="push to a source that is defined with `pushed` columns",
        )
    return source


def _check_same(before: PushRow, offer: _Offer) -> None:
    if before.content != offer.content:
        raise IdempotencyKeyReused(
            f"This idempotency key came before with other rows: push {before.number} to "
            f"'{offer.source.name}'.",
            hint="use a new key for other rows; nothing was kept",
        )


def _refuse_forgotten(session: Session, offer: _Offer) -> None:
    """Rows of whom the catalog keeps the digest, in columns that are named like its join keys."""
    dtypes = {column.name: column.dtype for column in offer.source.pushed}
    for name, keys in forgotten_entities(session):
        if any(dtypes.get(key.name) != _as_pushed(key.dtype) for key in keys):
            continue
        digests = set(forgotten_digests(session, name))
        columns = [offer.rows.column(key.name).to_pylist() for key in keys]
        for row, values in enumerate(zip(*columns, strict=True), 1):
            if None in values:
                continue  # of nobody, in a source that no view of the entity reads
            typed = [
                _canonical(value) if key.dtype is ColumnType.UUID else value
                for key, value in zip(keys, values, strict=True)
            ]
            if key_digest(typed) in digests:
                raise EntityForgotten(
                    f"Source '{offer.source.name}', row {row}: this {name} was forgotten.",
                    hint="leave its rows out; nothing was kept",
                )


def _as_pushed(dtype: ColumnType) -> ColumnType:
    return ColumnType.STRING if dtype is ColumnType.UUID else dtype


def _canonical(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        return text


def _newest_us(offer: _Offer) -> int:
    """A sender's clock may be a little ahead of ours: no row arrives before it happened."""
    import pyarrow.compute as pc

    times = offer.rows.column(offer.source.event_time or "")
    newest: int = pc.max(times.cast(pa.int64())).as_py()
    return newest


def _arrived(offer: _Offer, arrived_us: int) -> pa.Table:
    times = pa.repeat(pa.scalar(arrived_us, pa.int64()), len(offer.rows))
    return offer.rows.append_column(ARRIVAL, times.cast(ColumnType.TIMESTAMP.arrow))


def _not_online(number: int, error: KonveyerError) -> PushNotOnline:
    return PushNotOnline(
        f"Push {number} is kept, but not online yet: {error.message}",
        hint="repeat it with the same key; the next push or ETL run puts it online too",
    )
