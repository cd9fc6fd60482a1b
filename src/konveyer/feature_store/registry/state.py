"""All definitions that hold at one time, with their references resolved and their versions."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from konveyer.core.digest import digest_value, short
from konveyer.core.errors import did_you_mean
from konveyer.feature_store.definitions.definition import Definition, Kind, kind_of, version_of
from konveyer.feature_store.definitions.entity import Entity
from konveyer.feature_store.definitions.service import FeatureService
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.definitions.view import FeatureView
from konveyer.feature_store.registry.errors import (
    DefinitionCycle,
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
        raise FeatureViewNotFound(
            f"Feature view '{name}' is not registered.",
            hint=did_you_mean(name, self.names(Kind.VIEW), otherwise="konveyer features search"),
        )

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
    definitions: Iterable[Definition], types: Mapping[str, object] | None = None
) -> RegistryState:
    """Resolve references; raises on an unknown one, a cycle, or a clash of feature names.

    `types` are the column types that each view was found to have: they belong to its version, for
    what was computed and published with other types cannot be read with these.
    """
    by_key: dict[Key, Definition] = {(kind_of(d), d.name): d for d in definitions}
    reads = {key: _checked_reads(definition, by_key) for key, definition in by_key.items()}
    versions: dict[Key, str] = {}
    for key in _in_order(reads):
        read = {f"{kind}:{name}": versions[kind, name] for kind, name in reads[key]}
        if key[0] is Kind.VIEW and types and key[1] in types:
            read["types"] = short(digest_value(types[key[1]]))
        versions[key] = version_of(by_key[key], read)
    return RegistryState(definitions=by_key, reads=reads, versions=versions)


def features_of(service: FeatureService, state: RegistryState) -> list[tuple[str, str]]:
    """The (view, feature) pairs of a service, in order."""
    pairs: list[tuple[str, str]] = []
    for reference in service.features:
        view, _, feature = reference.partition(":")
        names = state.view(view).feature_names
        pairs += [(view, name) for name in ([feature] if feature else names)]
    return pairs


def _checked_reads(definition: Definition, known: dict[Key, Definition]) -> tuple[Key, ...]:
    where = f"{kind_of(definition)} '{definition.name}'"
    reads = tuple(_reads(definition, where))
    for kind, name in reads:
        if (kind, name) not in known:
            names = [other for found, other in known if found is kind]
            raise UnknownReference(
                f"{where} refers to {kind} '{name}', which is not defined.",
                hint=did_you_mean(name, names, otherwise=f"define {kind} '{name}'"),
            )
    if isinstance(definition, FeatureService):
        _check_features(definition, known, where)
    return reads


def _reads(definition: Definition, where: str) -> Iterator[Key]:
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
        case FeatureService(features=features):
            views = dict.fromkeys(reference.partition(":")[0] for reference in features)
            yield from ((Kind.VIEW, view) for view in views)


def _check_features(service: FeatureService, known: dict[Key, Definition], where: str) -> None:
    owner: dict[str, str] = {}
    for reference in service.features:
        view, _, feature = reference.partition(":")
        definition = known[Kind.VIEW, view]
        assert isinstance(definition, FeatureView)  # noqa: S101 - the key says so
        names = definition.feature_names
        if feature and feature not in names:
            raise UnknownReference(
                f"{where} takes '{reference}', but the view has no such feature.",
                hint=did_you_mean(feature, names, otherwise=f"it has {', '.join(names)}"),
            )
        for name in [feature] if feature else names:
            if name in owner:
                raise FeatureClash(
                    f"{where} has feature '{name}' from '{owner[name]}' and from '{view}'.",
                    hint="give the feature another name in one of the views",
                )
            owner[name] = view


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
