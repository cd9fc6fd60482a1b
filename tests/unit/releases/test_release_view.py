"""How a release looks in a terminal."""

import pytest

from konveyer.cli.release_view import print_release
from konveyer.execution.releases.records import Release, StageRecord


def test_of_much_evidence_the_beginning_is_shown_and_the_reason_stays_in_sight(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failed = StageRecord(
        stage="functional",
        verdict="failed",
        rule="recorded answers come again",
        measured="49 of 50 malformed requests refused as they should",
        limit="every request",
        evidence={"unlike": [], "malformed_requests": [{"request": n} for n in "x" * 500]},
        by="conveyor",
        waited_s=0,
        worked_s=1,
        started_us=0,
        finished_us=1_000_000,
    )
    print_release(
        Release(
            id="rel-1",
            application="shop",
            api_version=1,
            digest="sha256:0",
            author="ana",
            state="failed",
            reason="functional: 49 of 50",
            required=[],
            attempt=1,
            opened_us=0,
            ended_us=1_000_000,
            waiting_s=0,
            stages=[failed],
        )
    )
    shown = capsys.readouterr().out.splitlines()
    assert "functional, unlike:" in shown
    assert any("more lines: --json shows them" in line for line in shown)
    assert len(shown) < 50
    assert "Stopped: functional: 49 of 50" in shown
