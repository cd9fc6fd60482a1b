"""What can be wrong with one definition, seen from the definition alone."""

from konveyer.core.errors import KonveyerError


class BadDefinition(KonveyerError):
    """A definition that contradicts itself: a bad name, an empty list, a bad window."""

    code = "bad_definition"
