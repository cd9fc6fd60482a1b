"""What a process tells its node of what it serves."""

from pathlib import Path

from konveyer.bundle.store import BundleStore
from konveyer.execution.serving.node_process import Follower
from konveyer.execution.serving.siblings import node_report
from tests.unit.serving.test_router import desire, made_router, packed


def test_what_could_not_be_told_is_told_when_there_is_room_again(tmp_path: Path) -> None:
    bundles = BundleStore(tmp_path / "bundles")
    first, second = packed(bundles, 1), packed(bundles, 2)
    folder, away = tmp_path / "node", tmp_path / "away"
    follower = Follower(made_router(tmp_path, bundles), folder, 0)

    def told() -> list[str]:
        return [one.digest for one in node_report(folder).serving]

    desire(tmp_path, first.digest)
    follower.follow()
    assert told() == [first.digest]
    folder.rename(away)
    folder.touch()  # nothing can be written there
    desire(tmp_path, second.digest)
    follower.follow()
    folder.unlink()
    away.rename(folder)
    assert told() == [first.digest]
    follower.follow()
    assert told() == [second.digest]
