"""Files of the prediction log that are written now, or wait to be packed. Needs no library."""

from pathlib import Path

from konveyer.core.clock import from_us
from konveyer.core.processes import is_alive

OPEN, CLOSED = ".open", ".jsonl"


def shipped_folder(environment: str) -> str:
    """Where the logs of an environment's nodes are in shared storage."""
    return f"predictions/{environment}"


def hour_folder(environment: str, at_us: int) -> str:
    """Where what nodes send in an hour is: so few files that they are listed in no time.

    >>> hour_folder("prod", 1_000_000)
    'predictions/prod/1970-01-01/00'
    """
    return f"{shipped_folder(environment)}/{from_us(at_us):%Y-%m-%d/%H}"


def log_folder(root: Path, environment: str) -> Path:
    """Where a node writes its log, below `root`."""
    return root / shipped_folder(environment)


def segment_name(at_us: int, pid: int, mark: str) -> str:
    """Of an open segment: it sorts by its time, and names its process in case that dies."""
    return f"{at_us:016d}-{pid}-{mark}{OPEN}"


def ready_segments(folder: Path) -> list[Path]:
    """The segments that nobody writes any more: closed, or of processes that are gone."""
    gone = [path for path in folder.glob(f"*{OPEN}") if not is_alive(int(path.name.split("-")[1]))]
    return sorted([*folder.glob(f"*{CLOSED}"), *gone])
