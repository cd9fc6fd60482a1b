"""All definitions that hold at one time, with their references resolved and their versions."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from konveyer.core.digest import digest_value, short
from konveyer.core.errors import did_you_mean
from konveyer.feature_store.definitions.definition import (
    Definition,
    Kind,
    kind_of,
    to_spec,
    version_of,
)
from konveyer.feature_store.definitions.entity import Entity
from konveyer.feature_store.definitions.on_demand import OnDemandView
from konveyer.feature_store.definitions.service import FeatureService, Reference
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.definitions.view import FeatureView
from konveyer.feature_store.registry.errors import (
    DefinitionCycle,
    DuplicateDefinition,
    FeatureClash,
    FeatureServiceNotFound,
    FeatureViewNotFound,
    UnknownReference,
)
from konveyer.feature_store.registry.sql import tables_read

Key = tuple[Kind, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryState:
    """Definitions by kind and name. `reads` is what each refers to, `versions` covers that too."""

    definitions: dict[Key, Definition]
    reads: dict[Key, tuple[Key, ...]]
    versions: dict[Key, str]

    def entity(self, name: str) -> Entity:
        definition = self.definitions[Kind.ENTITY, name]
        assert isinstance(definition, Entity)  # noqa: S101 - the key says so
        return definition

    def source(self, name: str) -> Source:
        definition = self.definitions[Kind.SOURCE, name]
        assert isinstance(definition, Source)  # noqa: S101 - the key says so
        return definition

    def view(self, name: str) -> FeatureView:
        definition = self.definitions.get((Kind.VIEW, name))
        if isinstance(definition, FeatureView):
            return definition
        known = self.names(Kind.VIEW) + self.names(Kind.ON_DEMAND)
        raise FeatureViewNotFound(
            f"Feature view '{name}' is not registered.",
            hint=did_you_mean(name, known, otherwise="konveyer features search"),
        )

    def on_demand(self, name: str) -> OnDemandView:
        definition = self.definitions[Kind.ON_DEMAND, name]
        assert isinstance(definition, OnDemandView)  # noqa: S101 - the key says so
        return definition

    def provider(self, name: str) -> FeatureView | OnDemandView:
        """A feature view or an on-demand view: what a service can take features of."""
        is_on_demand = (Kind.ON_DEMAND, name) in self.definitions
        return self.on_demand(name) if is_on_demand else self.view(name)

    def service(self, name: str) -> FeatureService:
        definition = self.definitions.get((Kind.SERVICE, name))
        if isinstance(definition, FeatureService):
            return definition
        raise FeatureServiceNotFound(
            f"Feature service '{name}' is not registered.",
            hint=did_you_mean(name, self.names(Kind.SERVICE), otherwise="konveyer apply"),
        )

    def names(self, kind: Kind) -> list[str]:
        return sorted(name for found, name in self.definitions if found is kind)

    def sources_of(self, key: Key) -> list[Source]:
        """Every source that `key` reads, directly or through others; one follows what it reads."""
        ordered: dict[Key, None] = {}
        for read in self.reads[key]:
            if read[0] is Kind.SOURCE:
                ordered |= {(Kind.SOURCE, source.name): None for source in self.sources_of(read)}
                ordered[read] = None
        return [self.source(name) for _, name in ordered]

    def sources(self) -> list[Source]:
        """All sources; one follows what it reads."""
        return [self.source(name) for kind, name in _in_order(self.reads) if kind is Kind.SOURCE]


def registry_state(
    definitions: Iterable[Definition],
    types: Mapping[str, object] | None = None,
    *,
    applied: bool = False,
) -> RegistryState:
    """Resolve references; raises on an unknown one, a cycle, or a clash of feature names.

    `types` are the column types that each view was found to have: they belong to its version, for
    what was computed and published with other types cannot be read with these. Definitions that
    were `applied` are held against no rule for what services and on-demand views take: it may be
    newer than they are.
    """
    by_key: dict[Key, Definition] = {}
    for definition in definitions:
        to_spec(definition)  # refuses values of another type than their field
        by_key[kind_of(definition), definition.name] = definition
    for kind, name in by_key:
        if kind is Kind.ON_DEMAND and (Kind.VIEW, name) in by_key:
            raise DuplicateDefinition(
                f"'{name}' is a feature view and an on-demand view.", hint="rename one of them"
            )
    reads = {key: _known_reads(definition, by_key) for key, definition in by_key.items()}
    if not applied:
        for definition in by_key.values():
            _check_taken(definition, by_key)
    versions: dict[Key, str] = {}
    for key in _in_order(reads):
        read = {f"{kind}:{name}": versions[kind, name] for kind, name in reads[key]}
        if key[0] is Kind.VIEW and types and key[1] in types:
            read["types"] = short(digest_value(types[key[1]]))
        versions[key] = version_of(by_key[key], read)
    return RegistryState(definitions=by_key, reads=reads, versions=versions)


def features_of(service: FeatureService, state: RegistryState) -> dict[str, tuple[str, str]]:
    """The (view, feature) of each feature of a service, by the service's name for it, in order."""
    return {
        reference.name or feature: (reference.view, feature)
        for reference in service.references
        for feature in _taken(reference, state.provider(reference.view))
    }


