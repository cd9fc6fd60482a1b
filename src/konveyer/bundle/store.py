"""Bundles on disk: folders named by their digest, written whole and checked on every read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from konveyer.bundle.manifest import FORMAT, MANIFEST, Manifest
from konveyer.core.digest import digest_bytes, digest_file, short
from konveyer.core.errors import Conflict, KonveyerError, NotFound


class BundleCorrupt(KonveyerError):
    """A file of a bundle is missing or is not the one that was reviewed."""

    code = "bundle_corrupt"


class BundleNotFound(NotFound):
    code = "bundle_not_found"


class BundleNewer(Conflict):
    """The bundle was packed by a newer Konveyer."""

    code = "bundle_newer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A verified bundle: its digest names its content."""

    digest: str
    path: Path
    manifest: Manifest


class BundleStore:
    """Bundles under one folder. A bundle never changes; packing the same one again is harmless."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

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
        return self.open(digest)

    def open(self, digest: str) -> Bundle:
        """Read a bundle and compare every file with its digest."""
        path = self._path(digest)
        file = path / MANIFEST
        if not file.is_file():
            raise BundleNotFound(
                f"There is no bundle {short(digest)} in {self._folder}.",
                hint="submit the model again",
            )
        content = file.read_bytes()
        if digest_bytes(content) != digest:
            raise _corrupt(path, MANIFEST)
        manifest = msgspec.json.decode(content, type=Manifest)
        if manifest.format > FORMAT:
            raise BundleNewer(
                f"Bundle {short(digest)} has format {manifest.format}; this one reads {FORMAT}.",
                hint="upgrade this Konveyer",
            )
        for name, expected in manifest.files.items():
            part = path / name
            if not part.is_file() or digest_file(part) != expected:
                raise _corrupt(path, name)
        return Bundle(digest=digest, path=path, manifest=manifest)

    def _path(self, digest: str) -> Path:
        return self._folder / digest.removeprefix("sha256:")


def _corrupt(path: Path, name: str) -> BundleCorrupt:
    return BundleCorrupt(
        f"{name} of bundle {path.name[:12]} is missing or was changed.",
        hint="submit the model again; the version that is live keeps serving",
    )
