"""Shared storage in a bucket that speaks S3, through Arrow's client.

Credentials are taken from where the AWS tools take them: the environment, a file, or the machine's
role. They are never part of a URL, and no message shows more of a URL than bucket and prefix.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import copyfileobj
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
import pyarrow.fs as fs

from konveyer.core.errors import KonveyerError
from konveyer.core.files import file_written_whole
from konveyer.core.storage import Listed, ObjectMissing, StorageUnavailable, checked_name, missing

# A node that stops while storage hangs waits for several requests one after another, and those who
# ask do so again later: there is no second attempt here. A write that hangs takes thrice as long.
_CONNECT_WITHIN_S, _ANSWER_WITHIN_S, _ATTEMPTS = 2.0, 3.0, 1
_PIECE_BYTES = 2**20
_READ_ATTEMPTS = 10
_OPTIONS = ("endpoint", "region")


class BadStorageUrl(KonveyerError):
    """A URL of a bucket that cannot be understood, or that has a secret in it."""

    code = "bad_storage_url"


class BucketStorage:
    """Objects of one bucket below a prefix: `s3://bucket/prefix?endpoint=http://host:port`.

    `endpoint` (or `AWS_ENDPOINT_URL`) names another server than Amazon's, and `region` its region.
    A request that gets no answer is given up within seconds. Not to be used in a process that was
    forked from one that had opened such a storage.
    """

    def __init__(self, bucket: str, prefix: str, *, endpoint: str | None, region: str) -> None:
        self._base = "/".join(part for part in (bucket, prefix) if part)
        parts = urlsplit(endpoint or "https://")
        self._files = fs.S3FileSystem(
            endpoint_override=parts.netloc or None,
            scheme=parts.scheme or "https",
            region=region,
            connect_timeout=_CONNECT_WITHIN_S,
            request_timeout=_ANSWER_WITHIN_S,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
            background_writes=False,
            # What is small is sent in one request.
            allow_delayed_open=True,
        )

    @classmethod
    def from_url(cls, url: str, root: Path) -> "BucketStorage":  # noqa: ARG003 - a URL of no folder
        parts = urlsplit(url)
        where = f"s3://{parts.hostname or ''}{parts.path}"
        if parts.username is not None or parts.password is not None:
            raise BadStorageUrl(
                f"The URL {where} has credentials in it.",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment",
            )
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        unknown = [name for name in options if name not in _OPTIONS]
        if unknown or not parts.hostname:
            raise BadStorageUrl(
                f"{where} {f'has an unknown option {unknown[0]}' if unknown else 'has no bucket'}.",
                hint="write s3://bucket/prefix?endpoint=https://host:port&region=name",
            )
        endpoint = options.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL")
        region = options.get("region") or os.environ.get("AWS_REGION") or "us-east-1"
        return cls(parts.netloc, parts.path.strip("/"), endpoint=endpoint, region=region)

    def read(self, name: str) -> bytes:
        with self._asked(name) as path:
            stream = self._files.open_input_stream(path)
            for _ in range(_READ_ATTEMPTS):
                # A stream asks for the size first and then for one part after another: of an object
                # that is replaced meanwhile it gives pieces, or an error.
                before, content = stream.metadata()["ETag"], _content(stream)
                stream = self._files.open_input_stream(path)
                if stream.metadata()["ETag"] == before:
                    if isinstance(content, OSError):
                        raise content
                    return content
        raise StorageUnavailable(
            f"s3://{self._base}/{name} is replaced all the time.", hint="try again"
        )

    def write(self, name: str, content: bytes) -> None:
        # One buffer in one call: a stream that is left by an error would be closed, and be an
        # object, with what it had.
        with self._asked(name) as path:
            stream = self._files.open_output_stream(path, buffer_size=None)
            stream.write(content)
            stream.close()

    def download(self, name: str, path: Path) -> None:
        with (
            self._asked(name) as source,
            file_written_whole(path) as draft,
            self._files.open_input_stream(source) as stream,
            draft.open("wb") as file,
        ):
            copyfileobj(stream, file, _PIECE_BYTES)

    def upload(self, path: Path, name: str) -> None:
        with pa.memory_map(str(path)) as file:
            self.write(name, file.read_buffer())

    def remove(self, name: str) -> None:
        checked_name(name)
        with suppress(ObjectMissing), self._asked(name) as path:
            self._files.delete_file(path)

    def listed(self, folder: str) -> list[Listed]:
        with self._asked(folder) as path:
            found = self._files.get_file_info(fs.FileSelector(path, allow_not_found=True))
        base = len(self._base) + 1
        entries = [
            Listed(
                name=one.path[base:],
                is_folder=one.type is fs.FileType.Directory,
                size_bytes=one.size or 0,
                written_us=(one.mtime_ns or 0) // 1000,
            )
            for one in found
        ]
        return sorted(entries, key=lambda one: one.name)

    @contextmanager
    def _asked(self, name: str) -> Iterator[str]:
        """The path of an object in the bucket; errors of the block in our own words."""
        try:
            yield f"{self._base}/{checked_name(name)}".rstrip("/")
        except FileNotFoundError as error:
            raise missing(name) from error
        except (OSError, pa.ArrowException) as error:
            raise StorageUnavailable(
                f"s3://{self._base}/{name}: {error}",
                hint="see that the storage is up and that the credentials in the environment may "
                "use the bucket",
            ) from error


def _content(stream: pa.NativeFile) -> bytes | OSError:
    try:
        content: bytes = stream.read()
    except OSError as error:
        return error
    return content
