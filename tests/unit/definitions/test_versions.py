"""A version changes with the content, and with the content of what is read."""

from konveyer import Aggregation, Entity, FeatureService, FeatureView, JoinKey, Source
from konveyer.feature_store.definitions.definition import (
    Definition,
    Kind,
    from_spec,
    kind_of,
    to_spec,
)
from konveyer.feature_store.registry.state import registry_state

CLIENT = Entity(name="client", join_keys=(JoinKey("client_id", "int64"),))
SPEND = FeatureView(
    name="spend",
    entity="client",
    source="events",
    aggregations=(Aggregation(column="amount", function="sum", over="7d", minimum=0),),
)
SERVICE = FeatureService(name="scoring", features=("spend",))


def versions(source: Source) -> dict[tuple[Kind, str], str]:
    return registry_state([CLIENT, source, SPEND, SERVICE]).versions


def test_a_changed_source_changes_what_reads_it_and_nothing_else() -> None:
    first = versions(Source(name="events", path="a.parquet", event_time="at"))
    again = versions(Source(name="events", path="a.parquet", event_time="at"))
    other = versions(Source(name="events", path="b.parquet", event_time="at"))
    assert first == again
    changed = {key for key in first if first[key] != other[key]}
    assert changed == {(Kind.SOURCE, "events"), (Kind.VIEW, "spend"), (Kind.SERVICE, "scoring")}


def test_a_definition_survives_the_catalog() -> None:
    definitions: list[Definition] = [CLIENT, SPEND, SERVICE]
    for definition in definitions:
        assert from_spec(kind_of(definition), to_spec(definition)) == definition
