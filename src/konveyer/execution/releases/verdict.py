"""What a gate says: passed or not, by which rule, from what it measured."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`rule`, `measured` and `limit` are for people; `evidence` holds all that was seen.

    `needless`: there was nothing to judge, as `measured` says, and the stage is not required.
    """

    passed: bool
    rule: str
    measured: str
    limit: str
    evidence: dict[str, Any] = field(default_factory=dict)
    needless: bool = False


def as_json(value: Any) -> Any:
    """Evidence as JSON can hold it: a number that is not finite becomes a text.

    >>> as_json({"worst": float("inf"), "rows": [1, (2.5, None)]})
    {'worst': 'inf', 'rows': [1, [2.5, None]]}
    """
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case dict():
            return {str(name): as_json(one) for name, one in value.items()}
        case list() | tuple():
            return [as_json(one) for one in value]
        case _:
            return value
