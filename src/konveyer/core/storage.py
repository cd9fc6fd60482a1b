"""Shared storage: named objects that several machines write and read, each whole or not at all.

A name is a relative path with `/` between its parts. Folders come and go with what is in them.
"""

import shutil
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Protocol

from konveyer.core.errors import KonveyerError, NotFound
from konveyer.core.files import file_written_whole, write_atomically
from konveyer.core.plugins import path_of


class StorageUnavailable(KonveyerError):
    """Shared storage does not answer, or refuses what is asked of it."""

    code, status = "storage_unavailable", HTTPStatus.SERVICE_UNAVAILABLE


class ObjectMissing(NotFound):
    """Shared storage answers, and has no object of that name."""

    code = "object_missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What stands below a folder: an object, or a folder, whose size and time say nothing.

    `written_us` is by the clock of the storage, on some kinds to the second.
    """

    name: str
    is_folder: bool
    size_bytes: int
    written_us: int

    @property
    def last_part(self) -> str:
        return self.name.rpartition("/")[2]


class Storage(Protocol):
    """Thread-safe. What cannot be reached raises `StorageUnavailable`, what is not there
    `ObjectMissing`. An object is replaced at once: a reader gets the old or the new one, whole.
    """

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, content: bytes) -> None: ...

    def download(self, name: str, path: Path) -> None:
        """Copy an object to the local file `path`, which appears whole."""

    def upload(self, path: Path, name: str) -> None:
        """Copy a local file to the object `name`, which appears whole."""

    def remove(self, name: str) -> None:
        """Harmless when the object is not there."""

    def listed(self, folder: str) -> list[Listed]:
        """What stands in `folder`, not below that, by name; nothing in one that is not there."""


class FolderStorage:
    """Objects as files below a folder: of this machine, or one that all machines mount.

    >>> from tempfile import mkdtemp
    >>> storage = FolderStorage(Path(mkdtemp()))
    >>> storage.write("nodes/a.json", b"{}")
    >>> [one.name for one in storage.listed("nodes")]
    ['nodes/a.json']
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @classmethod
    def from_url(cls, url: str, root: Path) -> "FolderStorage":
        """`file:folder`, which starts at `root` unless it is absolute."""
        return cls(path_of(url, root))

    def read(self, name: str) -> bytes:
        try:
            return self.path_of(name).read_bytes()
        except OSError as error:
            raise self._error(name, error) from error

    def write(self, name: str, content: bytes) -> None:
        try:
            write_atomically(self.path_of(name), content)
        except OSError as error:
            raise self._error(name, error) from error

    def download(self, name: str, path: Path) -> None:
        source = self.path_of(name)
        if not source.is_file():
            raise missing(name)
        try:
            with file_written_whole(path) as draft:
                shutil.copyfile(source, draft)
        except OSError as error:
            raise self._error(name, error) from error

    def upload(self, path: Path, name: str) -> None:
        try:
            with file_written_whole(self.path_of(name)) as draft:
                shutil.copyfile(path, draft)
        except OSError as error:
            raise self._error(name, error) from error

    def remove(self, name: str) -> None:
        try:
            self.path_of(name).unlink(missing_ok=True)
        except OSError as error:
            raise self._error(name, error) from error

    def listed(self, folder: str) -> list[Listed]:
        path = self.path_of(folder)
        if not path.is_dir():
            return []
        try:
            found = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
            return sorted((self._listed(entry) for entry in found), key=lambda one: one.name)
        except FileNotFoundError:  # one was removed while we looked: look again
            return self.listed(folder)
        except OSError as error:
            raise self._error(folder, error) from error

    def has(self, name: str) -> bool:
        return self.path_of(name).is_file()

    def path_of(self, name: str) -> Path:
        """Where an object stands."""
        return self._root / checked_name(name)

    def _listed(self, path: Path) -> Listed:
        facts = path.stat()
        return Listed(
            name=path.relative_to(self._root).as_posix(),
            is_folder=path.is_dir(),
            size_bytes=facts.st_size,
            written_us=facts.st_mtime_ns // 1000,
        )

    def _error(self, name: str, error: OSError) -> KonveyerError:
        if isinstance(error, FileNotFoundError):
            return missing(name)
        return StorageUnavailable(
            f"{self._root / name}: {error.strerror}.", hint="see that the folder can be written to"
        )


def checked_name(name: str) -> str:
    """The name itself, when it stays below its storage.

    >>> checked_name("bundles/../../etc")
    Traceback (most recent call last):
        ...
    konveyer.core.storage.ObjectMissing: 'bundles/../../etc' names no object.
    """
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        raise ObjectMissing(f"'{name}' names no object.")
    return name


def missing(name: str) -> ObjectMissing:
    return ObjectMissing(f"There is no '{name}' in the shared storage.")
