"""A feature service with all that a reader needs: it travels in the bundle to the serving node."""

from msgspec import Struct

from konveyer.core.schema import Column, Dtype, ScalarColumn


class ResolvedView(Struct, frozen=True, kw_only=True):
    """One version of a view as it is published online.

    `columns` are in the order of the records in `space`; `defaults` are the values of an entity
    that has no record (0 for a count and a difference of counts, otherwise None).
    """

    name: str
    version: str
    keys: tuple[ScalarColumn, ...]
    columns: tuple[Column, ...]
    defaults: tuple[int | None, ...]
    space: str
    ttl_us: int | None
    windowed: bool


class ResolvedInput(Struct, frozen=True, kw_only=True):
    """A stored feature that an on-demand view computes from; its argument has the same name."""

    view: str
    feature: str
    dtype: Dtype


class ResolvedOnDemand(Struct, frozen=True, kw_only=True):
    """One version of an on-demand view: its code, what it is given, and what it gives."""

    name: str
    version: str
    code: str
    request: tuple[ScalarColumn, ...]
    inputs: tuple[ResolvedInput, ...]
    outputs: tuple[ScalarColumn, ...]


class ResolvedFeature(Struct, frozen=True, kw_only=True):
    """One feature of the service: `feature` of `view`, which the model knows as `name`.

    The view may be an on-demand one.
    """

    name: str
    view: str
    feature: str
    dtype: Dtype

    @property
    def column(self) -> Column:
        return Column(self.name, self.dtype)


class ResolvedService(Struct, frozen=True, kw_only=True):
    """A version of a service: its features in order, and the views they come from."""

    name: str
    version: str
    views: tuple[ResolvedView, ...]
    features: tuple[ResolvedFeature, ...]
    on_demand: tuple[ResolvedOnDemand, ...] = ()

    @property
    def keys(self) -> tuple[ScalarColumn, ...]:
        """The join keys of all views, each once, in the order of first use."""
        return tuple(dict.fromkeys(key for view in self.views for key in view.keys))

    @property
    def request(self) -> tuple[ScalarColumn, ...]:
        """What callers send beside the join keys, each once, in the order of first use."""
        return tuple(dict.fromkeys(field for view in self.on_demand for field in view.request))

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(feature.column for feature in self.features)
