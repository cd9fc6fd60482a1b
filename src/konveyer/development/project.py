"""A model project: a folder with `model.toml`, `model.py`, tests and locked requirements."""

import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from konveyer.bundle.manifest import Batch, Isolated, Objective, Serving
from konveyer.bundle.release_policy import Invariant, ReleasePolicy
from konveyer.core.clock import parse_instant
from konveyer.core.errors import KonveyerError, NotFound
from konveyer.feature_store.definitions.duration import parse_duration
from konveyer.feature_store.definitions.resolved import ResolvedService

FILE, SOURCE, TESTS = "model.toml", "model.py", "tests"
REQUIREMENTS, LOCK = "requirements.in", "requirements.lock"


class ProjectNotFound(NotFound):
    code = "project_not_found"


class BadProject(KonveyerError):
    """A `model.toml` that cannot be read or says what cannot be done, or a part that is missing."""

    code = "bad_project"


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ModelSection(_Section, frozen=True):
    """Who the model is. Callers reach it at `/{application}/v{api_version}/predict`.

    `input` is what `train()` and the model are given: a float64 matrix in which texts are codes,
    or a pandas DataFrame with the texts themselves.
    """

    application: str
    api_version: int
    service: str
    description: str = ""
    owner: str = ""
    input: Literal["codes", "frame"] = "codes"


class LabelSection(_Section, frozen=True):
    """What it learns from: two columns of its training set.

    A binary label is 0 or 1, that of several classes a text or a whole number, that of a
    regression a number.
    """

    timestamp: str
    label: str
    task: Literal["binary", "multiclass", "regression"] = "binary"


class SplitSection(_Section, frozen=True):
    """Labels from `out_of_time` on are kept from training and used to measure the model."""

    out_of_time: str


class Project(_Section, frozen=True):
    """The parsed `model.toml`, and the folder it is in."""

    model: ModelSection
    labels: LabelSection
    split: SplitSection
    objective: Objective
    release: ReleasePolicy = ReleasePolicy()
    invariants: tuple[Invariant, ...] = ()
    batch: Batch | None = None
    isolated: Isolated = Isolated()
    serving: Serving = Serving()
    parameters: dict[str, Any] = {}
    folder: Path = Path()

    @property
    def split_us(self) -> int:
        return parse_instant(self.split.out_of_time)


_APPLICATION = re.compile(r"[a-z][a-z0-9-]{0,62}")


def load_project(folder: Path) -> Project:
    """Read and check a project; every part that training and release need must be there."""
    file = folder / FILE
    if not file.is_file():
        raise ProjectNotFound(
            f"{folder} is not a model project: it has no {FILE}.",
            hint="give the folder of a model, such as models/coupon_response",
        )
    try:
        project = msgspec.toml.decode(file.read_bytes(), type=Project)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise BadProject(f"{file}: {error}.", hint="docs/models.md shows a whole file") from error
    _check(project, file)
    for name in (SOURCE, LOCK):
        if not (folder / name).is_file():
            hint = f"run 'konveyer lock {folder}'" if name == LOCK else "add it"
            raise BadProject(f"The project {folder} has no {name}.", hint=hint)
    return msgspec.structs.replace(project, folder=folder.resolve())


def changed_sections(project: Project, other: Project) -> list[str]:
    """The sections of `model.toml` in which two projects differ."""
    before, after = msgspec.structs.asdict(project), msgspec.structs.asdict(other)
    return [name for name in after if name != "folder" and before[name] != after[name]]


def check_batch(project: Project, service: ResolvedService) -> None:
    """Raise when the project's `[batch]` could never score: entities alone lack request fields."""
    if project.batch is not None and service.request:
        names = ", ".join(field.name for field in service.request)
        raise BadProject(
            f"{FILE}: [batch] scores entities alone, and callers of service '{service.name}' send "
            f"{names} with each.",
            hint="remove [batch], and train again; 'konveyer batch run MODEL --table' scores rows "
            "that have them",
        )


def _check(project: Project, file: Path) -> None:
    if not _APPLICATION.fullmatch(project.model.application):
        raise BadProject(
            f"{file}: application '{project.model.application}' cannot stand in a URL.",
            hint="use lower-case letters, digits and '-', a letter first",
        )
    if project.model.api_version < 1:
        raise BadProject(f"{file}: api_version must be 1 or more.", hint="start with 1")
    if project.objective.rate_per_s <= 0 or project.objective.p99_ms <= 0:
        raise BadProject(f"{file}: the objective must be positive.", hint="set rate_per_s, p99_ms")
    if project.batch is not None:
        parse_duration(project.batch.every, where=f"{file}: [batch] every")
    _ = project.split_us
