"""Bundles in shared storage: where they are sent when packed, and fetched from by who lacks one."""

from pathlib import Path

import msgspec

from konveyer.bundle.errors import corrupt, not_found
from konveyer.bundle.manifest import MANIFEST, Manifest
from konveyer.core.digest import digest_bytes, digest_file
from konveyer.core.storage import ObjectMissing, Storage


class BundleOrigin:
    """Bundles below one place: `<digest>/<file>`. The manifest comes last: where it is, all is.

    Any number of machines may send the same bundle at the same time.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def send(self, digest: str, folder: Path) -> None:
        """Copy the bundle in `folder`, unless it is there."""
        name = hex_of(digest)
        if any(entry.last_part == MANIFEST for entry in self._storage.listed(name)):
            return
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        for file in (*manifest.files, MANIFEST):
            self._storage.upload(folder / file, f"{name}/{file}")

    def fetch(self, digest: str, folder: Path) -> None:
        """Make the folder `folder`, which is not there, with a bundle whose every digest is right.

        What an attempt that failed has brought stays beside it, and is not brought again.
        """
        draft = folder.parent / f".{folder.name}.partial"
        content = self._manifest(digest)
        for file, expected in msgspec.json.decode(content, type=Manifest).files.items():
            self._bring(f"{hex_of(digest)}/{file}", draft / file, expected)
        draft.mkdir(parents=True, exist_ok=True)
        (draft / MANIFEST).write_bytes(content)
        draft.rename(folder)

    def _manifest(self, digest: str) -> bytes:
        try:
            content = self._storage.read(f"{hex_of(digest)}/{MANIFEST}")
        except ObjectMissing as error:
            raise not_found(digest, "the shared storage") from error
        if digest_bytes(content) != digest:
            raise corrupt(digest, MANIFEST)
        return content

    def _bring(self, name: str, path: Path, expected: str) -> None:
        if path.is_file() and digest_file(path) == expected:
            return
        try:
            self._storage.download(name, path)
        except ObjectMissing as error:
            raise corrupt(name, path.name) from error
        if digest_file(path) != expected:
            path.unlink()
            raise corrupt(name, path.name)


def hex_of(digest: str) -> str:
    """The name of a bundle's folder."""
    return digest.removeprefix("sha256:")
