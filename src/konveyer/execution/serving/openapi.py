"""The OpenAPI 3.1 document of what a node serves, made from the contracts of its versions."""

from collections.abc import Sequence
from typing import Any, assert_never

from konveyer.core.schema import Column, ColumnType, DecimalType, Dtype, ListType
from konveyer.execution.serving.contract import MOST_ROWS
from konveyer.execution.serving.router import Endpoint

_INT64 = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
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
_PROBLEMS = {
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


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """One document for all of them."""
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        desired = endpoint.desired
        path = f"/{desired.application}/v{desired.api_version}"
        paths[path] = {"get": _contract(endpoint)}
        paths[f"{path}/predict"] = {"post": _predict(endpoint)}
    title = endpoints[0].desired.application if len(endpoints) == 1 else "Predictions"
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "1"},
        "paths": paths,
        "security": [{"key": []}, {"bearer": []}],
        "components": {
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
            "schemas": {"Error": _ERROR},
        },
    }


def _contract(endpoint: Endpoint) -> dict[str, Any]:
    manifest = endpoint.live.manifest
    return {
        "operationId": f"{manifest.application}-v{manifest.api_version}-contract",
        "summary": f"The contract of {manifest.application}",
        "responses": {
            "200": {"description": "Inputs, outputs and who owns it.", **_json({"type": "object"})},
            **_problems("401", "403", "404", "429"),
        },
    }


def _predict(endpoint: Endpoint) -> dict[str, Any]:
    manifest, contract = endpoint.live.manifest, endpoint.live.loaded.contract
    row = row_schema(endpoint)
    rows = {
        "type": "object",
        "required": ["rows"],
        "additionalProperties": False,
        "properties": {
            "rows": {"type": "array", "minItems": 1, "maxItems": MOST_ROWS, "items": row}
        },
    }
    outputs = {column.name: dtype_schema(column.dtype) for column in manifest.model.outputs}
    output: dict[str, Any] = (
        next(iter(outputs.values()))
        if len(outputs) == 1
        else {"type": "object", "required": [*outputs], "properties": outputs}
    )
    answer = {
        "application": {"type": "string"},
        "api_version": {"type": "integer"},
        "bundle": {"type": "string"},
        "request_id": {"type": "string"},
        "fallbacks": {"type": "array", "items": {"type": "string"}},
        "prediction": output,
        "predictions": {"type": "array", "items": output},
    }
    needed = ["application", "api_version", "bundle", "request_id"]
    example = contract.example()
    return {
        "operationId": f"{manifest.application}-v{manifest.api_version}-predict",
        "summary": manifest.description or f"Predict with {manifest.application}",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"oneOf": [row, rows]},
                    "examples": {"one": {"value": example}, "many": {"value": {"rows": [example]}}},
                }
            },
        },
        "responses": {
            "200": {
                "description": "The prediction, or one for each row in order.",
                **_json(
                    {
                        "type": "object",
                        "properties": answer,
                        "oneOf": [
                            {"required": [*needed, "prediction"]},
                            {"required": [*needed, "predictions"]},
                        ],
                    }
                ),
            },
            **_problems(*_PROBLEMS),
        },
    }


def row_schema(endpoint: Endpoint) -> dict[str, Any]:
    """Of one row of a request."""
    contract = endpoint.live.loaded.contract
    fields = {field.name: _nullable(field) for field in contract.fields}
    given = {column.name: _nullable(column) for column in contract.given}
    inputs = [column.name for column in (*contract.keys, *contract.fields)]
    schema: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **{key.name: dtype_schema(key.dtype) for key in contract.keys},
            **fields,
            **given,
        },
    }
    if inputs and len(given) < len(contract.features):
        return schema | {"required": inputs}
    if inputs:
        return schema | {"anyOf": [{"required": inputs}, {"required": [*given]}]}
    return schema


def dtype_schema(dtype: Dtype) -> dict[str, Any]:
    """The JSON of one value."""
    match dtype:
        case ColumnType.INT64:
            return dict(_INT64)
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


def _nullable(column: Column) -> dict[str, Any]:
    schema = dtype_schema(column.dtype)
    kinds = schema["type"]
    return schema | {"type": [*([kinds] if isinstance(kinds, str) else kinds), "null"]}


def _problems(*statuses: str) -> dict[str, Any]:
    error = _json({"$ref": "#/components/schemas/Error"})
    return {status: {"description": _PROBLEMS[status], **error} for status in statuses}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}
