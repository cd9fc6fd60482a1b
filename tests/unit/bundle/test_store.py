"""What a folder of bundles says of one that it cannot read."""

from pathlib import Path

import pytest

from konveyer.bundle.errors import BundleNewer
from konveyer.bundle.manifest import MANIFEST
from konveyer.bundle.origin import hex_of
from konveyer.bundle.store import BundleStore
from konveyer.core.digest import digest_bytes


@pytest.mark.parametrize("content", [b'{"format": 1}', b"{", b'{"release": {"later": 1}}'])
def test_a_manifest_that_is_not_understood_is_an_error_of_its_own(
    tmp_path: Path, content: bytes
) -> None:
    digest = digest_bytes(content)
    folder = tmp_path / hex_of(digest)
    folder.mkdir()
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(BundleNewer, match="says what this one does not know") as caught:
        BundleStore(tmp_path).open(digest)
    assert caught.value.code == "bundle_newer"
