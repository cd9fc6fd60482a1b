"""Which features a model can be given: those that are one number or one text."""

from konveyer.core.errors import KonveyerError
from konveyer.core.schema import ListType
from konveyer.feature_store.definitions.resolved import ResolvedService


class FeatureUnreadable(KonveyerError):
    """A model reads one number for each feature, and a list is none."""

    code = "feature_unreadable"


def check_readable(service: ResolvedService) -> None:
    """Raise for the first feature of `service` that no model can be given."""
    for feature in service.features:
        if isinstance(feature.dtype, ListType):
            raise FeatureUnreadable(
                f"Service '{service.name}', feature '{feature.name}' is {feature.dtype}, which a "
                "model cannot be given.",
                hint=f"make numbers of it in an on-demand view with the input "
                f"'{feature.view}:{feature.feature}', and name those in the service",
            )
