"""Tensors of the Open Inference Protocol: as JSON, and in its binary extension.

Reference: "Open Inference Protocol (REST)" and "Binary Tensor Data Extension" of the KServe and
Triton projects.
"""

import math
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from konveyer.core.schema import ColumnType, DecimalType, Dtype
from konveyer.execution.serving.errors import BadTensor

_NUMPY = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
_BYTES = "BYTES"
_LENGTH = struct.Struct("<I")


def datatype(dtype: Dtype) -> str:
    """How values of a column travel. Instants and UUIDs are texts."""
    match dtype:
        case ColumnType.INT64:
            return "INT64"
        case ColumnType.FLOAT64 | DecimalType():
            return "FP64"
        case ColumnType.BOOL:
            return "BOOL"
        case _:
            return _BYTES


def from_binary(content: bytes, kind: str, name: str) -> list[Any]:
    """The values of a binary tensor; NaN, which stands for null, is None."""
    if kind == _BYTES:
        return _texts(content, name)
    if kind not in _NUMPY:
        raise BadTensor(f"Tensor '{name}' has the datatype {kind:.100}.", hint=_HINT)
    dtype = np.dtype(_NUMPY[kind])
    if len(content) % dtype.itemsize:
        raise BadTensor(
            f"Tensor '{name}' has {len(content)} bytes, which is no number of {kind} values.",
            hint="send as many bytes as binary_data_size says",
        )
    return _without_nan(np.frombuffer(content, dtype).tolist())


def from_json(data: Any, kind: str, name: str) -> list[Any]:
    """The values of a JSON tensor, which may be nested by its shape."""
    if kind != _BYTES and kind not in _NUMPY:
        raise BadTensor(f"Tensor '{name}' has the datatype {kind:.100}.", hint=_HINT)
    values, nested = [], [data]
    while nested:  # each value is looked at once, however deep it stands
        one = nested.pop()
        if isinstance(one, list):
            nested.extend(reversed(one))
        else:
            values.append(_as_float(one) if kind.startswith("FP") else one)
    return values


def to_json(values: Sequence[Any], kind: str) -> list[Any]:
    """The data of a JSON tensor."""
    return [str(value) for value in values] if kind == _BYTES else [*values]


def to_binary(values: Sequence[Any], kind: str) -> bytes:
    """The bytes of a binary tensor."""
    if kind != _BYTES:
        return np.array(values, _NUMPY[kind]).tobytes()
    texts = [str(value).encode() for value in values]
    return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))


def _as_float(value: Any) -> Any:
    """A whole number as what its tensor says it is; one that is too large stays, to be refused."""
    if type(value) is int:
        with suppress(OverflowError):
            return float(value)
    return value


def _texts(content: bytes, name: str) -> list[str]:
    texts, place = [], 0
    while place < len(content):
        start = place + _LENGTH.size
        (length,) = _LENGTH.unpack_from(content, place) if start <= len(content) else (2**32,)
        place = start + length
        if place > len(content):
            raise BadTensor(
                f"Tensor '{name}' ends in the middle of a text.",
                hint="send 4 bytes of length, little-endian, before each text",
            )
        try:
            texts.append(content[start:place].decode())
        except UnicodeDecodeError as error:
            raise BadTensor(f"Tensor '{name}' is not UTF-8.", hint="send texts as UTF-8") from error
    return texts


def _without_nan(values: list[Any]) -> list[Any]:
    return [None if isinstance(value, float) and math.isnan(value) else value for value in values]


_HINT = f"use one of {', '.join((*_NUMPY, _BYTES))}"
