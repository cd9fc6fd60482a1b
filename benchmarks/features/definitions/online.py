"""Three views of a client, of any age: what is read online."""

from konveyer import Entity, Feature, FeatureService, FeatureView, JoinKey, Source

VIEWS = ("accounts", "cards", "loans")


def source(view: str) -> Source:
    return Source(name=f"{view}_rows", path=f"data/{view}.parquet", event_time="event_time")


def view_of(view: str) -> FeatureView:
    return FeatureView(
        name=view,
        entity="client",
        sql=f"SELECT * FROM {view}_rows",
        features=(
            Feature(name=f"{view}_balance", dtype="float64"),
            Feature(name=f"{view}_limit", dtype="float64"),
            Feature(name=f"{view}_score", dtype="float64"),
            Feature(name=f"{view}_visits", dtype="int64"),
            Feature(name=f"{view}_city", dtype="string"),
        ),
        accuracy="exact",
    )


client = Entity(name="client", join_keys=(JoinKey("client_id", "int64"),))
accounts_rows, cards_rows, loans_rows = (source(view) for view in VIEWS)
accounts, cards, loans = (view_of(view) for view in VIEWS)
scoring = FeatureService(name="scoring", features=VIEWS)
