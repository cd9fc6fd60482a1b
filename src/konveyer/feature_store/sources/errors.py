"""What can be wrong with the place that a source names, or with the rows there."""

from konveyer.core.errors import KonveyerError, NotFound


class SourceFileMissing(KonveyerError):
    """There is nothing at the path of a source."""

    code = "source_file_missing"


class SourceChangedMeanwhile(KonveyerError):
    """A file of a source was written while it was read: rows of two contents may be mixed."""

    code = "source_changed_meanwhile"


class SourceTypesMissing(KonveyerError):
    """A source whose kind knows no types does not declare its columns."""

    code = "source_types_missing"


class SourceValueInvalid(KonveyerError):
    """A value that its column's type does not allow."""

    code = "source_value_invalid"


class SourceReadFailed(KonveyerError):
    """The rows of a source could not be kept for reading: the disk is full or not writable."""

    code = "source_read_failed"


class UnknownColumn(KonveyerError):
    """A definition names a column that its rows do not have."""

    code = "unknown_column"


class WrongType(KonveyerError):
    """A column has another type than its use needs."""

    code = "wrong_type"


class DatabaseUnknown(NotFound):
    """`konveyer.toml` has no such database, or not one that can be read."""

    code = "database_unknown"


class DatabaseUnreadable(KonveyerError):
    """A database does not answer, or stopped answering while it was read."""

    code = "database_unreadable"


class DatabaseRefused(KonveyerError):
    """A database answers, but not to this table or query; the message is the database's own."""

    code = "database_refused"


class DatabaseDriverMissing(KonveyerError):
    """The library that reads this kind of database is not installed."""

    code = "database_driver_missing"
