"""Finding features by what they mean."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from konveyer.feature_store.definitions.definition import Kind
from konveyer.feature_store.definitions.on_demand import OnDemandView
from konveyer.feature_store.definitions.view import FeatureView
from konveyer.feature_store.registry.lookup import active_state, compiled_view
from konveyer.feature_store.registry.state import RegistryState
from konveyer.feature_store.registry.usage import popularity

# A word in a name says more than one in a description, and that more than one in the view's.
_NAME, _DESCRIPTION, _VIEW = 4, 2, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFeature:
    """A feature with what tells it apart; `uses` counts training sets and releases.

    `formula` says how a windowed feature is computed; the others come from their view's SQL or
    function. An on-demand feature has no entity of its own.
    """

    view: str
    feature: str
    entity: str
    dtype: str
    description: str
    unit: str
    formula: str
    sensitivity: str
    owner: str
    tags: tuple[str, ...]
    uses: int


def search_features(session: Session, text: str = "") -> list[FoundFeature]:
    """Features that match every word of `text`, the best first; all of them for no words."""
    state = active_state(session)
    uses = popularity(session)
    words = text.lower().split()
    ranked: list[tuple[int, FoundFeature]] = []
    for name in state.names(Kind.VIEW) + state.names(Kind.ON_DEMAND):
        view = state.provider(name)
        for found in _features(session, state, view, uses):
            score = _score(words, found, view)
            if score is not None:
                ranked.append((score, found))
    ranked.sort(key=lambda pair: (-pair[0], -pair[1].uses, pair[1].view, pair[1].feature))
    return [found for _, found in ranked]


def _features(
    session: Session,
    state: RegistryState,
    view: FeatureView | OnDemandView,
    uses: dict[tuple[str, str], int],
) -> Iterable[FoundFeature]:
    if isinstance(view, OnDemandView):
        entity, columns = "", tuple(feature.column for feature in view.features)
    else:
        entity = view.entity
        columns = compiled_view(session, view.name, state.versions[Kind.VIEW, view.name]).columns
    types = {column.name: column.dtype for column in columns}
    for feature in view.each_feature:
        yield FoundFeature(
            view=view.name,
            feature=feature.name,
            entity=entity,
            dtype=str(types[feature.name]),
            description=feature.description,
            unit=feature.unit,
            formula=feature.formula,
            sensitivity=feature.sensitivity,
            owner=feature.owner or view.owner,
            tags=(*view.tags, *feature.tags),
            uses=uses.get((view.name, feature.name), 0),
        )


def _score(words: list[str], found: FoundFeature, view: FeatureView | OnDemandView) -> int | None:
    """None when a word is nowhere."""
    fields = (
        (found.feature.lower(), _NAME),
        (found.description.lower(), _DESCRIPTION),
        (f"{view.name} {view.description} {found.owner} {' '.join(found.tags)}".lower(), _VIEW),
    )
    total = 0
    for word in words:
        weight = sum(weight for text, weight in fields if word in text)
        if not weight:
            return None
        total += weight
    return total
