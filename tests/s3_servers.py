"""A real S3 server for tests: moto's, on a loopback port, that can be frozen and killed."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

import pyarrow.fs as fs

from konveyer.core.s3 import BucketStorage
from tests.support import wait_for

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "very-secret-indeed"}


@dataclass
class S3Server:
    """A server with one bucket, `konveyer`. What it holds is gone when it is killed."""

    port: int
    process: "subprocess.Popen[bytes]" = field(init=False)

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        wait_for(self._answers, self.process)
        self.files(allow_bucket_creation=True).create_dir("konveyer")

    def _answers(self) -> bool:
        with suppress(OSError), closing(socket.create_connection(("127.0.0.1", self.port), 1)):
            return True
        return False

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url(self, prefix: str) -> str:
        return f"s3://konveyer/{prefix}?endpoint={self.endpoint}"

    def storage(self, prefix: str) -> BucketStorage:
        return BucketStorage("konveyer", prefix, endpoint=self.endpoint, region="us-east-1")

    def files(self, **options: bool) -> fs.S3FileSystem:
        """The bucket by another way than ours."""
        address = f"127.0.0.1:{self.port}"
        return fs.S3FileSystem(endpoint_override=address, scheme="http", **options)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """It takes connections and answers none of them."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    before = dict(os.environ)
    os.environ.update(CREDENTIALS)
    server = S3Server(port)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        os.environ.clear()
        os.environ.update(before)
