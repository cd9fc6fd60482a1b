"""Landing: pushed rows become online values at once, as ETL would publish them.

What is evaluated for an entity are its rows of the view's readable table, those of the pushes that
came since that table was written (the tail), and the new ones. Whoever puts such values online
holds the lock of pushes, so that a later push is never overwritten by an earlier one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy.orm import Session

from konveyer.catalog.session import Catalog
from konveyer.core.errors import KonveyerError, explained
from konveyer.core.schema import UnsupportedType, arrow_schema, parse_dtype
from konveyer.feature_store.definitions.definition import Kind
from konveyer.feature_store.definitions.view import FeatureView
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.etl import runs
from konveyer.feature_store.etl.forgotten import Forgotten, forgotten_in, without_forgotten
from konveyer.feature_store.etl.limits import outside
from konveyer.feature_store.etl.materialize import Snapshot, publish, snapshot_of
from konveyer.feature_store.kernel.errors import naming_view
from konveyer.feature_store.offline.bucket_writer import conformed
from konveyer.feature_store.offline.delta import DeltaOfflineStore
from konveyer.feature_store.offline.in_order import sorted_rows
from konveyer.feature_store.offline.layout import BUCKET, MOST_BUCKETS, layout_sql
from konveyer.feature_store.offline.table_version import TableRef, TableVersion
from konveyer.feature_store.online.base import OnlineStore
from konveyer.feature_store.online.codec import RecordCodec
from konveyer.feature_store.registry.check import SourceForm
from konveyer.feature_store.registry.compile import CompiledView
from konveyer.feature_store.registry.landing import pushed_sources, why_not_at_once
from konveyer.feature_store.registry.lookup import (
    active_versions,
    compiled_view,
    source_forms,
    state_at,
)
from konveyer.feature_store.registry.state import RegistryState
from konveyer.feature_store.sources.pushes import last_push, listed_segments, note_not_online
from konveyer.feature_store.sources.segments import ListedSegment, locked_pushes, read_segments

Held = Callable[[Session], Iterable[tuple[str, str]]]
_FOR_EVER_US = 2**62
_MOST_CHUNKS = 64
_ROW = "konveyer_row"


class PushedValueRefused(KonveyerError):
    """Pushed rows give a view a value that its definition does not accept; nothing was kept."""

    code = "pushed_value_refused"


class PushesNotOnline(KonveyerError):
    """What was pushed while a view was computed is not online in it."""

    code, status = "pushes_not_online", HTTPStatus.SERVICE_UNAVAILABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class LandingView:
    """A version of a view whose rows are each made of one pushed row.

    With `at_once` its values are online with the push; `alone` when it reads pushed rows only.
    """

    state: RegistryState
    view: FeatureView
    version: str
    compiled: CompiledView
    forms: Mapping[str, SourceForm]
    sources: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str]:
        return self.view.name, self.version

    @property
    def at_once(self) -> bool:
        return self.view.accuracy == "exact"

    @property
    def alone(self) -> bool:
        read = self.state.sources_of((Kind.VIEW, self.view.name))
        return all(source.pushed or source.sql is not None for source in read)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What a view's pushed rows are added to: its readable table (None before the first run), the
    last push in it, and the moment of its run; and whom it leaves out.
    """

    table: TableRef | None
    last: int
    as_of_us: int
    forgotten: tuple[Forgotten, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tail:
    """The rows that a view makes of the pushes after its base and until number `until`."""

    base: Base
    until: int
    rows: pa.Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What new rows make of a view; `values` are None where they are not to be online now."""

    view: LandingView
    base: Base
    rows: pa.Table
    values: Snapshot | None


class Landing:
    """Evaluates pushed rows and puts the values online. One thread at a time: hold `lock`.

    `engine` runs SQL over a few rows: one of this process. `held` names versions of views that are
    to be served besides those that hold now. It remembers definitions, logs of tables and tails, so
    that a push costs what it brings.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        engine: Engine,
        offline: DeltaOfflineStore,
        online: OnlineStore,
        folder: Path,
        held: Held,
    ) -> None:
        self._catalog, self._engine, self._offline, self._online = catalog, engine, offline, online
        self._folder, self._held = folder, held
        self._views: dict[tuple[str, str], LandingView | None] = {}
        self._tables: dict[tuple[str, str], TableVersion] = {}
        self._tails: dict[tuple[str, str], _Tail] = {}

    @property
    def lock(self) -> AbstractContextManager[None]:
        return locked_pushes(self._folder)

    def views(self, session: Session) -> list[LandingView]:
        """All that hold now, and those that are held."""
        active = active_versions(session)
        wanted = {(name, at): None for (kind, name), at in active.items() if kind is Kind.VIEW}
        wanted |= dict.fromkeys(self._held(session))
        for gone in self._views.keys() - wanted.keys():
            del self._views[gone]
        for key in wanted:
            if key not in self._views:
                self._views[key] = _loaded(session, *key)
        return [view for key in wanted if (view := self._views[key]) is not None]

    def base(self, session: Session, view: LandingView) -> Base | None:
        """None when the view waits for its first run, because it reads more than pushed rows."""
        forgotten = forgotten_in(session, view.view.entity, view.compiled.layout.keys)
        try:
            ref, run = runs.readable_table(session, *view.key)
        except runs.ViewNotComputed:
            if not view.alone:
                return None
            return Base(table=None, last=0, as_of_us=0, forgotten=forgotten)
        return Base(table=ref, last=run.last_push or 0, as_of_us=run.as_of_us, forgotten=forgotten)

    def evaluate(
        self,
        view: LandingView,
        base: Base,
        new: Mapping[str, pa.Table],
        *,
        until: int,
        at_us: int,
    ) -> Evaluated:
        """What `new` rows, by source, make of the view after the pushes until number `until`.

        Raises `PushedValueRefused` where the definition does not accept it.
        """
        rows = self._made(view, base, new)
        values = None
        if view.at_once and len(rows):
            values = self._values(view, base, rows, [self._tail(view, base, until), rows], at_us)
        checked = values.features if values is not None and view.view.is_windowed else rows
        if not view.view.is_windowed or values is not None:
            _check(view.view, checked)
        return Evaluated(view=view, base=base, rows=rows, values=values)

    def put(self, one: Evaluated, *, number: int) -> None:
        """Put the values of push `number` online, and remember its rows."""
        key = one.view.key
        if one.values is not None:
            with naming_view(one.view.view.name):
                publish(*key, RecordCodec(one.view.compiled.columns), one.values, self._online)
        tail = self._tails.get(key)
        if tail is not None and (tail.base, tail.until) == (one.base, number - 1):
            rows = _joined([tail.rows, one.rows])
            self._tails[key] = _Tail(base=one.base, until=number, rows=rows)

    def land_again(self, pushes: Mapping[int, str]) -> dict[int, tuple[str, ...]]:
        """Put what was pushed before online once more; the views of each push. It is harmless.

        `pushes` are sources by number. They may be many, so that all from the first to the last are
        put at once.
        """
        with self._catalog.reading() as session:
            views = [(view, self.base(session, view)) for view in self.views(session)]
            last = last_push(session)
            listed = listed_segments(session, after=min(pushes) - 1, until=max(pushes))
        landed: dict[int, tuple[str, ...]] = dict.fromkeys(pushes, ())
        for view, base in views:
            mine = [number for number, source in pushes.items() if source in view.sources]
            if base is None or not view.at_once or not mine:
                continue
            rows = self._made(view, base, self._read(view, listed))
            self._put_again(view, base, rows, last.number, last.arrived_us)
            landed |= {number: (*landed[number], view.view.name) for number in mine}
        return {number: tuple(dict.fromkeys(names)) for number, names in landed.items()}

    def catch_up(self, view: str, version: str) -> None:
        """Put online what was pushed after the view's readable table was begun.

        Where that fails, it is left to the next push: a publication may have undone it.
        """
        with self._catalog.reading() as session:
            found = _loaded(session, view, version)
            base = None if found is None else self.base(session, found)
            last = last_push(session)
        if found is None or base is None or not found.at_once:
            return
        try:
            tail = self._tail(found, base, last.number)
            self._put_again(found, base, tail, last.number, last.arrived_us)
        except (KonveyerError, OSError, pa.ArrowException) as error:
            with self._catalog.transaction() as session:
                note_not_online(session, found.sources, after=base.last)
            cause = explained(error)
            raise PushesNotOnline(
                f"What was pushed while feature view '{view}' was computed is not online until "
                f"the next push to the same source, or run: {cause.message}",
                hint=cause.hint,
            ) from error

    def _put_again(
        self, view: LandingView, base: Base, rows: pa.Table, until: int, at_us: int
    ) -> None:
        if len(rows):
            tail = self._tail(view, base, until)
            values = self._values(view, base, rows, [tail], at_us)
            with naming_view(view.view.name):
                publish(*view.key, RecordCodec(view.compiled.columns), values, self._online)

    def _values(
        self,
        view: LandingView,
        base: Base,
        rows: pa.Table,
        recent: Sequence[pa.Table],
        at_us: int,
    ) -> Snapshot:
        """What is online of the entities of `rows` at `at_us`, given all `recent` rows."""
        keys = list(view.compiled.plan.keys)
        entities = rows.select(keys).group_by(keys, use_threads=False).aggregate([])
        parts = [*self._before(view, base, rows, entities), *recent]
        names = [field.name for field in view.compiled.layout.schema if field.name != BUCKET]
        whole = pa.concat_tables([_of(entities, part.select(names)) for part in parts])
        ordered = sorted_rows(whole, view.compiled.layout.order)
        return snapshot_of(view.compiled, ordered, max(at_us, base.as_of_us))

    def _before(
        self, view: LandingView, base: Base, rows: pa.Table, entities: pa.Table
    ) -> Iterable[pa.Table]:
        """The rows of buckets that the entities fall into, in the readable table."""
        if base.table is None:
            return
        table = self._tables.get(view.key)
        if table is None or table.ref != base.table:
            table = self._tables[view.key] = self._offline.open(base.table)
        buckets = {number % base.table.buckets for number in rows.column(BUCKET).to_pylist()}
        for bucket in sorted(buckets):
            yield table.read(bucket, only=entities.column(0)).table

    def _tail(self, view: LandingView, base: Base, until: int) -> pa.Table:
        tail = self._tails.get(view.key)
        if tail is None or tail.base != base or tail.until > until:
            nothing = view.compiled.layout.schema.empty_table()
            tail = _Tail(base=base, until=base.last, rows=nothing)
        if tail.until < until:
            with self._catalog.reading() as session:
                listed = listed_segments(session, after=tail.until, until=until)
            rows = self._made(view, base, self._read(view, listed))
            tail = _Tail(base=base, until=until, rows=_joined([tail.rows, rows]))
        self._tails[view.key] = tail
        return tail.rows

    def _read(
        self, view: LandingView, listed: Mapping[str, Sequence[ListedSegment]]
    ) -> dict[str, pa.Table]:
        return {
            name: read_segments(view.state.source(name), listed[name], self._folder / name)
            for name in view.sources
            if name in listed
        }

    def _made(self, view: LandingView, base: Base, rows: Mapping[str, pa.Table]) -> pa.Table:
        """The view's rows of pushed `rows`; what else it reads is taken for empty."""
        compiled = without_forgotten(view.compiled, base.forgotten)
        schema = compiled.layout.schema
        if not any(len(table) for table in rows.values()):
            return schema.empty_table()
        with self._engine.session() as session:
            for source in view.state.sources_of((Kind.VIEW, view.view.name)):
                if source.sql is not None:
                    session.attach_query(source.name, source.sql)
                elif source.pushed:
                    nothing = arrow_schema(source.declared).empty_table()
                    session.attach_table(source.name, rows.get(source.name, nothing))
                else:
                    session.attach_table(source.name, _empty(view.forms[source.name]))
            sql = layout_sql(
                compiled.layout, compiled.rows_sql, buckets=MOST_BUCKETS, until_us=_FOR_EVER_US
            )
            made = session.query(sql)
        return pa.Table.from_batches([conformed(b, schema) for b in made.to_batches()], schema)


