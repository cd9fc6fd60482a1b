"""What the benchmarks' commands share."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def kept_or_temporary(folder: Path | None) -> Iterator[Path]:
    """The folder that was asked for, which stays, or one that goes."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.resolve()
        return
    with tempfile.TemporaryDirectory(
        prefix="konveyer-bench-", ignore_cleanup_errors=True
    ) as temporary:
        yield Path(temporary)
