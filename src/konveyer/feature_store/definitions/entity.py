"""Entity: whom or what features describe."""

from dataclasses import dataclass
from typing import Literal, get_args

from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.feature_store.definitions.errors import BadDefinition
from konveyer.feature_store.definitions.fields import check_fields
from konveyer.feature_store.definitions.names import check_column, check_name, check_unique

KeyType = Literal["int64", "string", "uuid"]


@dataclass(frozen=True, slots=True)
class JoinKey:
    """A column that identifies an entity, with its type: whole numbers, text or UUIDs."""

    name: str
    dtype: KeyType

    def __post_init__(self) -> None:
        check_fields("Join key", self)
        check_column("Join key", self.name)
        if self.dtype not in get_args(KeyType):
            raise BadDefinition(
                f"Join key '{self.name}' has type '{self.dtype}'.",
                hint=f"use one of {', '.join(get_args(KeyType))}",
            )

    @property
    def column(self) -> ScalarColumn:
        return ScalarColumn(self.name, ColumnType(self.dtype))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """Whom or what features describe, and the columns that identify one.

    >>> Entity(name="household", join_keys=(JoinKey("household_id", "int64"),)).name
    'household'
    """

    name: str
    join_keys: tuple[JoinKey, ...]
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields("Entity", self)
        check_name("Entity", self.name)
        if not self.join_keys:
            raise BadDefinition(f"Entity '{self.name}' has no join key.", hint="add a JoinKey")
        check_unique(f"Entity '{self.name}'", [key.name for key in self.join_keys])
