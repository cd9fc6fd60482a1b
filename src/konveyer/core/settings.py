"""`konveyer.toml`: where a workspace keeps things, each a URL that can point at a server."""

from pathlib import Path
from typing import Literal

import msgspec

from konveyer.core.clock import FeatureClock, parse_instant
from konveyer.core.errors import KonveyerError, NotFound, did_you_mean
from konveyer.core.plugins import path_of
from konveyer.core.variables import variables_in

FILE_NAME = "konveyer.toml"


class BadSettings(KonveyerError):
    """A `konveyer.toml` that cannot be read."""

    code = "bad_settings"


class WorkspaceNotFound(NotFound):
    """No `konveyer.toml` here or above."""

    code = "workspace_not_found"


class EnvironmentUnknown(NotFound):
    code = "environment_unknown"


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class WorkspaceSettings(_Section, frozen=True):
    """`feature_time` fixes feature time to one instant, for work on historical data."""

    name: str
    feature_time: str | None = None
    definitions: str = "features"


class Location(_Section, frozen=True):
    url: str


class TrackingSettings(_Section, frozen=True):
    url: str = "sqlite:///state/mlflow.db"
    artifacts: str = "state/artifacts"


class EtlSettings(_Section, frozen=True):
    """With `schedule` the worker starts ETL at the `refresh` of each view."""

    schedule: bool = True


class Listen(_Section, frozen=True):
    """Where a process listens. Port 0 takes a free one; the host is loopback unless set."""

    host: str = "127.0.0.1"
    port: int = 0


class Environment(Listen, frozen=True):
    """Where its nodes listen, and the online store that they read (the workspace's when None).

    `keys` tells whether callers need one. A node has as many `processes` as there are cores when
    that is 0; each takes `most_under_way` requests at a time, and refuses more.
    """

    online: str | None = None
    keys: Literal["required", "open"] = "required"
    processes: int = 0
    most_under_way: int = 512


class ReleasesSettings(_Section, frozen=True):
    """What every release of the workspace goes through, whatever its model asks for.

    With `approval` an approver, who is neither the author nor the reviewer, says yes before
    production. `lead_time_days` is the goal, in working days. The features of the last
    `kept_for_rollback` releases of each version that production served stay computed.
    """

    approval: bool = False
    require: tuple[Literal["replay", "shadow", "canary"], ...] = ()
    lead_time_days: float = 5.0
    kept_for_rollback: int = 3


def _three_environments() -> dict[str, Environment]:
    return {
        "dev": Environment(processes=1),
        "test": Environment(processes=1),
        "prod": Environment(port=8081),
    }


class Settings(_Section, frozen=True):
    """The parsed file. `root` is its folder; relative paths in URLs are taken from there."""

    workspace: WorkspaceSettings
    catalog: Location = Location(url="sqlite:///state/catalog.db")
    pipelines: Location = Location(url="sqlite:///state/pipelines.db")
    offline: Location = Location(url="delta:offline")
    online: Location = Location(url="lmdb:state/online")
    bundles: Location = Location(url="file:bundles")
    storage: Location = Location(url="file:state")
    scores: Location = Location(url="delta:scores")
    engine: Location = Location(url="duckdb:")
    etl: EtlSettings = EtlSettings()
    databases: dict[str, Location] = msgspec.field(default_factory=dict)
    tracking: TrackingSettings = TrackingSettings()
    environments: dict[str, Environment] = msgspec.field(default_factory=_three_environments)
    portal: Listen = Listen(port=8080)
    releases: ReleasesSettings = ReleasesSettings()
    load_seconds: float = 10.0
    root: Path = Path()

    def environment(self, environment: str) -> Environment:
        """Where nodes of `environment` listen, and what they read."""
        found = self.environments.get(environment)
        if found is None:
            known = self.environments
            raise EnvironmentUnknown(
                f"There is no environment '{environment}' in {FILE_NAME}.",
                hint=did_you_mean(environment, known, otherwise=f"it has {', '.join(known)}"),
            )
        return found

    def listen(self, environment: str) -> Listen:
        """Where nodes of `environment` listen."""
        return self.environment(environment)

    def online_url(self, environment: str) -> str:
        """The online store that nodes of `environment` read."""
        return self.environment(environment).online or self.online.url

    @property
    def online_urls(self) -> dict[str, str]:
        """Every online store there is, once, by whom it is for; the workspace's comes first."""
        urls = {"the workspace": self.online.url}
        for name in self.environments:
            url = self.online_url(name)
            if url not in urls.values():
                urls[f"environment '{name}'"] = url
        return urls

    @property
    def secrets(self) -> frozenset[str]:
        """The variables that URLs take from the environment."""
        urls = [*self.online_urls.values(), *(one.url for one in self.databases.values())]
        return frozenset(variable for url in urls for variable in variables_in(url))

    @property
    def clock(self) -> FeatureClock:
        text = self.workspace.feature_time
        return FeatureClock(None if text is None else parse_instant(text))

    @property
    def state(self) -> Path:
        """Files of the workspace that people do not edit: databases, sockets, logs."""
        return self.root / "state"

    def path(self, url: str) -> Path:
        """The folder or file of a local URL such as `delta:offline`, taken from the root."""
        return path_of(url, self.root)

    def database_url(self, url: str) -> str:
        """A SQLAlchemy URL with a relative SQLite path made absolute."""
        prefix = "sqlite:///"
        return f"{prefix}{self.root / url.removeprefix(prefix)}" if url.startswith(prefix) else url


_OF_URLS = {"%", "?", "#"}


def load_settings(start: Path) -> Settings:
    """Read `konveyer.toml` in `start` or the nearest folder above it."""
    folder = start.resolve()
    for candidate in (folder, *folder.parents):
        file = candidate / FILE_NAME
        if file.is_file():
            return parse_settings(file.read_bytes(), root=candidate)
    raise WorkspaceNotFound(
        f"No {FILE_NAME} in {folder} or above it.",
        hint="make a workspace with 'konveyer init FOLDER', or name one with --workspace",
    )


def check_root(root: Path) -> None:
    """Raise for a folder in which a workspace cannot be."""
    if set(str(root)) & _OF_URLS:
        raise BadSettings(
            f"The path {root} has one of the characters {' '.join(sorted(_OF_URLS))}, which "
            "databases and Delta tables take for parts of a URL.",
            hint="give the workspace a folder of another name",
        )


def parse_settings(content: bytes, *, root: Path) -> Settings:
    check_root(root)
    try:
        settings = msgspec.toml.decode(content, type=Settings)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise BadSettings(
            f"{root / FILE_NAME}: {error}.", hint="docs/settings.md lists every setting"
        ) from error
    environments = _three_environments() | settings.environments
    return msgspec.structs.replace(settings, root=root, environments=environments)
