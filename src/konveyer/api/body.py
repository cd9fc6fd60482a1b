"""What the bodies of requests have in common."""

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """A field that it does not know is a mistake of the caller: it might have been a reason."""

    model_config = ConfigDict(extra="forbid")
