"""JSON Schema of values and of errors, and the parts that all operations of OpenAPI have."""

from typing import Any, assert_never

from konveyer.core.schema import ColumnType, DecimalType, Dtype, ListType

INT64 = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
_ERROR = {
    "type": "object",
    "required": ["error", "request_id"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "hint": {"type": "string"},
            },
        },
        "request_id": {"type": "string"},
    },
}
# The same for clients of the Open Inference Protocol, who expect a text.
_INFERENCE_ERROR = {
    "type": "object",
    "required": ["error", "request_id"],
    "properties": {"error": {"type": "string"}, "request_id": {"type": "string"}},
}
ERRORS = {"Error": _ERROR, "InferenceError": _INFERENCE_ERROR}
PROBLEMS = {
    "400": "The body is not JSON.",
    "401": "There is no valid API key.",
    "403": "The API key may not call this application.",
    "404": "Nothing is known of the entity, or the version is not served here.",
    "405": "Another method is needed.",
    "413": "The body is too large.",
    "422": "A field is missing, not of its type, or not taken.",
    "429": "Too many requests; Retry-After says when to come again.",
    "500": "The model failed.",
    "503": "The online store does not answer, or the model is not there; see Retry-After.",
    "504": "The model did not answer in time.",
}


def dtype_schema(dtype: Dtype) -> dict[str, Any]:
    """The JSON of one value."""
    match dtype:
        case ColumnType.INT64:
            return dict(INT64)
        case ColumnType.FLOAT64:
            return {"type": "number"}
        case ColumnType.BOOL:
            return {"type": "boolean"}
        case ColumnType.STRING:
            return {"type": "string"}
        case ColumnType.UUID:
            return {"type": "string", "format": "uuid"}
        case ColumnType.TIMESTAMP:
            return {"type": "string", "format": "date-time"}
        case DecimalType():
            return {"type": ["number", "string"]}
        case ListType():
            return {"type": "array", "items": dtype_schema(dtype.item)}
        case _:
            assert_never(dtype)


def or_null(schema: dict[str, Any]) -> dict[str, Any]:
    kinds = schema["type"]
    return schema | {"type": [*([kinds] if isinstance(kinds, str) else kinds), "null"]}


def problems(*statuses: str, schema: str = "Error") -> dict[str, Any]:
    error = json_content({"$ref": f"#/components/schemas/{schema}"})
    return {status: {"description": PROBLEMS[status], **error} for status in statuses}


def json_content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}
