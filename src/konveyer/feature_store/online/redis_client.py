"""Redis behind one `run`: pipelines for a server or a cluster, and errors for people."""

import hashlib
import re
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from redis import Redis, RedisCluster
from redis.backoff import ExponentialWithJitterBackoff
from redis.cluster import ClusterNode
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    ConnectionError,  # noqa: A004
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    TimeoutError,  # noqa: A004
    TryAgainError,
)
from redis.retry import Retry

from konveyer.feature_store.online.base import OnlineStoreUnavailable
from konveyer.feature_store.online.redis_url import RedisAddress

_RETRIES = 2
_ROUNDS = 1 + _RETRIES
# RESP2 spares each connection the handshake of RESP3, of which nothing is used.
_CONNECTION = {
    "protocol": 2,
    "socket_timeout": 1.0,
    "socket_connect_timeout": 1.0,
}
_FAILURES = (RedisError, RedisClusterException)
_MOVED = (AskError, TryAgainError, ClusterDownError)
# From here on a text of redis-py or of the server may quote the command, and with it a record.
_QUOTED_COMMAND = re.compile(r" ?\(|, with args")
_HINT = "see that Redis runs there and can be reached; what was not written, write again"
_HINTS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    (
        (AuthenticationError, NoPermissionError),
        "check the user in [online] url and its rights; docs/online-stores.md lists the commands",
    ),
    ((OutOfMemoryError,), "give Redis more memory, or drop views that nobody uses"),
    ((ReadOnlyError,), "point [online] url at the primary, not at a replica"),
    ((AskError,), "this is a cluster: begin [online] url with redis+cluster: or rediss+cluster:"),
)
_CA_HINT = "name the CA of the server's certificate in [online] url: ?ssl_ca_certs=FILE"


class Command(NamedTuple):
    """A command with one key, which in a cluster decides where it goes."""

    key: bytes
    words: tuple[str | bytes | int, ...]
    size_bytes: int = 0


class RedisClient:
    """Runs commands and one script. Thread-safe. Connects on first use.

    An answer that does not come within the timeout is asked for again, twice.
    """

    def __init__(self, address: RedisAddress, *, script: str) -> None:
        self._address, self._script = address, script
        self._script_digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._lock = threading.Lock()
        self._opened: _Server | _Cluster | None = None

    def script_call(self, key: bytes, value: bytes) -> Command:
        return Command(key, ("EVALSHA", self._script_digest, 1, key, value), len(value))

    def run(self, commands: list[Command], what: str) -> list[Any]:
        """The answers, in order. An error says that the store cannot be `what`."""
        answers: list[Any] = []
        try:
            for _ in range(_ROUNDS):
                # A server that has just started knows no script. All that follows the first lost
                # call is done again: of two records of one key and time the later must stay.
                answers += self._connected().run(commands[len(answers) :])
                lost = _lost_script(answers)
                if lost is None:
                    return answers
                self._connected().client.script_load(self._script)
                del answers[lost:]
            raise ConnectionError("the script is lost as soon as it is loaded")
        except _FAILURES as error:
            self._fail(what, error)

    def scan(self, pattern: bytes, *, at_once: int) -> Iterator[bytes]:
        """The keys that match, on every node; one may come twice."""
        try:
            yield from self._connected().client.scan_iter(match=pattern, count=at_once)
        except _FAILURES as error:
            self._fail("read", error)

    def close(self) -> None:
        with self._lock:
            if self._opened is not None:
                self._opened.client.close()
            self._opened = None

    def _connected(self) -> "_Server | _Cluster":
        with self._lock:
            if self._opened is None:
                kind = _Cluster if self._address.is_cluster else _Server
                self._opened = kind({**_CONNECTION, **self._address.connection})
            return self._opened

    def _fail(self, what: str, error: Exception) -> NoReturn:
        if isinstance(error, RedisClusterException):
            # The client knows the nodes by the addresses that they told it. When all of those are
            # gone, only the url leads to the new ones.
            self.close()
        reason = _QUOTED_COMMAND.split(str(error), maxsplit=1)[0].strip(" .")
        hint = next((text for kinds, text in _HINTS if isinstance(error, kinds)), _HINT)
        # Not chained: a log would show the text that is cut off here.
        raise OnlineStoreUnavailable(
            f"The online store at {self._address.place} cannot be {what}: {reason}.",
            hint=_CA_HINT if "CERTIFICATE_VERIFY_FAILED" in reason else hint,
        ) from None


class _Server:
    """One server. The client retries by itself, and threads may share it."""

    def __init__(self, connection: dict[str, Any]) -> None:
        self.client = Redis(retry=_retry(), **connection)

    def run(self, commands: list[Command]) -> list[Any]:
        return _pipelined(self.client, commands)


class _Cluster:
    """A cluster. Each node gets its commands in one pipeline.

    redis-py's own cluster pipeline asks the server for the key of every script call, and after a
    node is lost it waits for the timeout once for each command.
    """

    def __init__(self, connection: dict[str, Any]) -> None:
        self.client = RedisCluster(retry=_retry(), **connection)

    def run(self, commands: list[Command]) -> list[Any]:
        answers: dict[int, Any] = {}
        waiting = list(range(len(commands)))
        for _ in range(_ROUNDS):
            moved, lost = self._round(commands, waiting, answers)
            # The client follows a key that moved. Where a node is lost, one command finds out what
            # became of it, and the others follow in the next round.
            for place in [*moved, *lost[:1]]:
                answers[place] = self._alone(commands[place])
            waiting = lost[1:]
            if not waiting:
                return [answers[place] for place in range(len(commands))]
        raise ConnectionError("the nodes of the cluster come and go")

    def _round(
        self, commands: list[Command], waiting: list[int], answers: dict[int, Any]
    ) -> tuple[list[int], list[int]]:
        """Answers what can be answered; the places of what has moved, and of what was lost."""
        by_node: dict[ClusterNode, list[int]] = {}
        for place in waiting:
            node = self.client.get_node_from_key(commands[place].key)  # type: ignore[no-untyped-call]
            by_node.setdefault(node, []).append(place)
        moved: list[int] = []
        lost: list[int] = []
        for node, places in by_node.items():
            client = self.client.get_redis_connection(node)
            try:
                got = _pipelined(client, [commands[place] for place in places])
            except (ConnectionError, TimeoutError):
                lost += places
                continue
            answers.update(zip(places, got, strict=True))
            moved += [place for place in places if isinstance(answers[place], _MOVED)]
        return sorted(moved), sorted(lost)

    def _alone(self, command: Command) -> Any:
        try:
            return self.client.execute_command(*command.words)  # type: ignore[no-untyped-call]
        except NoScriptError as error:
            return error


def _pipelined(client: Redis, commands: list[Command]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command.words)  # type: ignore[no-untyped-call]
    # Errors are answers here: redis-py would add the command, with its record, to their texts.
    return pipeline.execute(raise_on_error=False)


def _lost_script(answers: list[Any]) -> int | None:
    """The place of the first call that the server knew no script for; raises any other error."""
    lost = None
    for place, answer in enumerate(answers):
        if isinstance(answer, NoScriptError):
            lost = place if lost is None else lost
        elif isinstance(answer, Exception):
            raise answer
    return lost


def _retry() -> Retry:
    return Retry(ExponentialWithJitterBackoff(cap=0.2, base=0.02), _RETRIES)
