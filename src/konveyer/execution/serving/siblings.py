"""What the processes of one node share, and tell each other: small files in the node's folder."""

from pathlib import Path

import msgspec

from konveyer.core.files import write_atomically
from konveyer.execution.serving.report import Report


def metrics_folder(folder: Path) -> Path:
    """For the counts of `prometheus_client`."""
    return folder / "metrics"


def remove_counts(folder: Path, pid: int) -> None:
    """Those of one process, which then are added up no more."""
    for path in metrics_folder(folder).glob(f"*_{pid}.db"):
        path.unlink(missing_ok=True)


def rates_file(folder: Path) -> Path:
    """For the cells of `rates`."""
    return folder / "rates"


def tell(folder: Path, number: int, report: Report) -> None:
    """Note what a process serves now."""
    write_atomically(_file(folder, number), msgspec.json.encode(report))


def has_told(folder: Path, number: int) -> bool:
    """Whether what a process has told is still there."""
    return _file(folder, number).exists()


def forget(folder: Path, number: int) -> None:
    """A process that is gone serves nothing."""
    _file(folder, number).unlink(missing_ok=True)


def node_report(folder: Path) -> Report:
    """The versions that every process of the node serves, and what any of them refused."""
    told: list[Report] = []
    for path in sorted(folder.glob("process-*.json")):
        try:
            told.append(msgspec.json.decode(path.read_bytes(), type=Report))
        except FileNotFoundError:
            continue
    first = told[0].serving if told else ()
    return Report(
        is_starting=not told or any(report.is_starting for report in told),
        serving=tuple(one for one in first if all(one in other.serving for other in told)),
        refused=tuple(dict.fromkeys(one for report in told for one in report.refused)),
    )


def _file(folder: Path, number: int) -> Path:
    return folder / f"process-{number}.json"
