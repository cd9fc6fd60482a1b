"""A workspace as a command opens it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from konveyer.access.actor import Actor
from konveyer.access.profiles import saved_token
from konveyer.access.tokens import authenticate
from konveyer.core.settings import Location, load_settings
from konveyer.wiring import Workspace, open_workspace


@contextmanager
def opened(root: Path, engine: str | None = None) -> Iterator[tuple[Workspace, Actor]]:
    """The workspace, on the engine of its settings or on another one, and its administrator."""
    settings = load_settings(root)
    if engine is not None:
        settings = msgspec.structs.replace(settings, engine=Location(url=engine))
    workspace = open_workspace(settings)
    try:
        with workspace.catalog.reading() as session:
            actor = authenticate(session, saved_token(settings.state, None))
        yield workspace, actor
    finally:
        workspace.close()
