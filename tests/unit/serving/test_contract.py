"""What a request holds: keys, given values, or both, each value of its type."""

import json
import math
import struct
from typing import Any

import msgspec
import pytest

from konveyer.bundle.manifest import Serving
from konveyer.bundle.values import BadServing, checked_fallbacks
from konveyer.core.errors import KonveyerError, did_you_mean
from konveyer.core.schema import Column, ColumnType, DecimalType, ScalarColumn
from konveyer.execution.serving.contract import AskedRow, RequestContract, feature_value
from konveyer.execution.serving.errors import ExtraField, WrongFieldType
from konveyer.execution.serving.tensors import from_binary
from konveyer.feature_store.definitions.resolved import (
    ResolvedFeature,
    ResolvedService,
    ResolvedView,
)

KEYS = (ScalarColumn("bank", ColumnType.STRING), ScalarColumn("id", ColumnType.INT64))
COLUMNS = (
    Column("amount", ColumnType.FLOAT64),
    Column("price", DecimalType(9, 2)),
    Column("since", ColumnType.TIMESTAMP),
    Column("is_new", ColumnType.BOOL),
)
SERVICE = ResolvedService(
    name="s",
    version="1",
    views=(
        ResolvedView(
            name="v",
            version="1",
            keys=KEYS,
            columns=COLUMNS,
            defaults=(None,) * 4,
            space="v.1",
            ttl_us=None,
            windowed=False,
        ),
    ),
    features=tuple(
        ResolvedFeature(name=column.name, view="v", feature=column.name, dtype=column.dtype)
        for column in COLUMNS
    ),
)
NAMES = [column.name for column in COLUMNS]
KEY = {"bank": "north", "id": 7}
ALL = {"amount": 1, "price": "1.50", "since": "2026-01-01T00:00:00Z", "is_new": True}


def read(value: Any, *givable: str) -> list[AskedRow]:
    contract = RequestContract(SERVICE, givable)
    rows, is_single = contract.shape(json.dumps(value).encode())
    return contract.read(rows, is_single=is_single)


def test_a_key_is_the_same_however_it_is_written() -> None:
    """It decides which side of a canary answers for an entity."""
    card = ScalarColumn("card", ColumnType.UUID)
    view = msgspec.structs.replace(SERVICE.views[0], keys=(card,))
    contract = RequestContract(msgspec.structs.replace(SERVICE, views=(view,)))
    written = "8E1F3C52-6D7A-4B1E-9A39-5D2B6F0C1A2B"
    assert contract.keys_of({"card": written}) == (written.lower(),)
    assert contract.keys_of({"card": 7}) is None
    assert contract.keys_of({"card": None}) is None
    assert contract.keys_of([]) is None


def code(value: Any, *givable: str) -> str:
    with pytest.raises(KonveyerError) as caught:
        read(value, *givable)
    assert caught.value.hint
    assert 400 <= caught.value.status < 500
    return caught.value.code


def test_rows_by_key_by_values_and_by_both() -> None:
    (by_key,) = read(KEY)
    assert (by_key.keys, dict(by_key.given)) == (("north", 7), {})
    both, only = read({"rows": [KEY | {"amount": 3}, ALL]}, *NAMES)
    assert (both.keys, dict(both.given)) == (("north", 7), {0: 3.0})
    assert only.keys is None
    assert only.given[0] == 1.0
    assert str(only.given[1]) == "1.50"
    assert only.given[2] == 1_767_225_600_000_000
    assert only.given[3] is True
    (null,) = read(KEY | {"amount": None}, "amount")
    assert dict(null.given) == {0: None}


