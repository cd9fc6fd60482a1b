"""The model that all peers serve: the scikit-learn pipeline that our training wrote."""

import pickle
import sys
from pathlib import Path
from typing import Any

POSITIVE = 1


def pipeline(path: Path) -> Any:
    """Its `predict_proba` takes a frame with a row for each client."""
    return pickle.loads(path.read_bytes())


def given_paths() -> tuple[Path, Path]:
    """What a peer is called with: the model's file, and a folder of its own."""
    return Path(sys.argv[1]), Path(sys.argv[2])
