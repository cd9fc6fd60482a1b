"""What a gate says: passed or not, by which rule, from what it measured."""

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
