"""Who the household is: known for 801 of the 2,469."""

from konveyer import Feature, FeatureView, Source

demographics_survey = Source(
    name="demographics_survey",
    path="data/demographics.parquet",
    description="A survey answered by some households before 2017.",
    owner="retail-data",
)

demographics = FeatureView(
    name="demographics",
    entity="household",
    sql="""
        SELECT household_id, TIMESTAMP '2016-12-31' AS event_time,
               age, income, household_size, kids_count, home_ownership
        FROM demographics_survey
    """,
    features=(
        Feature(
            name="age",
            dtype="string",
            description="Age band of the head of the household.",
            one_of=("19-24", "25-34", "35-44", "45-54", "55-64", "65+"),
        ),
        Feature(name="income", dtype="string", description="Yearly income band.", unit="USD"),
        Feature(name="household_size", dtype="string", description="People in the household."),
        Feature(name="kids_count", dtype="string", description="Children in the household."),
        Feature(name="home_ownership", dtype="string", description="Whether they own their home."),
    ),
    description="Who the household is; absent for most.",
    owner="retail-data",
    tags=("demographics",),
)
