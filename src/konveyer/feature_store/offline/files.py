"""The files of a table's folder: listed, and removed without ever leaving the folder."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from konveyer.core.errors import KonveyerError

_MICROS_PER_NANO = 1_000


class OutsideTable(KonveyerError):
    """Something is to be removed that is not inside the folder it should be in."""

    code = "outside_table"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file on disk, whatever the log says of it."""

    path: Path
    size_bytes: int
    written_us: int


def files_under(folder: Path) -> list[StoredFile]:
    """Every file of a table that holds rows, or was going to. Links are not followed.

    Names that begin with `_` or `.` are the log's, as in Delta Lake itself. A file that vanishes
    meanwhile is left out.
    """
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] not in "_.")
        for name in sorted(names):
            path = Path(place) / name
            if name[0] in "_." or path.is_symlink():
                continue
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append(
                StoredFile(
                    path=path,
                    size_bytes=status.st_size,
                    written_us=status.st_mtime_ns // _MICROS_PER_NANO,
                )
            )
    return found


def remove_files(folder: Path, paths: Iterable[Path]) -> None:
    """Remove files below `folder`; one that is gone already is no error."""
    for path in paths:
        check_inside(folder, path)
        path.unlink(missing_ok=True)


def remove_folder(root: Path, folder: Path) -> None:
    """Remove a folder below `root` with all that is in it. Harmless when it is gone."""
    check_inside(root, folder)
    if folder.exists():
        shutil.rmtree(folder)


def check_inside(folder: Path, path: Path) -> None:
    """Raise unless `path` is below `folder`, wherever links and dots lead."""
    inside, outer = path.parent.resolve() / path.name, folder.resolve()
    if outer not in inside.parents:
        raise OutsideTable(
            f"{path} is not inside {folder}.", hint="nothing was removed of it; look at the links"
        )
