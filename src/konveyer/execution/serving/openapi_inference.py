"""The paths of the Open Inference Protocol in the OpenAPI document of a node."""

from typing import Any

from konveyer.core.schema import Column
from konveyer.execution.serving import inference
from konveyer.execution.serving.json_schemas import (
    INT64,
    PROBLEMS,
    json_content,
    or_null,
    problems,
)
from konveyer.execution.serving.router import Endpoint
from konveyer.execution.serving.tensors import datatype

# The JSON of one value of a tensor, by its datatype.
_TENSOR_VALUES: dict[str, dict[str, Any]] = {
    "INT64": INT64,
    "FP64": {"type": "number"},
    "BOOL": {"type": "boolean"},
    "BYTES": {"type": "string"},
}
_PARAMETERS = {"type": "object"}


def paths_of(endpoint: Endpoint) -> dict[str, Any]:
    """Of one version of an application, by its number."""
    desired = endpoint.desired
    path = f"/v2/models/{desired.application}/versions/{desired.api_version}"
    return {
        path: {"get": _get(endpoint, "model", "The tensors")},
        f"{path}/ready": {"get": _get(endpoint, "ready", "The readiness")},
        f"{path}/infer": {"post": _infer(endpoint)},
    }


def _get(endpoint: Endpoint, act: str, told: str) -> dict[str, Any]:
    manifest = endpoint.live.manifest
    return {
        "operationId": f"{manifest.application}-v{manifest.api_version}-{act}",
        "summary": f"{told} of {manifest.application}, as the Open Inference Protocol has it",
        "responses": {
            "200": {"description": f"{told}.", **json_content({"type": "object"})},
            **problems("401", "403", "404", "429", "503", schema="InferenceError"),
        },
    }


def _infer(endpoint: Endpoint) -> dict[str, Any]:
    manifest, contract = endpoint.live.manifest, endpoint.live.loaded.contract
    inputs = inference.inputs_of(endpoint)
    keys = {key.name for key in contract.keys}
    tensors = [_tensor(column, has_null=column.name not in keys) for column in inputs.values()]
    asked_output = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"enum": [column.name for column in manifest.model.outputs]},
            "parameters": _PARAMETERS,
        },
    }
    body = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "minItems": 1, "items": {"anyOf": tensors}},
            "outputs": {"type": "array", "items": asked_output},
            "parameters": _PARAMETERS,
        },
    }
    answer = {
        "type": "object",
        "required": ["model_name", "model_version", "id", "parameters", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "parameters": _PARAMETERS,
            "outputs": {
                "type": "array",
                "items": {"anyOf": [_tensor(column) for column in manifest.model.outputs]},
            },
        },
    }
    example = [
        {"name": name, "datatype": datatype(inputs[name].dtype), "shape": [1], "data": [value]}
        for name, value in contract.example().items()
    ]
    return {
        "operationId": f"{manifest.application}-v{manifest.api_version}-infer",
        "summary": f"Predict with {manifest.application} by the Open Inference Protocol",
        "requestBody": {
            "required": True,
            "description": "Numbers may have another datatype; tensors may follow in binary.",
            "content": {
                "application/json": {
                    "schema": body,
                    "examples": {"one": {"value": {"inputs": example}}},
                }
            },
        },
        "responses": {
            "200": {
                "description": "The outputs; those that are asked for in binary follow the JSON.",
                "content": json_content(answer)["content"] | {"application/octet-stream": {}},
            },
            **problems(*PROBLEMS, schema="InferenceError"),
        },
    }


def _tensor(column: Column, *, has_null: bool = False) -> dict[str, Any]:
    """One value for each row."""
    kind = datatype(column.dtype)
    value = _TENSOR_VALUES[kind]
    return {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"const": column.name},
            "datatype": {"const": kind},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
            "data": {"type": "array", "items": or_null(value) if has_null else value},
            "parameters": _PARAMETERS,
        },
    }
