"""PushedColumn: a column of a source whose rows are sent to it, and what it accepts."""

from dataclasses import dataclass, field

from konveyer.core.schema import Column, parse_dtype
from konveyer.feature_store.definitions.errors import BadDefinition
from konveyer.feature_store.definitions.fields import check_fields
from konveyer.feature_store.definitions.meaning import Meaning
from konveyer.feature_store.definitions.types import value_type

# Every pushed row has it: the moment of its arrival.
ARRIVAL = "created_time"


@dataclass(frozen=True, slots=True)
class PushedColumn(Meaning):
    """One column of the rows that are pushed to a source; a row that does not fit is refused.

    `dtype` is one of those that a `Feature` can have.

    >>> PushedColumn("amount", "float64", minimum=0).column.dtype.value
    'float64'
    """

    name: str
    dtype: str
    nullable: bool = field(default=True, kw_only=True)
    one_of: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        check_fields("Pushed column", self)
        where = f"Pushed column '{self.name}'"
        self.check_meaning(self.name)
        if not self.name or self.name.lower() == ARRIVAL:
            raise BadDefinition(
                f"{where} cannot be used: every pushed row has a column {ARRIVAL} of its own.",
                hint="leave it out: it is the moment of arrival; or choose another name",
            )
        object.__setattr__(self, "dtype", str(value_type(self.dtype, where=where)))
        if (self.minimum, self.maximum) != (None, None) and not self.column.dtype.is_number:
            raise BadDefinition(
                f"{where} is {self.dtype} and has a minimum or a maximum.",
                hint="only numbers have limits",
            )
        if self.one_of and self.dtype != "string":
            raise BadDefinition(
                f"{where} is {self.dtype} and lists values.", hint="only string has `one_of`"
            )

    @property
    def column(self) -> Column:
        return Column(self.name, parse_dtype(self.dtype))
