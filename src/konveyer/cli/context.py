"""What every command starts from: the workspace, and who is acting."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from konveyer.core.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from konveyer.access.actor import Actor
    from konveyer.wiring import Workspace


@dataclass
class Context:
    """The root options; opens the workspace on first use, so that `--help` opens nothing."""

    start: Path
    profile: str | None
    as_json: bool

    @cached_property
    def settings(self) -> Settings:
        return load_settings(self.start)

    @cached_property
    def workspace(self) -> "Workspace":
        from konveyer.wiring import open_workspace

        workspace = open_workspace(self.settings)
        click.get_current_context().find_root().call_on_close(workspace.close)
        return workspace

    def found(self, path: Path) -> Path:
        """A file or folder named from the current folder, or else from the workspace."""
        return path if path.exists() else self.settings.root / path

    def actor(self, session: "Session") -> "Actor":
        """The holder of `KONVEYER_TOKEN`, or of the token saved under the profile."""
        from konveyer.access.profiles import given_token
        from konveyer.access.tokens import authenticate

        return authenticate(session, given_token(self.settings.state, self.profile))

    def reader(self, session: "Session") -> "Actor":
        """An actor who may see what there is: everybody but producers."""
        from konveyer.access.roles import Permission

        actor = self.actor(session)
        actor.require(Permission.READ)
        return actor


pass_context = click.make_pass_decorator(Context)
# How many of a list are shown.
LIMIT = click.IntRange(min=1, max=1_000_000)
