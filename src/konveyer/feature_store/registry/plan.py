"""What applying a definitions folder would change."""

from dataclasses import dataclass

from konveyer.feature_store.definitions.definition import Kind, to_spec
from konveyer.feature_store.registry.state import Key, RegistryState


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One definition that is added, changed, described in other words or removed, with its versions
    before and after.
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


def plan_apply(current: RegistryState, wanted: RegistryState) -> ApplyPlan:
    """Compare by version: a view changes when its source does."""
    order = list(Kind)
    both = {*current.versions, *wanted.versions}
    keys = sorted(both, key=lambda key: (order.index(key[0]), key[1]))
    found = (_change(key, current, wanted) for key in keys)
    return ApplyPlan(
        current=current, wanted=wanted, changes=tuple(change for change in found if change)
    )


def _change(key: Key, current: RegistryState, wanted: RegistryState) -> Change | None:
    before, after = current.versions.get(key), wanted.versions.get(key)
    if before == after:
        if to_spec(current.definitions[key]) == to_spec(wanted.definitions[key]):
            return None
        return Change(action="describe", kind=str(key[0]), name=key[1], before=before, after=after)
    action = "add" if before is None else "remove" if after is None else "change"
    return Change(action=action, kind=str(key[0]), name=key[1], before=before, after=after)
