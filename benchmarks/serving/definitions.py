"""Three views of a client, read online for each prediction."""

from konveyer import Entity, Feature, FeatureService, FeatureView, JoinKey, Source

NUMBERS = {
    "profile": tuple(f"profile_{place}" for place in range(8)),
    "accounts": tuple(f"account_{place}" for place in range(6)),
    "cards": tuple(f"card_{place}" for place in range(6)),
}
TEXTS = {"profile": "segment", "accounts": "city", "cards": "scheme"}


def source(view: str) -> Source:
    return Source(name=f"{view}_rows", path=f"data/{view}.parquet", event_time="event_time")


def view_of(view: str) -> FeatureView:
    return FeatureView(
        name=view,
        entity="client",
        sql=f"SELECT * FROM {view}_rows",
        features=(
            *(Feature(name=name, dtype="float64") for name in NUMBERS[view]),
            Feature(name=TEXTS[view], dtype="string"),
        ),
        accuracy="exact",
    )


client = Entity(name="client", join_keys=(JoinKey("client_id", "int64"),))
profile_rows, accounts_rows, cards_rows = (source(view) for view in NUMBERS)
profile, accounts, cards = (view_of(view) for view in NUMBERS)
scoring = FeatureService(name="scoring", features=tuple(NUMBERS))
