"""Save the pipeline as an MLflow model, as `mlflow models serve` wants it."""

import mlflow.sklearn

from benchmarks.peers.model_file import given_paths, pipeline

if __name__ == "__main__":
    model, folder = given_paths()
    mlflow.sklearn.save_model(
        pipeline(model),
        folder / "model",
        pyfunc_predict_fn="predict_proba",
        serialization_format="cloudpickle",
    )
