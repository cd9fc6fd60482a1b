"""What can be wrong with a bundle."""

from http import HTTPStatus

from konveyer.core.digest import short
from konveyer.core.errors import Conflict, KonveyerError, NotFound


class BundleCorrupt(KonveyerError):
    """A file of a bundle is missing or is not the one that was reviewed."""

    code = "bundle_corrupt"


class BundleNotFound(NotFound):
    code = "bundle_not_found"


class BundleNewer(Conflict):
    """The bundle was packed by a newer Konveyer."""

    code = "bundle_newer"


class ModelUnusable(KonveyerError):
    """The model file cannot be loaded or run."""

    code = "model_unusable"


class ModelFailed(KonveyerError):
    """The model has no answer for a row: it raised an error, or gave what is no finite number."""

    code, status = "model_failed", HTTPStatus.INTERNAL_SERVER_ERROR


def not_found(digest: str, where: object) -> BundleNotFound:
    return BundleNotFound(
        f"There is no bundle {short(digest)} in {where}.", hint="submit the model again"
    )


def corrupt(digest: str, name: str) -> BundleCorrupt:
    return BundleCorrupt(
        f"{name} of bundle {short(digest)} is missing or was changed.",
        hint="submit the model again; the version that is live keeps serving",
    )
