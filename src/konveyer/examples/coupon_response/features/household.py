"""The entity that every view of this example describes."""

from konveyer import Entity, JoinKey

household = Entity(
    name="household",
    join_keys=(JoinKey("household_id", "int64"),),
    description="A household that holds the retailer's loyalty card.",
    owner="retail-data",
)
