"""A model in ONNX, run by ONNX Runtime. The only module that talks to it."""

from pathlib import Path

import numpy as np

from konveyer.bundle.errors import ModelFailed, ModelUnusable
from konveyer.bundle.steps import Matrix


class OnnxScorer:
    """Reads one matrix of numbers; its last output is what it says. Thread-safe, one thread a call.

    Of a pair of probabilities the second is given: that of the positive class.
    """

    def __init__(self, path: Path, features: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ModelUnusable(
                "ONNX Runtime is not installed here.", hint="pip install 'konveyer[onnx]'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            given = session.get_inputs()[0]
            self._session, self._name = session, given.name
            self._said = [session.get_outputs()[-1].name]
            self._dtype = np.float64 if given.type == "tensor(double)" else np.float32
            self._is_pair = False
            width = self.score(np.zeros((1, features), np.float64)).shape[1]
        except Exception as error:
            first = str(error).strip().splitlines()[0]
            raise ModelUnusable(
                f"ONNX Runtime: {first}.", hint="train and submit the model again"
            ) from error
        self._is_pair = width == 2
        self.outputs = 1 if self._is_pair else width

    def score(self, rows: Matrix) -> Matrix:
        try:
            with np.errstate(over="ignore"):
                given = rows.astype(self._dtype, copy=False)
            said = self._session.run(self._said, {self._name: given})[0]
        except Exception as error:
            first = str(error).strip().splitlines()[0]
            raise ModelFailed(f"ONNX Runtime: {first}.", hint="report the request id") from error
        scores: Matrix = np.asarray(said, np.float64).reshape(len(rows), -1)
        return scores[:, 1:] if self._is_pair else scores
