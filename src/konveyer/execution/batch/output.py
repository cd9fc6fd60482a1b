"""The table of scores of a model: a Delta table that is replaced period by period.

A row has the join keys, the event time, the outputs, and the bundle and release that gave them; the
period's name is in the log of the table. Any source of features can read it.
"""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from konveyer.bundle.manifest import Manifest
from konveyer.core.errors import Conflict
from konveyer.core.files import locked
from konveyer.core.schema import arrow_schema
from konveyer.feature_store.kernel.history import EVENT_TIME
from konveyer.feature_store.offline.delta import (
    PartFile,
    remove_replaced,
    replace_part,
    schema_at,
)

PERIOD, BUNDLE, RELEASE = "period", "bundle", "release"
_KEEP_REPLACED_HOURS = 168


class ScoresDiffer(Conflict):
    """A table of scores has other columns than the model that should write to it."""

    code = "scores_differ"


class ScoreColumnsClash(Conflict):
    """A join key or an output is called like a column that every table of scores has."""

    code = "score_columns_clash"


def scores_schema(manifest: Manifest) -> pa.Schema:
    """The columns that scores of the model have, the one of the period last."""
    texts = [pa.field(name, pa.string()) for name in (BUNDLE, RELEASE, PERIOD)]
    time = pa.field(EVENT_TIME, pa.timestamp("us", "UTC"))
    keys, outputs = arrow_schema(manifest.service.keys), arrow_schema(manifest.model.outputs)
    return pa.schema([*keys, time, *outputs, *texts])


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """The scores of one version of a model, below one folder."""

    folder: Path

    def check(self, manifest: Manifest) -> None:
        """Raise when the table cannot take scores of the model.

        It takes outputs that it has no columns of yet, and scores of an earlier release that lacks
        some that it has: where there is none, a row has a null.
        """
        found, wanted = schema_at(self.folder), scores_schema(manifest)
        # Delta tells no columns apart that differ in case only.
        called = Counter(name.lower() for name in wanted.names)
        twice = [name for name in wanted.names if called[name.lower()] > 1]
        if twice:
            raise ScoreColumnsClash(
                f"A table of scores would have two columns '{twice[0]}'.",
                hint="rename the join key or the output of the model: scores have "
                f"{EVENT_TIME}, {BUNDLE}, {RELEASE} and {PERIOD} too",
            )
        if found is not None and not _go_together(found, wanted):
            has, gives = (
                ", ".join(f"{field.name} {field.type}" for field in one) for one in (found, wanted)
            )
            raise ScoresDiffer(
                f"{self.folder} has the columns {has}, and the model gives {gives}.",
                hint="raise the api_version of the model, or move the table away",
            )

    def replace(self, manifest: Manifest, period: str, files: Sequence[PartFile]) -> int:
        """Let the rows of `files`, which stand beside the table, be those of the period.

        The files are moved, in one commit. Gives the table version. Repeating it is harmless.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder.with_name(f".{self.folder.name}.lock")):
            parts = [self._taken_in(file) for file in files]
            schema = _widened(schema_at(self.folder), scores_schema(manifest))
            version = replace_part(self.folder, schema, PERIOD, period, [*parts])
            # What is replaced stays for a while for those who read it, and what a kill left too.
            remove_replaced(self.folder, after_hours=_KEEP_REPLACED_HOURS)
        return version

    def _taken_in(self, file: PartFile) -> PartFile:
        name = f"part-{secrets.token_hex(16)}.parquet"
        Path(file.path).rename(self.folder / name)
        return replace(file, path=name)


def table_of(scores: Path, application: str, api_version: int) -> ScoreTable:
    return ScoreTable(scores / application / f"v{api_version}")


def _go_together(found: pa.Schema, wanted: pa.Schema) -> bool:
    """Whether one has all columns of the other, with the same types."""
    names = {*found.names} & {*wanted.names}
    is_part = len(names) == min(len(found), len(wanted))
    return is_part and all(found.field(name).type == wanted.field(name).type for name in names)


def _widened(found: pa.Schema | None, wanted: pa.Schema) -> pa.Schema:
    """The columns of the table and what is new, the one of the period last."""
    known = wanted if found is None else found
    new = [field for field in wanted if field.name not in known.names]
    rest = [field for field in known if field.name != PERIOD]
    return pa.schema([*rest, *new, wanted.field(PERIOD)])
