"""Check definitions against the real data: every source, and every view over its sources."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from konveyer.core.errors import did_you_mean
from konveyer.core.schema import Column, ColumnType, Dtype, UnsupportedType, column_type
from konveyer.feature_store.definitions.definition import Kind
from konveyer.feature_store.definitions.on_demand import OnDemandView
from konveyer.feature_store.definitions.python_code import callable_of
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.definitions.view import FeatureView
from konveyer.feature_store.engines.base import Engine, QueryFailed, SourceUnreadable
from konveyer.feature_store.kernel.on_demand import OnDemandComputation, as_array
from konveyer.feature_store.offline.layout import quoted
from konveyer.feature_store.registry.compile import CompiledView, compile_view
from konveyer.feature_store.registry.errors import SourceChanged, SqlInvalid
from konveyer.feature_store.registry.landing import check_landing
from konveyer.feature_store.registry.python_view import call_on_nothing
from konveyer.feature_store.registry.sql import columns_named, nestable
from konveyer.feature_store.registry.state import Key, RegistryState, registry_state
from konveyer.feature_store.sources.attach import attach
from konveyer.feature_store.sources.errors import UnknownColumn, WrongType
from konveyer.feature_store.sources.files import files_of, later_columns, unchanged
from konveyer.feature_store.sources.kind import Places, SourceKind, kind_of
from konveyer.feature_store.sources.staging import staging_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceForm:
    """A source as it was found: its kind, and its columns with their types."""

    kind: SourceKind
    columns: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Definitions that fit the data. The versions in `state` cover the types that views have."""

    state: RegistryState
    views: dict[str, CompiledView]
    sources: dict[str, SourceForm]


def check_definitions(state: RegistryState, engine: Engine, places: Places) -> Checked:
    """Look at every source, also at those that no view reads, then compile every view.

    Raises the first thing that does not fit. Columns are looked at, and of sources that do not know
    their types the first rows; rows are not computed.
    """
    sources, views = {}, {}
    with engine.session() as session:
        for source in state.sources():
            sources[source.name], columns = _attached(source, session, places, None)
            _check_times(source, columns)
            _check_keys(state, source, columns)
        for name in state.names(Kind.VIEW):
            check_landing(state, state.view(name))
            views[name] = _compiled(state, name, session, places, sources)
            _check_known(state, state.view(name), views[name])
            if views[name].code is not None:
                call_on_nothing(name, views[name])
        for name in state.names(Kind.ON_DEMAND):
            _try_on_nulls(state.on_demand(name), views)
    types = {name: _types_of(view) for name, view in views.items()}
    checked = registry_state(state.definitions.values(), types)
    return Checked(state=checked, views=views, sources=sources)


@contextmanager
def sources_attached(
    state: RegistryState,
    view: str,
    compiled: CompiledView,
    found: Mapping[str, SourceForm],
    *,
    engine: Engine,
    places: Places,
) -> Iterator[Engine]:
    """A session in which all that `view` reads are tables with rows, for the block.

    Raises `SourceChanged` where it has other columns than when it was applied (`compiled`, and
    `found` by source), as far as they matter to the view, and `SourceChangedMeanwhile` at the end
    of the block.
    """
    sources = state.sources_of((Kind.VIEW, view))
    with (
        unchanged(sources, places),
        staging_folder(places.staging) as folder,
        engine.session() as session,
    ):
        now: dict[str, SourceForm] = {}
        try:
            for source in sources:
                now[source.name], _ = _attached(source, session, places, folder)
                if now[source.name].kind != found[source.name].kind:
                    was, is_now = found[source.name].kind, now[source.name].kind
                    changes = [f"source '{source.name}' was {was}, and is {is_now}"]
                    raise _changed(view, changes, "its rows would be others.")
            fits = _fits(_compiled(state, view, session, places, now), compiled)
        except (UnknownColumn, WrongType, SqlInvalid, UnsupportedType) as error:
            changes = _changes(found, now)
            if changes:
                raise _changed(view, changes, error.message) from error
            raise
        if not fits:
            problem = "its features would have other types, or be made of others."
            raise _changed(view, _changes(found, now), problem)
        with _naming_sources([name for name, form in now.items() if form.kind != SourceKind.SQL]):
            yield session


@contextmanager
def _naming_sources(sources: Sequence[str]) -> Iterator[None]:
    """What an engine cannot read says whose files they are, as near as the engine tells."""
    try:
        yield
    except SourceUnreadable as error:
        if not any(f"'{name}'" in error.message for name in sources):
            listed = " or ".join(f"'{name}'" for name in sources)
            error.message = f"Source {listed}: {error.message}"
        raise


def _attached(
    source: Source, session: Engine, places: Places, staging: Path | None
) -> tuple[SourceForm, pa.Schema]:
    try:
        kind = attach(source, session, places, staging=staging)
        sql = nestable(source.sql or f"SELECT * FROM {quoted(source.name)}")  # noqa: S608
        columns = session.describe(sql)
    except QueryFailed as error:
        raise SqlInvalid(f"Source '{source.name}': {error.message}", hint=error.hint) from error
    types = {field.name: _type_name(field.type) for field in columns}
    return SourceForm(kind=kind, columns=types), columns


def _compiled(
    state: RegistryState,
    name: str,
    session: Engine,
    places: Places,
    sources: Mapping[str, SourceForm],
) -> CompiledView:
    """The view, checked against the real columns of its attached `sources`."""
    view = state.view(name)
    source = None if view.source is None else state.source(view.source)
    sql = f"SELECT * FROM {quoted(source.name)}" if source else nestable(view.sql or "")  # noqa: S608
    try:
        rows = session.describe(sql)
        result = compile_view(view, state.entity(view.entity), source, rows)
        _check_conditions(view, session, sql)
        given = result.given or result.layout
        for _, expression in given.expressions:
            session.describe(f"SELECT {expression} FROM ({sql}) AS source_rows")  # noqa: S608
    except QueryFailed as error:
        hint = _only_in_later_files(state, name, places, error.message) or error.hint
        raise SqlInvalid(f"Feature view '{name}': {error.message}", hint=hint) from error
    return replace(result, read_types=_read_types(state, view, sources))


def _check_conditions(view: FeatureView, session: Engine, sql: str) -> None:
    """Raise for a `where` that does not fit, with its feature, and for one that is neither true nor
    false: an engine may take numbers for it.
    """
    every = (*view.aggregations, *view.each_aggregation)
    conditions = {one.where: one.name for one in every if one.where is not None}
    for condition, feature in conditions.items():
        try:
            found = session.describe(f"SELECT {condition} FROM ({sql}) AS source_rows")  # noqa: S608
        except QueryFailed as error:
            error.message = f"feature '{feature}', where={condition!r}: {error.message}"
            raise
        if not pa.types.is_boolean(found.field(0).type):
            raise WrongType(
                f"Feature view '{view.name}': where={condition!r} is neither true nor false, but "
                f"{_type_name(found.field(0).type)}.",
                hint='write a comparison, such as where="amount > 0"',
            )


def _only_in_later_files(
    state: RegistryState, view: str, places: Places, message: str
) -> str | None:
    """What to do when a query failed for want of a column that not the first file has."""
    for source in state.sources_of((Kind.VIEW, view)):
        if kind_of(source, places) is not SourceKind.PARQUET:
            continue
        for column, file in later_columns(source, places.root).items():
            if re.search(rf"\b{re.escape(column)}\b", message):
                first = files_of(source, places.root)[0].name
                return (
                    f"source '{source.name}' has '{column}' in {file}, but not in {first}: its "
                    "first file says which columns it has, so write that one with the column too"
                )
    return None


def _try_on_nulls(view: OnDemandView, compiled: Mapping[str, CompiledView]) -> None:
    """Any input may be null: what the function makes of nulls shows its outputs and their shape."""
    types: dict[str, Dtype] = {field.name: field.column.dtype for field in view.request}
    for name, feature in view.input_features:
        types |= {c.name: c.dtype for c in compiled[name].columns if c.name == feature}
    outputs = view.outputs
    compute = OnDemandComputation(view.name, callable_of(view.code), outputs)
    compute({name: as_array([None, None], dtype) for name, dtype in types.items()})


def _check_known(state: RegistryState, view: FeatureView, compiled: CompiledView) -> None:
    """The rows of a view must say when they became known, where those behind them do."""
    if not view.as_known or compiled.layout.created_time is not None:
        return
    for read, source in _known_behind(state, (Kind.VIEW, view.name)):
        where, column = f"Feature view '{view.name}'", source.created_time
        if read is source:
            raise UnknownColumn(
                f"{where} has no column 'created_time', though source '{source.name}' says in "
                f"'{column}' when a row became known: training would see it before.",
                hint=f"select {column} AS created_time (of several the greatest), or say "
                "as_known=False",
            )
        raise UnknownColumn(
            f"{where}: source '{read.name}' has no created_time, though it reads '{source.name}', "
            f"which says in '{column}' when a row became known: training would see it before.",
            hint=f"select {column} in the SQL of '{read.name}' (of several the greatest) and name "
            "it as its created_time, or say as_known=False",
        )


def _known_behind(state: RegistryState, key: Key) -> Iterator[tuple[Source, Source]]:
    """What `key` reads, with the sources behind it that say when their rows became known."""
    for kind, name in state.reads[key]:
        if kind is Kind.SOURCE:
            read = state.source(name)
            if read.created_time is not None:
                yield read, read
            else:
                yield from ((read, source) for _, source in _known_behind(state, (kind, name)))


