"""What can be wrong with a bundle's model."""

from konveyer.core.errors import KonveyerError


class ModelUnusable(KonveyerError):
    """The model file cannot be loaded or run."""

    code = "model_unusable"
