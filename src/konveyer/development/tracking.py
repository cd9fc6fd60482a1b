"""Experiments in MLflow: the only module that talks to it. Users keep MLflow's own API and UI."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from konveyer.bundle.manifest import TRAINING


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """An MLflow tracking database and the folder (or URL) of its artifacts."""

    url: str
    artifacts: str

    def start(self, experiment: str, *, person: str, tags: Mapping[str, str]) -> str:
        """Open a run in `experiment` and give its id."""
        client = self._client()
        found = client.get_experiment_by_name(experiment)
        experiment_id = (
            client.create_experiment(experiment, artifact_location=f"{self.artifacts}/{experiment}")
            if found is None
            else found.experiment_id
        )
        run = client.create_run(experiment_id, tags={**tags, "mlflow.user": person})
        run_id: str = run.info.run_id
        return run_id

    def finish(
        self,
        run_id: str,
        *,
        parameters: Mapping[str, Any],
        metrics: Mapping[str, float],
        model: Path | None,
        native: Path,
        training_manifest: Path,
        requirements: list[str],
    ) -> None:
        """Log what the run did and mark it finished.

        A LightGBM `model` is logged in MLflow's own format, any other as the files in `native`.
        """
        import mlflow
        from mlflow.entities import Metric, Param

        client = self._client()
        client.log_batch(
            run_id,
            metrics=[Metric(name, value, 0, 0) for name, value in metrics.items()],
            params=[Param(name, str(value)) for name, value in parameters.items()],
        )
        client.log_artifact(run_id, str(training_manifest), artifact_path=TRAINING.split(".")[0])
        if model is None:
            client.log_artifacts(run_id, str(native), artifact_path="model")
            client.set_terminated(run_id)
            return
        import lightgbm

        with mlflow.start_run(run_id=run_id):
            mlflow.lightgbm.log_model(
                lightgbm.Booster(model_file=str(model)), name="model", pip_requirements=requirements
            )

    def fail(self, run_id: str) -> None:
        self._client().set_terminated(run_id, status="FAILED")

    def _client(self) -> Any:
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        mlflow.set_tracking_uri(self.url)
        return mlflow.MlflowClient()
