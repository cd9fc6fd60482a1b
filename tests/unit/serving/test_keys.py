"""API keys at a node: who may call what, and how often."""

import hashlib
import itertools
import time
from contextlib import suppress
from pathlib import Path

import pytest

from konveyer.core.clock import now_us
from konveyer.core.errors import KonveyerError
from konveyer.execution.serving import rates
from konveyer.execution.serving.desired import ApiKey
from konveyer.execution.serving.errors import RateExceeded
from konveyer.execution.serving.keys import KeyRing
from konveyer.execution.serving.rates import SharedRates, TooManyKeys


def api_key(secret: str, **terms: object) -> ApiKey:
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return ApiKey(digest=digest, name=f"caller of {secret}", **terms)  # type: ignore[arg-type]


def ring(tmp_path: Path, *keys: ApiKey, required: bool = True) -> KeyRing:
    return KeyRing(keys, SharedRates(tmp_path / "rates"), are_required=required)


@pytest.mark.parametrize(
    "headers",
    [
        {b"x-api-key": b"a"},
        {b"authorization": b"Bearer a"},
        {b"authorization": b"bearer  a "},
        {b"x-api-key": b"a", b"authorization": b"Basic x"},
    ],
)
def test_a_key_is_found_in_either_header(tmp_path: Path, headers: dict[bytes, bytes]) -> None:
    assert ring(tmp_path, api_key("a")).caller(headers, "scoring") == "caller of a"


@pytest.mark.parametrize(
    ("headers", "code", "status"),
    [
        ({}, "key_missing", 401),
        ({b"authorization": b"Basic a"}, "key_missing", 401),
        ({b"x-api-key": b"other"}, "key_unknown", 401),
        ({b"x-api-key": b"\xff\x00"}, "key_unknown", 401),
        ({b"x-api-key": b"old"}, "key_expired", 401),
        ({b"x-api-key": b"narrow"}, "key_not_allowed", 403),
    ],
)
def test_who_may_not_call_is_told_why(
    tmp_path: Path, headers: dict[bytes, bytes], code: str, status: int
) -> None:
    keys = ring(
        tmp_path,
        api_key("a"),
        api_key("old", expires_us=now_us() - 1),
        api_key("narrow", applications=("other",)),
    )
    with pytest.raises(KonveyerError) as caught:
        keys.caller(headers, "scoring")
    assert (caught.value.code, caught.value.status) == (code, status)
    assert caught.value.hint


def test_where_keys_are_open_one_that_is_sent_is_checked(tmp_path: Path) -> None:
    keys = ring(tmp_path, api_key("narrow", applications=("other",)), required=False)
    assert keys.caller({}, "scoring") == ""
    for secret in (b"nobody's", b"narrow"):
        with pytest.raises(KonveyerError):
            keys.caller({b"x-api-key": secret}, "scoring")


def passes(keys: KeyRing) -> bool:
    with suppress(RateExceeded):
        keys.caller({b"x-api-key": b"slow"}, "scoring")
        return True
    return False


def ask_without_end(rings: tuple[KeyRing, ...], secret: bytes) -> None:
    for keys in itertools.cycle(rings):
        keys.caller({b"x-api-key": secret}, "scoring")


def test_processes_of_a_node_count_together(tmp_path: Path) -> None:
    """Each opens the file by itself, as processes do, and has the keys in another order."""
    slow, quick = api_key("slow", rate_per_s=5.0), api_key("quick", rate_per_s=1000.0)
    one, other = ring(tmp_path, slow, quick), ring(tmp_path, quick, slow)
    began = time.monotonic()
    passed = 0
    while time.monotonic() < began + 1.0:
        for keys in (one, other):
            passed += passes(keys)
    # Five at once after the pause, then five a second.
    assert 9 <= passed <= 11
    with pytest.raises(RateExceeded) as caught:
        ask_without_end((one, other), b"slow")
    assert 0 < caught.value.retry_after_s < 1
    for _ in range(50):
        one.caller({b"x-api-key": b"quick"}, "scoring")


def test_the_disk_has_the_room_of_all_cells(tmp_path: Path) -> None:
    """On one that is full by then the first use of a cell would end the process."""
    path = tmp_path / "rates"
    for _ in range(2):
        SharedRates(path)
        assert path.stat().st_blocks * 512 >= path.stat().st_size > 0


@pytest.fixture
def four_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_CELLS", 4)


def use(keys: KeyRing, secret: str) -> None:
    keys.caller({b"x-api-key": secret.encode()}, "scoring")


@pytest.mark.usefixtures("four_cells")
def test_keys_come_and_go_without_end(tmp_path: Path) -> None:
    for number in range(20):
        keys = ring(tmp_path, api_key(f"key {number}", rate_per_s=1000.0))
        use(keys, f"key {number}")
        time.sleep(0.002)


@pytest.mark.usefixtures("four_cells")
def test_a_key_whose_cell_was_given_away_counts_by_itself_in_another(tmp_path: Path) -> None:
    idle = api_key("slow", rate_per_s=1.0)
    one, other = ring(tmp_path, idle), ring(tmp_path, idle)
    # All of them look for a cell at the same place first.
    names = [name for name in map(str, range(40)) if place_of(api_key(name)) == place_of(idle)]
    keys = ring(tmp_path, *(api_key(name, rate_per_s=1.0) for name in names))
    used = names[-3:]
    for name in used:
        use(keys, name)
    assert sum(passes(slow) for _ in range(5) for slow in (one, other)) == 1
    for name in used:
        with pytest.raises(RateExceeded):
            use(keys, name)


def place_of(key: ApiKey) -> int:
    return int(key.digest[:16], 16) % 4


@pytest.mark.usefixtures("four_cells")
def test_a_cell_in_use_is_given_to_nobody(tmp_path: Path) -> None:
    busy = [f"busy {number}" for number in range(4)]
    keys = ring(tmp_path, *(api_key(secret, rate_per_s=0.5) for secret in busy))
    for secret in busy:
        use(keys, secret)
    with pytest.raises(TooManyKeys):
        ring(tmp_path, api_key("one more", rate_per_s=5.0))
    for secret in busy:
        with pytest.raises(RateExceeded):
            use(keys, secret)