def _check_times(source: Source, columns: pa.Schema) -> None:
    for role, name in (("event", source.event_time), ("created", source.created_time)):
        if name is not None:
            _check_column(f"Source '{source.name}', {role} time", name, columns, "timestamp")


def _check_keys(state: RegistryState, source: Source, columns: pa.Schema) -> None:
    """The join keys of the views that aggregate `source`."""
    for name in state.names(Kind.VIEW):
        view = state.view(name)
        if view.source == source.name:
            for key in state.entity(view.entity).join_keys:
                if key.dtype == "uuid":
                    continue  # it may come as text, and is looked at with its view
                where = f"Source '{source.name}', join key of feature view '{name}'"
                _check_column(where, key.name, columns, key.dtype)


def _check_column(where: str, name: str, columns: pa.Schema, wanted: str) -> None:
    if name not in columns.names:
        raise UnknownColumn(
            f"{where}: there is no column '{name}'.",
            hint=did_you_mean(
                name, columns.names, otherwise=f"its columns are {', '.join(columns.names)}"
            ),
        )
    found = column_type(columns.field(name).type, where=f"{where}, column '{name}'")
    if found != ColumnType(wanted):
        raise WrongType(
            f"{where}: column '{name}' must be {wanted}, but it is {found}.",
            hint="cast it in a SQL source, or correct the definition",
        )


def _types_of(compiled: CompiledView) -> list[list[str]]:
    """What of a view's form depends on the types of the data."""
    columns = (*_kept(compiled), *_given(compiled))
    named = [[column.name, str(column.dtype)] for column in columns]
    return [*named, *([column, dtype] for column, dtype in compiled.read_types)]


def _kept(compiled: CompiledView) -> list[Column]:
    kept = [column for column, _ in compiled.layout.expressions]
    return [*compiled.layout.keys, *kept, *compiled.columns]


def _given(compiled: CompiledView) -> list[Column]:
    """What a view's function is given, in whatever order the source has it."""
    expressions = () if compiled.given is None else compiled.given.expressions
    return sorted((column for column, _ in expressions), key=lambda column: column.name)


def _fits(now: CompiledView, before: CompiledView) -> bool:
    """Whether the rows are as they were. A function is not given what is new in its source."""
    given, read_types = _given(now), dict(now.read_types)
    return (
        _kept(now) == _kept(before)
        and all(column in given for column in _given(before))
        and all(read_types.get(column) == dtype for column, dtype in before.read_types)
    )


def _read_types(
    state: RegistryState, view: FeatureView, sources: Mapping[str, SourceForm]
) -> tuple[tuple[str, str], ...]:
    """See `CompiledView`. `sources` has all that the view reads."""
    found: dict[str, str] = {}
    for sql, read in _each_sql(state, view):
        names = columns_named(sql, where=f"feature view '{view.name}'")
        for source in read:
            for column, dtype in sources[source].columns.items():
                if names is None or column.lower() in names:
                    found[f"{source}.{column}"] = dtype
    return tuple(sorted(found.items()))


def _each_sql(state: RegistryState, view: FeatureView) -> Iterator[tuple[str, Sequence[str]]]:
    """The conditions and the SQL of a view and of its sources, with the sources that each reads."""
    conditions = [f"({one.where})" for one in view.aggregations if one.where is not None]
    conditions += [quoted(one.by) for one in view.aggregations if one.by is not None]
    if view.source is not None and conditions:
        yield f"SELECT {', '.join(conditions)} FROM source_rows", [view.source]  # noqa: S608
    key = (Kind.VIEW, view.name)
    texts = [(key, view.sql)]
    texts += [((Kind.SOURCE, source.name), source.sql) for source in state.sources_of(key)]
    for reader, sql in texts:
        if sql is not None:
            yield sql, [name for kind, name in state.reads[reader] if kind is Kind.SOURCE]


def _type_name(arrow: pa.DataType) -> str:
    try:
        return str(column_type(arrow, where=""))
    except UnsupportedType:
        return str(arrow)


def _changes(before: Mapping[str, SourceForm], now: Mapping[str, SourceForm]) -> list[str]:
    """Columns that a source lost, or that changed their type. New ones harm nobody."""
    return [
        f"source '{source}', column '{column}' was {was} and is {form.columns.get(column, 'gone')}"
        for source, form in now.items()
        for column, was in before[source].columns.items()
        if form.columns.get(column) != was
    ]


def _changed(view: str, changes: Sequence[str], problem: str) -> SourceChanged:
    said = "; ".join([*changes, problem])
    return SourceChanged(
        f"Feature view '{view}' was applied with other columns: {said}",
        hint="correct the data; or, if this is how it shall be, run 'konveyer apply', which "
        "takes it up",
    )
