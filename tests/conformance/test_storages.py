"""Shared storage: the same on a folder and on a bucket of a real S3 server."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from konveyer.core.s3 import BadStorageUrl, BucketStorage
from konveyer.core.storage import FolderStorage, ObjectMissing, Storage, StorageUnavailable
from tests.s3_servers import CREDENTIALS, S3Server, s3_server


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return FolderStorage(tmp_path / "shared")
    server: S3Server = request.getfixturevalue("server")
    return server.storage(tmp_path.name)


def test_an_object_is_what_was_written_last(storage: Storage) -> None:
    storage.write("a/b.json", b"one")
    storage.write("a/b.json", b"two")
    storage.write("a/empty", b"")
    assert storage.read("a/b.json") == b"two"
    assert storage.read("a/empty") == b""


def test_a_reader_gets_the_old_or_the_new_object_while_it_is_replaced(storage: Storage) -> None:
    contents = [b"[" + b"1," * size + b"1]" for size in (10, 3000, 100, 20_000)]
    storage.write("a", contents[0])
    done = threading.Event()

    def replace() -> None:
        pauses_s = itertools.cycle((0.0, 0.02, 0.1))
        for content, pause_s in zip(itertools.cycle(contents), pauses_s, strict=True):
            if done.wait(pause_s):
                return
            storage.write("a", content)

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        found = {storage.read("a") for _ in range(150)}
    finally:
        done.set()
        writer.join()
    assert found <= set(contents)


def test_files_go_there_and_come_back(storage: Storage, tmp_path: Path) -> None:
    content = bytes(range(256)) * 50_000  # larger than one part of an upload
    (tmp_path / "here").write_bytes(content)
    storage.upload(tmp_path / "here", "far/away.bin")
    storage.download("far/away.bin", tmp_path / "again" / "file")
    assert (tmp_path / "again" / "file").read_bytes() == content
    with pytest.raises(ObjectMissing):
        storage.download("far/none.bin", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_what_is_not_there_is_missing_and_removed_without_a_word(storage: Storage) -> None:
    with pytest.raises(ObjectMissing, match="no/such"):
        storage.read("no/such")
    storage.remove("no/such")
    storage.write("a", b"1")
    storage.remove("a")
    with pytest.raises(ObjectMissing):
        storage.read("a")


def test_a_folder_lists_what_is_in_it_and_not_below(storage: Storage) -> None:
    assert storage.listed("nodes") == []
    for name in ("nodes/prod/b", "nodes/prod/a", "nodes/test/c", "nodes/top"):
        storage.write(name, b"12")
    listed = {one.name: one for one in storage.listed("nodes")}
    assert {name: one.is_folder for name, one in listed.items()} == {
        "nodes/prod": True,
        "nodes/test": True,
        "nodes/top": False,
    }
    assert listed["nodes/top"].size_bytes == 2
    assert [one.last_part for one in storage.listed("nodes/prod")] == ["a", "b"]


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b"])
def test_names_stay_inside(storage: Storage, name: str, tmp_path: Path) -> None:
    for attempt in (
        lambda: storage.read(name),
        lambda: storage.write(name, b"x"),
        lambda: storage.download(name, tmp_path / "x"),
        lambda: storage.remove(name),
    ):
        with pytest.raises(ObjectMissing):
            attempt()


def test_a_storage_that_is_gone_or_refuses_is_unavailable_and_tells_no_secret(
    server: S3Server, tmp_path: Path
) -> None:
    nobody = BucketStorage("konveyer", "", endpoint="http://127.0.0.1:1", region="us-east-1")
    other = BucketStorage("no-such-bucket", "", endpoint=server.endpoint, region="us-east-1")
    for attempt in (
        lambda: nobody.read("a"),
        lambda: nobody.write("a", b""),
        lambda: nobody.listed("a"),
        lambda: nobody.remove("a"),
        lambda: other.write("a", b""),
    ):
        with pytest.raises(StorageUnavailable) as caught:
            attempt()
        assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["s3://key:secret@bucket/prefix", "s3:///prefix", "s3://bucket?secret_key=secret"]
)
def test_a_url_with_secrets_or_without_a_bucket_is_refused(url: str) -> None:
    with pytest.raises(BadStorageUrl) as caught:
        BucketStorage.from_url(url, Path())
    assert "=secret" not in str(caught.value)
    assert ":secret" not in str(caught.value)
