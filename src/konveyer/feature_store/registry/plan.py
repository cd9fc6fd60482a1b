"""What applying a definitions folder would change."""

from collections.abc import Set
from dataclasses import dataclass

from konveyer.feature_store.definitions.definition import Kind, to_spec
from konveyer.feature_store.registry.state import Key, RegistryState


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One definition that is added, changed, described in other words or removed, with its versions
    before and after: the same ones where only the data of a source is kept in another form.
    """

    action: str
    kind: str
    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyPlan:
    """The changes from `current` to `wanted`, in the order of kinds and names."""

    current: RegistryState
    wanted: RegistryState
    changes: tuple[Change, ...]

    @property
    def unchanged(self) -> int:
        after = [change for change in self.changes if change.after is not None]
        return len(self.wanted.definitions) - len(after)


def plan_apply(
    current: RegistryState, wanted: RegistryState, reformed: Set[str] = frozenset()
) -> ApplyPlan:
    """Compare by version: a view changes when its source does.

    `reformed` sources are of another kind than when they were applied (`reformed_sources`).
    """
    order = list(Kind)
    both = {*current.versions, *wanted.versions}
    keys = sorted(both, key=lambda key: (order.index(key[0]), key[1]))
    found = (_change(key, current, wanted, reformed) for key in keys)
    return ApplyPlan(
        current=current, wanted=wanted, changes=tuple(change for change in found if change)
    )


def _change(
    key: Key, current: RegistryState, wanted: RegistryState, reformed: Set[str]
) -> Change | None:
    before, after = current.versions.get(key), wanted.versions.get(key)
    if before == after and not (key[0] is Kind.SOURCE and key[1] in reformed):
        if to_spec(current.definitions[key]) == to_spec(wanted.definitions[key]):
            return None
        return Change(action="describe", kind=str(key[0]), name=key[1], before=before, after=after)
    action = "add" if before is None else "remove" if after is None else "change"
    return Change(action=action, kind=str(key[0]), name=key[1], before=before, after=after)
