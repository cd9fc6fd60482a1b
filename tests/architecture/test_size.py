"""Files stay small enough to read in one go."""

from pathlib import Path
from statistics import median

import konveyer

LINES = {
    path: len(path.read_text().splitlines())
    for path in Path(konveyer.__file__).parent.rglob("*.py")
    if path.name != "__init__.py"
}


def test_no_file_is_over_five_hundred_lines() -> None:
    assert {str(path): count for path, count in LINES.items() if count > 500} == {}


def test_the_median_file_is_short() -> None:
    assert median(LINES.values()) <= 120
