"""Where an entity is held: the plan of forgetting it."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import msgspec
import numpy as np
import pyarrow as pa
from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.core.errors import KonveyerError, NotFound, did_you_mean
from konveyer.core.schema import ColumnType, ScalarColumn, arrow_schema
from konveyer.feature_store.datamart.manifest import TrainingSetManifest, data_files
from konveyer.feature_store.datamart.tables import TrainingSetRow
from konveyer.feature_store.definitions.definition import Kind, from_spec
from konveyer.feature_store.definitions.entity import Entity
from konveyer.feature_store.etl.flow import EtlServices
from konveyer.feature_store.etl.forgotten import entities_in_use
from konveyer.feature_store.etl.runs import WrittenTable, running_views, written_tables
from konveyer.feature_store.offline.delta import StoredTable
from konveyer.feature_store.offline.files import StoredFile
from konveyer.feature_store.offline.identity import (
    is_unfinished,
    key_digest,
    rows_in_file,
    rows_in_whole_file,
)
from konveyer.feature_store.offline.layout import BUCKET, MOST_BUCKETS, bucket_numbers
from konveyer.feature_store.offline.table_version import (
    OfflineTableUnreadable,
    TableRef,
    unreadable,
)
from konveyer.feature_store.online.codec import encode_key
from konveyer.feature_store.push.forgotten_rows import HeldSegment, segments_with
from konveyer.feature_store.registry.compile import CompiledView
from konveyer.feature_store.registry.lookup import active_versions, space_of
from konveyer.feature_store.registry.tables import DefinitionRow


class EntityNotFound(NotFound):
    code = "entity_not_found"


class BadKey(KonveyerError):
    """Not the join keys of the entity, or not of their types."""

    code = "bad_key"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldTable:
    """A readable table version with rows of the entity, all in one bucket."""

    ref: TableRef
    bucket: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldFile:
    """A file of a table version that is not readable any more, with rows of the entity.

    `rows` is None where a killed run left it unfinished, and nobody can tell. `pinned` when a kept
    training set needs its other rows.
    """

    view: str
    version: str
    path: Path
    rows: int | None
    pinned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSet:
    """A kept training set: `rows` of it are of the entity; `pinned` says whether its tables have
    the entity too, so that building it again would bring the entity back.
    """

    id: str
    rows: int
    pinned: bool
    key: dict[str, int | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Everything that is kept of one entity under `key`.

    `segments` are files of pushed rows. `computing` are views that are being computed and may take
    the entity up once more, `unsearched` versions of views that know their entity by other join
    keys.
    """

    entity: str
    columns: tuple[ScalarColumn, ...]
    key: dict[str, int | str]
    digest: str
    views: tuple[tuple[str, str], ...]
    tables: tuple[HeldTable, ...]
    spaces: tuple[str, ...]
    old_files: tuple[HeldFile, ...]
    segments: tuple[HeldSegment, ...]
    training_sets: tuple[HeldSet, ...]
    computing: tuple[str, ...]
    unsearched: tuple[str, ...]


def find_entity(
    services: EtlServices,
    actor: Actor,
    training_sets: Path,
    entity: str,
    key: Mapping[str, str],
) -> Held:
    """Look for an entity in tables, online records and the training sets kept under a folder.

    `key` gives each join key as text. Only the one bucket that can have the entity is read.
    """
    actor.require(Permission.FORGET_ENTITIES)
    # The disk first: the run that writes a file of the listing is found, unless it has ended.
    stored = services.offline.stored()
    with services.catalog.reading() as session:
        columns = _join_keys(session, entity)
        typed = _typed(entity, columns, key)
        known = dict(_views_of(session, entity, columns))
        written, running = written_tables(session), running_views(session)
        active = set(active_versions(session).items())
        manifests = [
            msgspec.convert(row.manifest, TrainingSetManifest)
            for row in session.scalars(select(TrainingSetRow).order_by(TrainingSetRow.id))
        ]
    views = {view: keys for view, keys in known.items() if keys == columns}
    one = pa.table([[typed[column.name]] for column in columns], schema=arrow_schema(columns))
    search = _Search(
        services=services,
        key=typed,
        bucket=int(bucket_numbers(columns, one)[0]),
        written=written,
        gone={
            (view, version)
            for view, version in views
            if ((Kind.VIEW, view), version) not in active
            and not services.offline.folder_of(view, version).exists()
        },
        pinned={ref for one in manifests for ref in one.tables if (ref.view, ref.version) in views},
    )
    encoded = encode_key(list(typed.values()))
    return Held(
        entity=entity,
        columns=columns,
        key=typed,
        digest=key_digest(list(typed.values())),
        views=tuple(views),
        tables=tuple(held for view in views for held in search.readable(view)),
        spaces=tuple(
            space
            for space in (space_of(*view) for view in views)
            if services.online.get([(space, encoded)]) != [None]
        ),
        old_files=tuple(search.old_files(stored, views, running)),
        segments=tuple(segments_with(services.pushed, columns, typed)),
        training_sets=tuple(
            held for one in manifests for held in search.in_set(one, columns, views, training_sets)
        ),
        computing=tuple(sorted({view for view, version in running if (view, version) in views})),
        unsearched=tuple(f"{view} {version}" for view, version in known.keys() - views.keys()),
    )