def _taken(reference: Reference, view: FeatureView | OnDemandView) -> tuple[str, ...]:
    return view.feature_names if reference.feature is None else (reference.feature,)


def _known_reads(definition: Definition, known: dict[Key, Definition]) -> tuple[Key, ...]:
    where = _named(definition)
    reads = tuple(_reads(definition, where, known))
    for kind, name in reads:
        if (kind, name) not in known:
            if kind is Kind.VIEW and (Kind.ON_DEMAND, name) in known:
                raise UnknownReference(
                    f"{where} has an input of '{name}', which is an on-demand view: inputs are "
                    "features of feature views.",
                    hint=f"compute what it needs of '{name}' in its own function",
                )
            names = [other for found, other in known if found is kind]
            raise UnknownReference(
                f"{where} refers to {kind} '{name}', which is not defined.",
                hint=did_you_mean(name, names, otherwise=f"define {kind} '{name}'"),
            )
    return reads


def _named(definition: Definition) -> str:
    return f"{kind_of(definition)} '{definition.name}'"


def _reads(definition: Definition, where: str, known: dict[Key, Definition]) -> Iterator[Key]:
    match definition:
        case Entity():
            return
        case Source(sql=sql):
            if sql is not None:
                yield from ((Kind.SOURCE, table) for table in tables_read(sql, where=where))
        case FeatureView(entity=entity, source=source, sql=sql):
            yield Kind.ENTITY, entity
            if source is not None:
                yield Kind.SOURCE, source
            if sql is not None:
                yield from ((Kind.SOURCE, table) for table in tables_read(sql, where=where))
        case OnDemandView():
            views = dict.fromkeys(view for view, _ in definition.input_features)
            yield from ((Kind.VIEW, view) for view in views)
        case FeatureService():
            for view in dict.fromkeys(reference.view for reference in definition.references):
                is_on_demand = (Kind.ON_DEMAND, view) in known
                yield Kind.ON_DEMAND if is_on_demand else Kind.VIEW, view


def _check_taken(definition: Definition, known: dict[Key, Definition]) -> None:
    """The features that a service or an on-demand view takes."""
    where = _named(definition)
    if isinstance(definition, FeatureService):
        _check_features(definition, known, where)
    if isinstance(definition, OnDemandView):
        for view, feature in definition.input_features:
            _check_feature(known[Kind.VIEW, view], feature, where)


