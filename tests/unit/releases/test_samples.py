"""What a sample can say of its source, against simulated sources whose truth is known."""

import numpy as np
import pytest

from konveyer.execution.releases.beside import Allowed, Seen, compare_sides, named
from konveyer.execution.releases.samples import SURE, share_surely_above, shift

ALLOWED = Allowed(failures=0.01, slow=0.01, shift=0.2, p99_ms=50)


@pytest.mark.parametrize("truth", [0.001, 0.02, 0.3])
@pytest.mark.parametrize("rows", [5, 50, 2000])
def test_the_surely_exceeded_share_is_nearly_never_above_the_truth(truth: float, rows: int) -> None:
    draws = np.random.default_rng(7).binomial(rows, truth, 4000)
    wrong = sum(share_surely_above(int(bad), rows) > truth for bad in draws) / len(draws)
    assert wrong <= 2 * SURE
    assert share_surely_above(rows // 2, rows) < 0.5


@pytest.mark.parametrize("apart", [0.0, 0.15])
def test_the_sure_shift_is_nearly_never_above_the_truth(apart: float) -> None:
    """A uniform source and one moved by `apart`, whose largest difference is `apart` exactly."""
    random = np.random.default_rng(11)
    found = [
        shift(random.random(300).tolist(), (random.random(200) + apart).tolist()).surely
        for _ in range(500)
    ]
    assert sum(one > apart for one in found) <= 500 * SURE * 3


def test_a_large_shift_is_seen_in_a_few_hundred_rows() -> None:
    random = np.random.default_rng(3)
    one, other = random.beta(2, 8, 400), random.beta(8, 2, 400)
    found = shift(one.tolist(), other.tolist())
    assert found.seen > 0.8
    assert found.surely > 0.5
    few = shift(one[:10].tolist(), other[:10].tolist())
    assert few.seen > 0.5
    assert few.surely == 0.0


def test_texts_and_nulls_have_a_distribution_too() -> None:
    assert shift(["a", "b", None], ["a", "b", None]).seen == 0.0
    assert shift(["yes"] * 300, ["no"] * 300).surely > 0.7
    assert shift([None] * 300, ["no"] * 300).seen == 1.0
    assert shift([float("nan")] * 300, [0.5] * 300).seen == 1.0
    assert shift([], [1.0]).seen == 0.0


def seen(rows: int, *, failed: int = 0, slow: int = 0, around: float = 0.3) -> Seen:
    random = np.random.default_rng(rows + failed + slow)
    answered = rows - failed
    return Seen(
        failed=[True] * failed + [False] * answered,
        took_ms=[80.0] * slow + [3.0] * (rows - slow),
        outputs=[{"score": float(value)} for value in random.normal(around, 0.05, answered)],
    )


@pytest.mark.parametrize(
    ("candidate", "condemned"),
    [
        (seen(2000), ""),
        (seen(3), ""),
        (seen(0), ""),
        (seen(2000, failed=10), ""),
        (seen(2000, failed=80), "failures"),
        (seen(3, failed=3), "failures"),
        (seen(2000, slow=15), ""),
        (seen(2000, slow=200), "slower"),
        (seen(2000, around=0.31), ""),
        (seen(2000, around=0.6), "distribution"),
        (seen(5, around=0.6), ""),
        (seen(12, around=0.6), "distribution"),
    ],
)
def test_a_candidate_is_condemned_for_what_is_surely_worse(candidate: Seen, condemned: str) -> None:
    findings = compare_sides(seen(5000), candidate, ALLOWED)
    assert {one.what.split()[0] for one in findings if one.bad} == ({condemned} - {""})
    assert (condemned in named(findings)) if condemned else named(findings) == ""


def test_what_the_live_version_does_as_badly_is_not_the_candidates_fault() -> None:
    bad_day = seen(2000, failed=400, slow=800)
    assert not any(
        one.bad for one in compare_sides(bad_day, seen(500, failed=95, slow=190), ALLOWED)
    )


def test_without_a_live_side_only_the_candidates_own_failures_count() -> None:
    nothing = Seen(failed=[], took_ms=[], outputs=[])
    findings = compare_sides(nothing, seen(100, failed=20), ALLOWED)
    assert [one.what for one in findings if one.bad] == ["failures"]
