"""Estimators of scikit-learn as ONNX. Run in the model's environment with skl2onnx beside it."""

from pathlib import Path
from typing import Any

import numpy as np

from konveyer.bundle.native.columns import NotCompiled

DOUBLE, FLOAT = "double", "float"


def write_onnx(estimator: Any, features: int, kind: str, path: Path) -> None:
    """Write `estimator`, which reads so many numbers of this kind, without its class labels."""
    from skl2onnx import to_onnx

    example = np.zeros((1, features), np.float64 if kind == DOUBLE else np.float32)
    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "predict_proba") else None
    try:
        converted = to_onnx(estimator, example, options=options)
    except Exception as error:
        first = str(error).strip().splitlines()
        message = f"{type(estimator).__name__} has no ONNX form: {first[0] if first else error!r}"
        raise NotCompiled(message) from error
    path.write_bytes(converted.SerializeToString())