def _join_keys(session: Session, entity: str) -> tuple[ScalarColumn, ...]:
    """Of the entity as it is defined now, or was when it was last."""
    rows = session.scalars(
        select(DefinitionRow)
        .where(DefinitionRow.kind == Kind.ENTITY)
        .order_by(DefinitionRow.active.desc(), DefinitionRow.created_us.desc())
    ).all()
    for row in rows:
        if row.name == entity:
            found = from_spec(Kind.ENTITY, row.spec)
            assert isinstance(found, Entity)  # noqa: S101 - the kind says so
            return tuple(key.column for key in found.join_keys)
    names = {row.name for row in rows}
    raise EntityNotFound(
        f"There is no entity '{entity}'.",
        hint=did_you_mean(entity, names, otherwise=f"there are {', '.join(sorted(names))}"),
    )


def _typed(
    entity: str, columns: tuple[ScalarColumn, ...], key: Mapping[str, str]
) -> dict[str, int | str]:
    names = [column.name for column in columns]
    if set(key) != set(names):
        raise BadKey(
            f"Entity '{entity}' is identified by {', '.join(names)}.",
            hint=f"give {' '.join(f'{name}=VALUE' for name in names)}",
        )
    typed: dict[str, int | str] = {}
    for column in columns:
        text = key[column.name]
        try:
            match column.dtype:
                case ColumnType.INT64:
                    typed[column.name] = int(np.int64(int(text)))
                case ColumnType.UUID:
                    typed[column.name] = str(UUID(text))
                case _:
                    text.encode()  # fails for half a surrogate pair, which no data has
                    typed[column.name] = text
        except (ValueError, OverflowError) as error:
            raise BadKey(
                f"'{text}' is no {column.dtype}, as join key '{column.name}' is.",
                hint="write it as it is in the data",
            ) from error
    return typed


def _views_of(
    session: Session, entity: str, columns: tuple[ScalarColumn, ...]
) -> Iterator[tuple[tuple[str, str], tuple[ScalarColumn, ...]]]:
    """Every version that a view of the entity ever had under any name, with its join keys."""
    names, in_use = {column.name for column in columns}, entities_in_use(session)
    for row in session.scalars(select(DefinitionRow).where(DefinitionRow.kind == Kind.VIEW)):
        keys = msgspec.convert(row.compiled, CompiledView).layout.keys
        of = row.spec["entity"]
        is_earlier_name = of not in in_use and {key.name for key in keys} == names
        if of == entity or is_earlier_name:
            yield (row.name, row.version), keys


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    services: EtlServices
    key: dict[str, int | str]
    bucket: int
    written: Mapping[tuple[str, str], Sequence[WrittenTable]]
    # No longer in force, and lost with their folder: no run repairs them.
    gone: Set[tuple[str, str]]
    pinned: set[TableRef]

    def readable(self, view: tuple[str, str]) -> Iterator[HeldTable]:
        for one in () if view in self.gone else self.written.get(view, ())[-1:]:
            there = [path for path in self._paths(one.ref) if path.exists()]
            try:
                rows = sum(rows_in_whole_file(path, self.key) for path in there)
            except (OSError, pa.ArrowException) as error:
                raise unreadable(one.ref, error) from error
            if rows:
                bucket = self.bucket % one.ref.buckets
                yield HeldTable(ref=one.ref, bucket=bucket, rows=rows)

    def _paths(self, ref: TableRef) -> set[Path]:
        """The files of a table version that can have the entity."""
        return {file.path for file in self.services.offline.open(ref).files_of(self.bucket)}

    def _old_paths(self, ref: TableRef) -> set[Path]:
        """The same of a version that need not be there any more."""
        try:
            return self._paths(ref)
        except OfflineTableUnreadable:
            return set()

    def _rows_in(self, paths: set[Path]) -> int:
        return sum(rows_in_file(path, self.key) for path in paths)

    def old_files(
        self,
        stored: Sequence[StoredTable],
        views: Mapping[tuple[str, str], object],
        running: Set[tuple[str, str]],
    ) -> Iterator[HeldFile]:
        pinned = {path for ref in self.pinned for path in self._old_paths(ref)}
        for table in stored:
            key = table.view, table.version
            if key not in views:
                continue
            for file in self._not_readable(table):
                rows: int | None = rows_in_file(file.path, self.key)
                if key not in running and file.path not in pinned and is_unfinished(file.path):
                    rows = None
                if rows != 0:
                    yield HeldFile(
                        view=table.view,
                        version=table.version,
                        path=file.path,
                        rows=rows,
                        pinned=file.path in pinned,
                    )

    def _not_readable(self, table: StoredTable) -> Iterator[StoredFile]:
        """Files in folders of the entity's bucket, whatever number of buckets the table had."""
        needed: set[Path] = set()
        for one in self.written.get((table.view, table.version), ())[-1:]:
            needed = self._paths(one.ref)
        counts = [2**power for power in range(MOST_BUCKETS.bit_length())]
        folders = {f"{BUCKET}={self.bucket % count}" for count in counts}
        for file in table.files:
            if file.path.parent.name in folders and file.path not in needed:
                yield file

    def in_set(
        self,
        manifest: TrainingSetManifest,
        columns: tuple[ScalarColumn, ...],
        views: Mapping[tuple[str, str], object],
        folder: Path,
    ) -> Iterator[HeldSet]:
        named = dict(zip((key.name for key in manifest.service.keys), manifest.keys, strict=True))
        if not set(self.key) <= set(named):
            return
        key = {named[column.name]: self.key[column.name] for column in columns}
        refs = [ref for ref in manifest.tables if (ref.view, ref.version) in views]
        files = data_files(folder / manifest.id) if refs else []
        rows = sum(rows_in_file(file, key) for file in files)
        pinned = any(self._rows_in(self._old_paths(ref)) for ref in refs)
        if rows or pinned:
            yield HeldSet(id=manifest.id, rows=rows, pinned=pinned, key=key)