@pytest.mark.parametrize(
    ("value", "givable", "expected"),
    [
        (KEY | {"amount": 1}, (), "value_not_allowed"),
        (KEY | {"amount": 1, "price": 1}, ("price",), "value_not_allowed"),
        (KEY | {"amonut": 1}, ("amount",), "extra_field"),
        ({"amount": 1}, ("amount",), "missing_key"),
        (ALL | {"bank": "north"}, tuple(NAMES), "missing_key"),
        (KEY | {"amount": "1"}, ("amount",), "wrong_type"),
        (KEY | {"price": "x"}, ("price",), "wrong_type"),
        (KEY | {"price": "NaN"}, ("price",), "wrong_type"),
        (KEY | {"since": 5}, ("since",), "wrong_type"),
        (KEY | {"is_new": 1}, ("is_new",), "wrong_type"),
        (KEY | {"id": 10**30}, (), "wrong_type"),
        (KEY | {"id": 10**4000}, (), "wrong_type"),
        (KEY | {"amount": 10**400}, ("amount",), "wrong_type"),
        (KEY | {"price": 10**7}, ("price",), "wrong_type"),
        (KEY | {"price": "1.505"}, ("price",), "wrong_type"),
        (KEY | {"price": 10**4000}, ("price",), "wrong_type"),
        (KEY | {"price": "1e9999999"}, ("price",), "wrong_type"),
        (KEY | {"price": "-1e-9999999"}, ("price",), "wrong_type"),
        (KEY | {"price": "1e999999999999999999999"}, ("price",), "wrong_type"),
    ],
)
def test_what_is_not_taken_is_a_clear_4xx(
    value: Any, givable: tuple[str, ...], expected: str
) -> None:
    assert code(value, *givable) == expected


def test_of_an_endless_name_only_the_beginning_is_compared_and_told() -> None:
    """What is near such a name takes a fifth of a second to find, in which nobody is answered."""
    endless = KEY | {"amount" * 160_000: 1}
    for value in (endless, {"rows": [endless]}, {"rows": [], "amount" * 160_000: 1}):
        with pytest.raises(ExtraField) as refused:
            read(value, *NAMES)
        assert len(str(refused.value)) < 300
    known = "amount" * 16
    assert did_you_mean(known + "amounts" * 160_000, [known]) == f"did you mean '{known}'?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1" * 28 + ".1234567890", "1" * 28 + ".1234567890"),
        ("1" * 28 + ".123456789000", "1" * 28 + ".1234567890"),
        ("1" * 28 + ".12345678901", None),
        ("1" * 29, None),
        ("2e27", "2" + "0" * 27 + ".0000000000"),
        ("0e9999999", "0E-10"),
        ("1e9999999", None),
        ("1e-9999999", None),
        pytest.param("0." + "1" * 900_000, None, id="endless"),
    ],
)
def test_a_decimal_has_the_digits_of_its_type(text: str, expected: str | None) -> None:
    """As the online store has it; here as a text of a binary tensor."""
    column = Column("total", DecimalType(38, 10))
    sent = struct.pack("<I", len(text)) + text.encode()
    (value,) = from_binary(sent, "BYTES", column.name)
    if expected is None:
        with pytest.raises(WrongFieldType, match="'total' is a text, not decimal"):
            feature_value(value, column)
    else:
        assert str(feature_value(value, column)) == expected


@pytest.mark.parametrize("number", [math.inf, -math.inf])
def test_infinite_numbers_of_binary_tensors_are_refused(number: float) -> None:
    """The prediction log could not tell them from null."""
    values = from_binary(struct.pack("<2d", 1.5, number), "FP64", "amount")
    contract = RequestContract(SERVICE, ("amount",))
    with pytest.raises(WrongFieldType, match="Row 1: 'amount' is infinite") as refused:
        contract.read([KEY | {"amount": value} for value in values], is_single=False)
    assert (refused.value.status, refused.value.hint) == (422, "send a finite number, or null")


@pytest.mark.parametrize(
    "serving",
    [
        Serving(given=("amuont",)),
        Serving(fallbacks={"nothing": 1}),
        Serving(fallbacks={"amount": "much"}),
        Serving(deadline_ms=0),
    ],
)
def test_a_serving_section_that_does_not_fit_is_refused(serving: Serving) -> None:
    with pytest.raises(BadServing) as caught:
        checked_fallbacks(SERVICE, serving)
    assert caught.value.hint


def test_fallbacks_are_values_of_their_features() -> None:
    serving = Serving(fallbacks={"is_new": False, "price": 2})
    assert checked_fallbacks(SERVICE, serving) == {3: False, 1: 2}
