"""Feature definitions: every Entity, Source, FeatureView and FeatureService named here.

A start, once data/payments.parquet holds client_id, paid_at and amount:

    client = Entity(name="client", join_keys=(JoinKey("client_id", "int64"),))
    payments = Source(name="payments", path="data/payments.parquet", event_time="paid_at")
    spend = FeatureView(
        name="spend",
        entity="client",
        source="payments",
        aggregations=(Aggregation(column="amount", function="sum", over="30d"),),
    )
    my_service = FeatureService(name="my_service", features=("spend",))

Then: konveyer apply --dry-run
"""

from konveyer import Aggregation, Entity, FeatureService, FeatureView, JoinKey, Source

__all__ = ["Aggregation", "Entity", "FeatureService", "FeatureView", "JoinKey", "Source"]
