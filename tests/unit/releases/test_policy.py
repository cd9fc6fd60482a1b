"""What `[release]` of a model.toml may say."""

import msgspec
import pytest

from konveyer.bundle.release_policy import ReleasePolicy


def test_a_section_asks_for_its_stage() -> None:
    text = "tolerance = 0.5\n[canary]\nweights = [0.001, 1.0]\n[shadow]\nshare = 1.0\n"
    policy = msgspec.toml.decode(text, type=ReleasePolicy)
    assert policy.canary is not None
    assert policy.canary.weights == (0.001, 1.0)
    assert policy.shadow is not None
    assert policy.replay is None


@pytest.mark.parametrize(
    "text",
    [
        "[canary]\nweights = [5, 25]",  # per cent
        "[canary]\nweights = [0.2, 0.1]",
        "[canary]\nweights = []",
        "[canary]\nweights = [0.0]",
        "[canary]\nweights = [0.0009, 0.1]",  # shares are counted in thousandths
        "[shadow]\nshare = 0.0004",
        "[canary]\nrows = 0",
        "[canary]\nrows = 10001",  # no look sees more
        "[shadow]\nrows = 10001",
        "[canary]\nmost_shift = 2",
        "[shadow]\nshare = 0",
        "[shadow]\nwithin_s = -1",
        "[replay]\nrow = 5",
        "tolerance = -1",
    ],
)
def test_what_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.toml.decode(text, type=ReleasePolicy)
