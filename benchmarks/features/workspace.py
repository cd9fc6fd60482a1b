"""A workspace as a command opens it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from konveyer.access.actor import Actor
from konveyer.access.profiles import saved_token
from konveyer.access.tokens import authenticate
from konveyer.core.settings import load_settings
from konveyer.wiring import Workspace, open_workspace


@contextmanager
def opened(root: Path) -> Iterator[tuple[Workspace, Actor]]:
    """The workspace and its administrator."""
    settings = load_settings(root)
    workspace = open_workspace(settings)
    try:
        with workspace.catalog.reading() as session:
            actor = authenticate(session, saved_token(settings.state, None))
        yield workspace, actor
    finally:
        workspace.close()
