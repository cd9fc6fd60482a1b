"""What can be wrong with a push."""

from http import HTTPStatus

from konveyer.core.errors import Conflict, Forbidden, KonveyerError, NotFound


class SourceNotFound(NotFound):
    """No source of this name is registered."""

    code = "source_not_found"


class SourceNotPushed(Conflict):
    """The source has its rows from somewhere else."""

    code = "source_not_pushed"


class BadIdempotencyKey(KonveyerError):
    """A push without a key, or with one that is too long."""

    code = "bad_idempotency_key"


class IdempotencyKeyReused(Conflict):
    """The key came before, with other rows."""

    code = "idempotency_key_reused"


class PushedRowsInvalid(KonveyerError):
    """Rows that do not fit the source; none of the push was kept."""

    code, status = "pushed_rows_invalid", HTTPStatus.UNPROCESSABLE_ENTITY


class PushTooLarge(KonveyerError):
    """More rows, or more bytes, than one push may have."""

    code, status = "push_too_large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class EntityForgotten(Forbidden):
    """Rows of an entity that asked to be forgotten."""

    code = "entity_forgotten"


class PushNotOnline(KonveyerError):
    """The rows are kept, and not online yet."""

    code, status = "push_not_online", HTTPStatus.SERVICE_UNAVAILABLE