def _check_features(service: FeatureService, known: dict[Key, Definition], where: str) -> None:
    keys = _check_keys(service, known, where)
    owner: dict[str, str] = {}
    for reference in service.references:
        view = known.get((Kind.ON_DEMAND, reference.view)) or known[Kind.VIEW, reference.view]
        assert isinstance(view, FeatureView | OnDemandView)  # noqa: S101 - the key says so
        if reference.feature is not None:
            _check_feature(view, reference.feature, where)
        for feature in _taken(reference, view):
            name = reference.name or feature
            if name in keys:
                raise FeatureClash(
                    f"{where} has a feature '{name}', and a join key of that name.",
                    hint=f"rename it: '{view.name}:{feature} as other_name'",
                )
            if name in owner:
                raise FeatureClash(
                    f"{where} has feature '{name}' from '{owner[name]}' and from '{view.name}'.",
                    hint=f"rename one of them: '{view.name}:{feature} as other_name'",
                )
            owner[name] = view.name
    _check_request(service, known, where, keys, owner)


def _check_request(
    service: FeatureService,
    known: dict[Key, Definition],
    where: str,
    keys: dict[str, str],
    owner: dict[str, str],
) -> None:
    """What callers send is a column of a label frame too; `owner` has the view of each feature."""
    types = dict(keys)
    for name in dict.fromkeys(reference.view for reference in service.references):
        view = known.get((Kind.ON_DEMAND, name))
        for field in view.request if isinstance(view, OnDemandView) else ():
            if field.name in owner:
                raise FeatureClash(
                    f"{where} has feature '{field.name}' from '{owner[field.name]}', and "
                    f"'{name}' has a request field of that name.",
                    hint="rename the feature, as in 'view:feature as other_name'",
                )
            if types.setdefault(field.name, field.dtype) != field.dtype:
                raise FeatureClash(
                    f"{where}: request field '{field.name}' is {field.dtype} in '{name}', and "
                    f"{types[field.name]} as a join key or in another view.",
                    hint="give the request field another name, or the same type",
                )


def _check_keys(
    service: FeatureService, known: dict[Key, Definition], where: str
) -> dict[str, str]:
    """The join keys of all views with their types: a label frame has one column for each."""
    types: dict[str, str] = {}
    for name in _stored_views(service, known):
        view = known.get((Kind.VIEW, name))
        if not isinstance(view, FeatureView):
            continue
        entity = known.get((Kind.ENTITY, view.entity))
        for key in entity.join_keys if isinstance(entity, Entity) else ():
            if types.setdefault(key.name, key.dtype) != key.dtype:
                raise FeatureClash(
                    f"{where}: join key '{key.name}' is {types[key.name]} in one view and "
                    f"{key.dtype} in '{view.name}'.",
                    hint="give the keys of one of the entities another name",
                )
    return types


def _stored_views(service: FeatureService, known: dict[Key, Definition]) -> Iterator[str]:
    """The feature views that a service takes features of, itself or for its on-demand views."""
    for reference in service.references:
        view = known.get((Kind.ON_DEMAND, reference.view))
        if isinstance(view, OnDemandView):
            yield from (name for name, _ in view.input_features)
        else:
            yield reference.view


def _check_feature(view: Definition, feature: str, where: str) -> None:
    assert isinstance(view, FeatureView | OnDemandView)  # noqa: S101 - the caller's key says so
    names = view.feature_names
    if feature not in names:
        raise UnknownReference(
            f"{where} takes '{feature}' of view '{view.name}', which has no such feature.",
            hint=did_you_mean(feature, names, otherwise=f"it has {', '.join(names)}"),
        )


def _in_order(reads: dict[Key, tuple[Key, ...]]) -> list[Key]:
    """Each key after all that it reads."""
    ordered: dict[Key, None] = {}

    def visit(key: Key, path: tuple[Key, ...]) -> None:
        if key in path:
            circle = " -> ".join(name for _, name in (*path[path.index(key) :], key))
            raise DefinitionCycle(
                f"Sources read each other in a circle: {circle}.", hint="break it in one of them"
            )
        if key not in ordered:
            for read in reads[key]:
                visit(read, (*path, key))
            ordered[key] = None

    for key in reads:
        visit(key, ())
    return list(ordered)
