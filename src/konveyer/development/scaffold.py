"""Making a workspace: settings, a definitions folder, a model project, and an example's data."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.resources import as_file, files
from pathlib import Path

from konveyer.core.errors import Conflict, NotFound, did_you_mean
from konveyer.core.files import folder_written_whole
from konveyer.core.settings import FILE_NAME

EXAMPLES = {"coupon-response": "coupon_response"}
_NOT_FILES = shutil.ignore_patterns("__pycache__", "__init__.py", "*.pyc", "prepare.py", ".*")
_SETTINGS = """\
# Every place is a URL. These keep all in this folder, where relative paths start. A team points
# them at its servers, such as url = "postgresql+psycopg://host/konveyer" under [catalog], and then
# runs 'konveyer init --upgrade' once.
[workspace]
name = "{name}"
definitions = "features"
{feature_time}
[catalog]
url = "sqlite:///state/catalog.db"

[pipelines]
url = "sqlite:///state/pipelines.db"

[offline]
url = "delta:offline"

[online]
url = "lmdb:state/online"

[bundles]
url = "file:bundles"

[tracking]
url = "sqlite:///state/mlflow.db"
artifacts = "state/artifacts"

[environments.test]
port = 0

[environments.prod]
port = 8081

[portal]
port = 8080
"""
_FIXED_TIME = """\
# The data ends here: features are computed, and their age is judged, as of this moment.
feature_time = "{moment}"
"""


class WorkspaceExists(Conflict):
    code = "workspace_exists"


class ExampleNotFound(NotFound):
    code = "example_not_found"


@contextmanager
def new_workspace(folder: Path, *, example: str | None) -> Iterator[tuple[Path, dict[str, int]]]:
    """Yield a workspace beside `folder`, and the rows of the example's tables by name.

    It becomes `folder` (a new name, or an empty folder) when the block ends without an error.
    """
    folder = folder.resolve()
    if (folder / FILE_NAME).exists():
        raise WorkspaceExists(f"{folder} is a workspace already.", hint="use it, or name another")
    if folder.exists() and any(folder.iterdir()):
        raise WorkspaceExists(f"{folder} is not empty.", hint="name a new or an empty folder")
    if example is not None and example not in EXAMPLES:
        raise ExampleNotFound(
            f"There is no example '{example}'.",
            hint=did_you_mean(example, EXAMPLES, otherwise=f"there is {', '.join(EXAMPLES)}"),
        )
    with folder_written_whole(folder) as draft:
        if example is None:
            _write_empty(draft, folder.name)
            yield draft, {}
        else:
            yield draft, _write_example(draft, example)


def _write_empty(draft: Path, name: str) -> None:
    (draft / FILE_NAME).write_text(_SETTINGS.format(name=name, feature_time=""))
    (draft / "data").mkdir()
    with as_file(files("konveyer.development") / "template") as template:
        shutil.copytree(template / "features", draft / "features", ignore=_NOT_FILES)
        shutil.copytree(template / "project", draft / "models/first_model", ignore=_NOT_FILES)


def _write_example(draft: Path, example: str) -> dict[str, int]:
    """The template's model project, with what the example has of its own laid over it."""
    name = EXAMPLES[example]
    package = f"konveyer.examples.{name}"
    prepare = import_module(f"{package}.prepare")
    moment = _FIXED_TIME.format(moment=prepare.FEATURE_TIME)
    (draft / FILE_NAME).write_text(_SETTINGS.format(name=example, feature_time=moment))
    with as_file(files("konveyer.development") / "template/project") as project:
        shutil.copytree(project, draft / "models" / name, ignore=_NOT_FILES)
    with as_file(files(package)) as source:
        shutil.copytree(source, draft, dirs_exist_ok=True, ignore=_NOT_FILES)
    rows: dict[str, int] = prepare.prepare(draft / "data")
    return rows
