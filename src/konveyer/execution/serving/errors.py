"""What a caller of the prediction path can get wrong, and what can be wrong with us."""

from http import HTTPStatus

from konveyer.core.errors import KonveyerError, NotFound


class InvalidJson(KonveyerError):
    code, status = "invalid_json", HTTPStatus.BAD_REQUEST


class BodyTooLarge(KonveyerError):
    code, status = "body_too_large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE


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


class ExtraField(KonveyerError):
    code, status = "extra_field", HTTPStatus.UNPROCESSABLE_ENTITY


class EntityNotFound(NotFound):
    code = "entity_not_found"


class ApplicationNotFound(NotFound):
    code = "application_not_found"


class VersionNotFound(NotFound):
    code = "version_not_found"


class RouteNotFound(NotFound):
    code = "route_not_found"


class MethodNotAllowed(KonveyerError):
    code, status = "method_not_allowed", HTTPStatus.METHOD_NOT_ALLOWED
