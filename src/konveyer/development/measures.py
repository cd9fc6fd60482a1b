"""What a model is measured by, and what it is compared with. Runs in the model's environment."""

from typing import Any

import numpy as np

from konveyer.bundle.native.model import BINARY, MULTICLASS, REGRESSION

MAIN = {BINARY: "auc", MULTICLASS: "log_loss", REGRESSION: "rmse"}
_TINY = 1e-15


def measured(task: str, labels: Any, answers: Any) -> dict[str, float]:
    """`labels` are codes, or numbers of a regression; `answers` an array (rows, outputs)."""
    match task:
        case "binary":
            scores = answers[:, -1].astype(np.float64)
            metrics = {"auc": area_under_curve(labels, scores)}
            if ((scores >= 0) & (scores <= 1)).all():
                both = np.column_stack([1 - scores, scores])
                metrics["log_loss"] = log_loss(labels, both)
            return metrics
        case "multiclass":
            if answers.shape[1] == 1:
                return {"accuracy": float((answers[:, 0] == labels).mean())}
            return {
                "log_loss": log_loss(labels, answers),
                "accuracy": float((answers.argmax(axis=1) == labels).mean()),
            }
        case _:
            errors = answers[:, 0].astype(np.float64) - labels
            return {
                "rmse": float(np.sqrt((errors**2).mean())),
                "mae": float(np.abs(errors).mean()),
            }


def baseline(task: str, train: Any, test: Any, classes: int) -> dict[str, float]:
    """What one gets of `test` by knowing the labels of `train` alone."""
    match task:
        case "binary":
            rate = float(train.mean())
            same = np.tile([1 - rate, rate], (len(test), 1))
            return {
                "label_rate": float(test.mean()),
                "auc_label_rate": 0.5,
                "log_loss_label_rate": log_loss(test, same),
            }
        case "multiclass":
            shares = np.bincount(train, minlength=classes) / len(train)
            return {
                "log_loss_label_shares": log_loss(test, np.tile(shares, (len(test), 1))),
                "accuracy_label_shares": float((test == shares.argmax()).mean()),
            }
        case _:
            return {
                "rmse_mean": float(np.sqrt(((test - train.mean()) ** 2).mean())),
                "mae_median": float(np.abs(test - np.median(train)).mean()),
            }


def log_loss(labels: Any, probabilities: Any) -> float:
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.clip(chosen, _TINY, 1.0)).mean())


def area_under_curve(labels: Any, scores: Any) -> float:
    """The probability that a positive scores above a negative; ties count half (Mann-Whitney)."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        message = "the out-of-time part has labels of one kind only; move [split] out_of_time"
        raise ValueError(message)
    return float(
        (ranks[labels == 1].sum() - positives * (positives + 1) / 2) / positives / negatives
    )
