"""What can be wrong with definitions taken together, or with a definition against real data."""

from konveyer.core.errors import Conflict, KonveyerError, NotFound


class DefinitionsUnreadable(KonveyerError):
    """A file of the definitions folder fails when it is run."""

    code = "definitions_unreadable"


class DuplicateDefinition(KonveyerError):
    """Two definitions of one kind share a name."""

    code = "duplicate_definition"


class UnknownReference(KonveyerError):
    """A definition refers to one that does not exist."""

    code = "unknown_reference"


class DefinitionCycle(KonveyerError):
    """SQL sources that read each other in a circle."""

    code = "definition_cycle"


class SqlInvalid(KonveyerError):
    """SQL that does not parse, or is not exactly one SELECT."""

    code = "sql_invalid"


class SourceChanged(KonveyerError):
    """The columns of a source are no longer those that a view was applied with."""

    code = "source_changed"


class FeatureClash(KonveyerError):
    """Two features of a service have the same name."""

    code = "feature_clash"


class FeatureViewNotFound(NotFound):
    code = "feature_view_not_found"


class FeatureServiceNotFound(NotFound):
    code = "feature_service_not_found"


class PlanOutdated(Conflict):
    """The registry changed between the plan and its application."""

    code = "plan_outdated"


class CannotLandAtOnce(KonveyerError):
    """An exact view over pushed rows whose rows are not made of one pushed row each."""

    code = "cannot_land_at_once"
