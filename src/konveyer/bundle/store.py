"""Bundles on disk: folders named by their digest, written whole and checked on every read."""

import re
import shutil
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import msgspec

from konveyer.bundle.errors import (
    BundleCorrupt,
    BundleNewer,
    BundleNotFound,
    corrupt,
    not_found,
)
from konveyer.bundle.manifest import FORMAT, MANIFEST, Manifest
from konveyer.bundle.origin import BundleOrigin, hex_of
from konveyer.core.digest import digest_bytes, digest_file, short
from konveyer.core.files import locked

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A verified bundle: its digest names its content."""

    digest: str
    path: Path
    manifest: Manifest


class Bundles(Protocol):
    """Where bundles are read, by their digests."""

    def open(self, digest: str) -> Bundle: ...


class BundleStore:
    """Bundles under one folder. A bundle never changes; packing the same one again is harmless.

    With an `origin` the folder is a cache of it: what is packed is sent there too, and what is not
    in the folder, or was damaged there, is fetched.
    """

    def __init__(self, folder: Path, origin: BundleOrigin | None = None) -> None:
        self._folder, self._origin = folder, origin

    def pack(self, manifest: Manifest, write: Callable[[Path], None]) -> Bundle:
        """Let `write` fill a folder, add the manifest with the digests of its files, keep it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True) as name:
            draft = Path(name)
            write(draft)
            files = {
                str(path.relative_to(draft)): digest_file(path)
                for path in sorted(draft.rglob("*"))
                if path.is_file()
            }
            content = msgspec.json.encode(msgspec.structs.replace(manifest, files=files))
            (draft / MANIFEST).write_bytes(content)
            digest = digest_bytes(content)
            if not self._path(digest).exists():
                draft.chmod(0o755)
                draft.rename(self._path(digest))
        bundle = self.open(digest)
        if self._origin is not None:
            self._origin.send(digest, bundle.path)
        return bundle

    def open(self, digest: str) -> Bundle:
        """Read a bundle and compare every file with its digest; no other file may be there."""
        try:
            return self._checked(digest)
        except (BundleCorrupt, BundleNotFound):
            if self._origin is None:
                raise
            self._fetch(digest, self._origin)
            return self._checked(digest)

    def held(self) -> list[str]:
        """The digests of the bundles in the folder, which may be damaged."""
        found = (path.name for path in self._folder.glob("*") if path.is_dir())
        return [f"sha256:{name}" for name in sorted(found) if _DIGEST.fullmatch(name)]

    def keep_only(self, digests: AbstractSet[str]) -> None:
        """Remove every other bundle from the cache, and what broken fetches left of others.

        A store without an origin has the only copies, and keeps all.
        """
        if self._origin is None:
            return
        kept = {hex_of(digest) for digest in digests}
        for digest in set(self.held()) - digests:
            _remove_whole(self._path(digest))
        for path in self._folder.glob(".*.partial"):
            if path.name.split(".")[1] not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def _fetch(self, digest: str, origin: BundleOrigin) -> None:
        """Bring a bundle that is not in the folder, or damaged there; one fetch at a time."""
        with locked(self._folder / ".fetching"):
            path = self._path(digest)
            with suppress(BundleCorrupt, BundleNotFound):
                self._checked(digest)
                return
            _remove_whole(path)
            origin.fetch(digest, path)

    def _checked(self, digest: str) -> Bundle:
        path = self._path(digest)
        file = path / MANIFEST
        if not file.is_file():
            raise not_found(digest, self._folder)
        content = file.read_bytes()
        if digest_bytes(content) != digest:
            raise corrupt(digest, MANIFEST)
        try:
            manifest = msgspec.json.decode(content, type=Manifest)
        except msgspec.MsgspecError as error:
            raise BundleNewer(
                f"{MANIFEST} of bundle {short(digest)} says what this one does not know: {error}.",
                hint="upgrade this Konveyer",
            ) from error
        if manifest.format > FORMAT:
            raise BundleNewer(
                f"Bundle {short(digest)} has format {manifest.format}; this one reads {FORMAT}.",
                hint="upgrade this Konveyer",
            )
        for name, expected in manifest.files.items():
            part = path / name
            if not part.is_file() or digest_file(part) != expected:
                raise corrupt(digest, name)
        for added in _unlisted(path, {MANIFEST, *manifest.files}):
            raise corrupt(digest, added)
        return Bundle(digest=digest, path=path, manifest=manifest)

    def _path(self, digest: str) -> Path:
        return self._folder / hex_of(digest)


def _unlisted(folder: Path, listed: AbstractSet[str]) -> list[str]:
    """Files and links of a bundle that nobody reviewed: Python could import one of them."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
    return [name for path in found if (name := str(path.relative_to(folder))) not in listed]


def _remove_whole(folder: Path) -> None:
    """Never half of a bundle under its name."""
    gone = folder.parent / f".{folder.name}.gone"
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
