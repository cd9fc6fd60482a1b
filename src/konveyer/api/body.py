"""What requests have in common."""

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, ConfigDict

# How many of a list are answered.
Limit = Annotated[int, Query(ge=1, le=1_000_000)]


class Body(BaseModel):
    """A field that it does not know is a mistake of the caller: it might have been a reason."""

    model_config = ConfigDict(extra="forbid")
