"""Online store in Redis: one server or a cluster, with or without TLS."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from konveyer.feature_store.online.base import Record
from konveyer.feature_store.online.redis_client import Command, RedisClient
from konveyer.feature_store.online.redis_url import RedisAddress, parse_redis_url

_MOST_COMMANDS = 1_000
_MOST_BYTES = 4 * 2**20

# The event time of a record is bytes 8 to 15, little-endian and signed. Lua's numbers are doubles,
# which 64 bits do not fit into, and Redis compares strings in the server's locale: so the bytes are
# compared as numbers, the highest first with its sign bit flipped. `pcall` gives the server's own
# error (out of memory, read only), which `call` would wrap into one of the script.
_PUT_UNLESS_OLDER = """
local old = redis.call('GETRANGE', KEYS[1], 8, 15)
if #old == 8 then
  for place = 8, 1, -1 do
    local was, is = old:byte(place), ARGV[1]:byte(place + 8)
    if place == 8 then
      was, is = (was + 128) % 256, (is + 128) % 256
    end
    if was > is then return 0 end
    if was < is then break end
  end
end
local done = redis.pcall('SET', KEYS[1], ARGV[1])
if done.err then return redis.error_reply(done.err:match('%u%u+ .*') or done.err) end
return 1
"""


class RedisOnlineStore:
    """See `OnlineStore`. Connects on first use, so that a node starts while Redis is away.

    Every record is one string under a key of its own: a reader sees it whole, and a script on the
    server decides which of two records is newer. No command has more than one key, so a cluster
    may spread them as it likes. Reads and writes are pipelined, up to a thousand to a round trip;
    a `put` that fails has written some of its records, and putting them again is harmless.
    """

    is_remote = True

    @classmethod
    def from_url(cls, url: str, root: Path) -> "RedisOnlineStore":
        return cls(parse_redis_url(url, root))

    def __init__(self, address: RedisAddress) -> None:
        self._name = address.prefix
        self._redis = RedisClient(address, script=_PUT_UNLESS_OLDER)

    def put(self, space: str, records: Iterable[Record], *, even_older: bool = False) -> None:
        prefix = self._prefix(space)
        for batch in _batches(
            Command(prefix + key, ("SET", prefix + key, value))
            if even_older
            else self._redis.script_call(prefix + key, value)
            for key, value in records
        ):
            self._redis.run(batch, "written")

    def get(self, places: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        prefixes = {space: self._prefix(space) for space, _ in places}
        names = (prefixes[space] + key for space, key in places)
        answers: list[bytes | None] = []
        for batch in _batches(Command(name, ("GET", name)) for name in names):
            answers += self._redis.run(batch, "read")
        return answers

    def delete(self, space: str, keys: Iterable[bytes]) -> None:
        prefix = self._prefix(space)
        self._unlink(prefix + key for key in keys)

    def drop(self, space: str) -> None:
        """Walks over all keys of the server or cluster, a thousand at a time, and blocks nobody."""
        self._unlink(self._redis.scan(self._prefix(space) + b"*", at_once=_MOST_COMMANDS))

    def close(self) -> None:
        self._redis.close()

    def _unlink(self, places: Iterable[bytes]) -> None:
        for batch in _batches(Command(place, ("UNLINK", place)) for place in places):
            self._redis.run(batch, "written")

    def _prefix(self, space: str) -> bytes:
        digest = hashlib.blake2b(space.encode(), digest_size=12).hexdigest()
        return f"{self._name}:{digest}:".encode()


def _batches(commands: Iterable[Command]) -> Iterator[list[Command]]:
    batch: list[Command] = []
    size_bytes = 0
    for command in commands:
        batch.append(command)
        size_bytes += command.size_bytes
        if len(batch) == _MOST_COMMANDS or size_bytes >= _MOST_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch
