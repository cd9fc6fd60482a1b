"""A LightGBM model run through LightGBM's C library, without its Python package.

The package drags pandas and SciPy into the process and spends a hundred times the model's own time
on a single row. Reference: the C API documented at lightgbm.readthedocs.io ("C API").
"""

import ctypes
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from konveyer.bundle.errors import ModelUnusable
from konveyer.bundle.steps import Matrix

_FLOAT64, _NORMAL, _ROW_MAJOR = 1, 0, 1
_PARAMETERS = b"num_threads=1"


class LightGBMScorer:
    """Predicts rows of float64 numbers; NaN is a missing value. Thread-safe.

    `score` takes a C-ordered matrix (n, features) and gives (n, outputs): the probability for a
    binary objective, that of each class for a multiclass one, the value for a regression.
    """

    def __init__(self, path: Path, features: int) -> None:
        self._library = _library()
        self._features = features
        self._handle = ctypes.c_void_p()
        iterations = ctypes.c_int()
        self._check(
            self._library.LGBM_BoosterCreateFromModelfile(
                str(path).encode(), ctypes.byref(iterations), ctypes.byref(self._handle)
            )
        )
        expected = ctypes.c_int()
        self._check(self._library.LGBM_BoosterGetNumFeature(self._handle, ctypes.byref(expected)))
        if expected.value != features:
            raise ModelUnusable(
                f"The model reads {expected.value} features, its contract has {features}.",
                hint="train the model on the features of its service",
            )
        classes = ctypes.c_int()
        self._check(self._library.LGBM_BoosterGetNumClasses(self._handle, ctypes.byref(classes)))
        self.outputs = classes.value
        self._local = threading.local()

    def score(self, rows: Matrix) -> Matrix:
        result = np.empty((len(rows), self.outputs), np.float64)
        if len(rows) == 1:
            self._score_one(rows, result)
            return result
        length = ctypes.c_int64()
        self._check(
            self._library.LGBM_BoosterPredictForMat(
                self._handle,
                ctypes.c_void_p(rows.ctypes.data),
                _FLOAT64,
                ctypes.c_int32(len(rows)),
                ctypes.c_int32(self._features),
                _ROW_MAJOR,
                _NORMAL,
                0,
                -1,
                _PARAMETERS,
                ctypes.byref(length),
                ctypes.c_void_p(result.ctypes.data),
            )
        )
        return result

    def _score_one(self, row: Matrix, result: Matrix) -> None:
        self._check(
            self._library.LGBM_BoosterPredictForMatSingleRowFast(
                self._fast(),
                ctypes.c_void_p(row.ctypes.data),
                ctypes.byref(ctypes.c_int64()),
                ctypes.c_void_p(result.ctypes.data),
            )
        )

    def _fast(self) -> ctypes.c_void_p:
        """The prepared single-row configuration; it holds buffers, so each thread has its own."""
        handle: ctypes.c_void_p | None = getattr(self._local, "handle", None)
        if handle is None:
            handle = ctypes.c_void_p()
            self._check(
                self._library.LGBM_BoosterPredictForMatSingleRowFastInit(
                    self._handle,
                    _NORMAL,
                    0,
                    -1,
                    _FLOAT64,
                    ctypes.c_int32(self._features),
                    _PARAMETERS,
                    ctypes.byref(handle),
                )
            )
            self._local.handle = handle
        return handle

    def _check(self, status: int) -> None:
        if status != 0:
            reason = self._library.LGBM_GetLastError().decode(errors="replace")
            raise ModelUnusable(f"LightGBM: {reason}", hint="train and submit the model again")


def _library() -> Any:
    spec = find_spec("lightgbm")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    for folder in folders:
        for name in ("lib/lib_lightgbm.so", "lib/lib_lightgbm.dylib", "bin/lib_lightgbm.dll"):
            if (Path(folder) / name).is_file():
                library = ctypes.CDLL(str(Path(folder) / name))
                library.LGBM_GetLastError.restype = ctypes.c_char_p
                return library
    raise ModelUnusable(
        "LightGBM's library is not installed here.", hint="pip install 'konveyer[execution]'"
    )
