"""The OpenAPI 3.1 document of what a node serves, made from the contracts of its versions."""

from collections.abc import Sequence
from typing import Any

from konveyer.core.schema import Column
from konveyer.execution.serving import openapi_inference
from konveyer.execution.serving.contract import MOST_ROWS
from konveyer.execution.serving.json_schemas import (
    ERRORS,
    PROBLEMS,
    dtype_schema,
    json_content,
    or_null,
    problems,
)
from konveyer.execution.serving.router import Endpoint


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """One document for all of them."""
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        desired = endpoint.desired
        path = f"/{desired.application}/v{desired.api_version}"
        paths[path] = {"get": _contract(endpoint)}
        paths[f"{path}/predict"] = {"post": _predict(endpoint)}
        paths |= openapi_inference.paths_of(endpoint)
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
            "schemas": ERRORS,
        },
    }


def _contract(endpoint: Endpoint) -> dict[str, Any]:
    manifest = endpoint.live.manifest
    return {
        "operationId": f"{manifest.application}-v{manifest.api_version}-contract",
        "summary": f"The contract of {manifest.application}",
        "responses": {
            "200": {
                "description": "Inputs, outputs and who owns it.",
                **json_content({"type": "object"}),
            },
            **problems("401", "403", "404", "429"),
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
                **json_content(
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
            **problems(*PROBLEMS),
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


def _nullable(column: Column) -> dict[str, Any]:
    return or_null(dtype_schema(column.dtype))
