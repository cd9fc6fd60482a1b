"""The manifest of a bundle: the contract between development and execution."""

from typing import Any

from msgspec import Struct

from konveyer.bundle.release_policy import Invariant, ReleasePolicy
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.feature_store.definitions.resolved import ResolvedService

FORMAT = 1
MANIFEST, COMPILED, MODEL = "manifest.json", "model", "model/model.txt"
PREPARATION, LINEAR = "model/preparation.json", "model/linear.json"
ONNX, CALIBRATED = "model/model.onnx", "model/calibrated.json"
GOLDEN, ENTITIES, NATIVE = "golden.json", "entities.json", "native"
ISOLATED = "isolated"
LOCK, TRAINING, CODE = "environment.lock", "training_manifest.json", "code"


class Objective(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What callers are promised: requests a second at this 99th percentile of answer time."""

    rate_per_s: float
    p99_ms: float


class Serving(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a node answers for the model: `[serving]` of model.toml.

    Callers may send values for the features named in `given`. When the online store has not
    answered after `deadline_ms`, the features are those of `fallbacks`, which then names every
    feature that is read online; without any the request fails.
    """

    given: tuple[str, ...] = ()
    deadline_ms: float = 1000.0
    fallbacks: dict[str, Any] = {}


class Batch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scoring of all entities by itself: `[batch]` of model.toml. `every` as in `1d` or `6h`."""

    every: str


class Isolated(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the process of an isolated model may take: `[isolated]` of model.toml.

    `memory_mb` is beyond what the libraries take that all models of its environment share;
    `limit_ms` is for one call of the model, and how long a caller waits.
    """

    memory_mb: int = 1024
    limit_ms: float = 1000.0


class ModelSpec(Struct, frozen=True, kw_only=True):
    """How the model runs and what it answers.

    `form` is what a node runs itself, or "isolated": then it runs in a process of its own, in the
    environment of the bundle's lock, and `reason` says why. `outputs` are in order; a single one
    is named `prediction`.
    """

    form: str = "lightgbm"
    reason: str = ""
    outputs: tuple[ScalarColumn, ...] = (ScalarColumn("prediction", ColumnType.FLOAT64),)
    isolated: Isolated = Isolated()


class Manifest(Struct, frozen=True, kw_only=True):
    """Everything about one model that is to be served. `files` maps paths to their digests.

    `categories` are those of the text features, in the order of their codes.
    """

    application: str
    api_version: int
    description: str
    owner: str
    author: str
    created_us: int
    run_id: str
    service: ResolvedService
    categories: dict[str, tuple[str, ...]]
    objective: Objective
    parameters: dict[str, Any]
    metrics: dict[str, float]
    files: dict[str, str]
    serving: Serving = Serving()
    model: ModelSpec = ModelSpec()
    release: ReleasePolicy = ReleasePolicy()
    invariants: tuple[Invariant, ...] = ()
    batch: Batch | None = None
    trained_by: str = ""
    format: int = FORMAT


class GoldenCase(Struct, frozen=True, kw_only=True):
    """A row of features and what the model said of it in the environment it was trained in.

    `outputs` are in the order of the manifest's. Where the model raised an error there are none,
    and whatever serves it must fail too.
    """

    features: list[Any]
    outputs: list[Any]
    error: str = ""


class Entities(Struct, frozen=True, kw_only=True):
    """Entities that the model was trained on: join keys, and request fields asked with them.

    Both in the order of the service's, a row for each; instants are microseconds.
    """

    keys: tuple[tuple[int | str, ...], ...]
    requests: tuple[tuple[int | float | bool | str | None, ...], ...]


class Golden(Struct, frozen=True, kw_only=True):
    """Cases whose answers a compiled model must give again; features in the service's order.

    The first `real` were recorded; those after them are unusual on purpose. Earlier runs do not say
    how many those are.
    """

    cases: tuple[GoldenCase, ...]
    real: int | None = None