def _loaded(session: Session, name: str, version: str) -> LandingView | None:
    """None when the view reads no pushed rows, or makes its own of more than one of them."""
    state = state_at(session, name, version)
    view, sources = state.view(name), pushed_sources(state, name)
    if not sources or why_not_at_once(state, view) is not None:
        return None
    return LandingView(
        state=state,
        view=view,
        version=version,
        compiled=compiled_view(session, name, version),
        forms=source_forms(session, state),
        sources=sources,
    )


def _empty(form: SourceForm) -> pa.Table:
    columns = [(name, _arrow(dtype)) for name, dtype in form.columns.items()]
    return pa.schema(columns).empty_table()


def _arrow(dtype: str) -> pa.DataType:
    try:
        return parse_dtype(dtype).arrow
    except UnsupportedType:
        return pa.null()


def _check(view: FeatureView, values: pa.Table) -> None:
    for feature in view.each_feature:
        for _, problem in outside(feature, values.column(feature.name)):
            raise PushedValueRefused(
                f"Feature view '{view.name}', feature '{feature.name}': {problem}.",
                hint="correct the rows, or the limits in the definition; nothing was kept",
            )


def _of(entities: pa.Table, rows: pa.Table) -> pa.Table:
    """The rows of these entities, and of none besides."""
    keys = entities.column_names
    for name in keys:
        rows = rows.filter(pc.is_in(rows.column(name), entities.column(name).combine_chunks()))
    if len(keys) == 1:
        return rows
    # A join of Arrow takes no lists along.
    numbered = rows.select(keys).append_column(_ROW, pa.array(range(len(rows)), pa.int64()))
    mine = numbered.join(entities, keys, join_type="left semi").column(_ROW)
    return rows.take(mine)


def _joined(parts: Sequence[pa.Table]) -> pa.Table:
    table = pa.concat_tables(parts)
    many = any(column.num_chunks > _MOST_CHUNKS for column in table.columns)
    return table.combine_chunks() if many else table
