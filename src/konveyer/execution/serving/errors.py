"""What a caller of the prediction path can get wrong, and what can be wrong with us."""

from http import HTTPStatus

from konveyer.core.errors import KonveyerError, NotFound


class InvalidJson(KonveyerError):
    code, status = "invalid_json", HTTPStatus.BAD_REQUEST


class BodyTooLarge(KonveyerError):
    code, status = "body_too_large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class HeadTooLarge(KonveyerError):
    code, status = "head_too_large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


class Overloaded(KonveyerError):
    """More requests at a time than a process takes, or lets wait for one version."""

    code, status = "overloaded", HTTPStatus.TOO_MANY_REQUESTS


class TooManyRows(KonveyerError):
    code, status = "too_many_rows", HTTPStatus.UNPROCESSABLE_ENTITY


class NoRows(KonveyerError):
    code, status = "no_rows", HTTPStatus.UNPROCESSABLE_ENTITY


class MissingKey(KonveyerError):
    code, status = "missing_key", HTTPStatus.UNPROCESSABLE_ENTITY


class MissingField(KonveyerError):
    code, status = "missing_field", HTTPStatus.UNPROCESSABLE_ENTITY


class WrongFieldType(KonveyerError):
    code, status = "wrong_type", HTTPStatus.UNPROCESSABLE_ENTITY


class ValueNotAllowed(KonveyerError):
    """A caller sent the value of a feature that the model reads itself."""

    code, status = "value_not_allowed", HTTPStatus.UNPROCESSABLE_ENTITY


class ExtraField(KonveyerError):
    code, status = "extra_field", HTTPStatus.UNPROCESSABLE_ENTITY


class EntityNotFound(NotFound):
    code = "entity_not_found"


class ApplicationNotFound(NotFound):
    code = "application_not_found"


class VersionNotFound(NotFound):
    code = "version_not_found"


class ModelUnavailable(KonveyerError):
    """The process of an isolated model is not there, or ended before it answered."""

    code, status = "model_unavailable", HTTPStatus.SERVICE_UNAVAILABLE


def told_nothing() -> ModelUnavailable:
    """The error of a node that never could read what it is to serve."""
    return ModelUnavailable(
        "This node does not know yet what it is to serve, and to whom.",
        hint="it looks again; send the request again in a second",
    )


class LaneNotReady(ModelUnavailable):
    """It has not started yet: whoever waits for it asks again."""

    code = "lane_not_ready"


class LanePreparing(LaneNotReady):
    """Nothing has gone wrong so far: its environment is built, or its process starts."""

    code = "lane_preparing"


class ModelTimedOut(KonveyerError):
    """An isolated model took longer than its limit."""

    code, status = "model_timed_out", HTTPStatus.GATEWAY_TIMEOUT


class RouteNotFound(NotFound):
    code = "route_not_found"


class MethodNotAllowed(KonveyerError):
    """`allowed` is the method that the address takes."""

    code, status = "method_not_allowed", HTTPStatus.METHOD_NOT_ALLOWED

    def __init__(self, message: str, *, allowed: str) -> None:
        super().__init__(message, hint=f"use {allowed}")
        self.allowed = allowed


class KeyMissing(KonveyerError):
    code, status = "key_missing", HTTPStatus.UNAUTHORIZED


class KeyUnknown(KonveyerError):
    code, status = "key_unknown", HTTPStatus.UNAUTHORIZED


class KeyExpired(KonveyerError):
    code, status = "key_expired", HTTPStatus.UNAUTHORIZED


class KeyNotAllowed(KonveyerError):
    code, status = "key_not_allowed", HTTPStatus.FORBIDDEN


class RateExceeded(KonveyerError):
    """A key was used more often than it may be; `retry_after_s` says when it may be again."""

    code, status = "rate_exceeded", HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, message: str, *, hint: str, retry_after_s: float) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class StoreTooSlow(KonveyerError):
    """The online store did not answer within the model's deadline."""

    code, status = "online_store_unavailable", HTTPStatus.SERVICE_UNAVAILABLE


class BadTensor(KonveyerError):
    """A tensor that is not what its request says, or that the model does not take."""

    code, status = "bad_tensor", HTTPStatus.UNPROCESSABLE_ENTITY


class EncodingNotTaken(KonveyerError):
    code, status = "encoding_not_taken", HTTPStatus.UNSUPPORTED_MEDIA_TYPE
