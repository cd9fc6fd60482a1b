"""On-demand features of a training set: the same computation as at a prediction, over columns."""

from collections.abc import Mapping

import pyarrow as pa

from konveyer.core.schema import arrow_schema
from konveyer.feature_store.definitions.python_code import callable_of
from konveyer.feature_store.definitions.resolved import ResolvedOnDemand, ResolvedService
from konveyer.feature_store.kernel.on_demand import OnDemandComputation, array_of


def hidden_name(view: str, feature: str) -> str:
    """What an input is called among joined columns: no feature of a service has a colon."""
    return f"{view}:{feature}"


def hidden_inputs(service: ResolvedService, view: str) -> dict[str, str]:
    """The features of `view` that on-demand views compute from, by their hidden names."""
    return {
        hidden_name(one.view, one.feature): one.feature
        for on_demand in service.on_demand
        for one in on_demand.inputs
        if one.view == view
    }


def computed(
    service: ResolvedService, joined: Mapping[str, pa.ChunkedArray], request: pa.Table
) -> dict[str, pa.ChunkedArray]:
    """The service's on-demand features by its names for them.

    `joined` has the hidden inputs, `request` the request fields, both a value for each row.
    """
    columns: dict[str, pa.ChunkedArray] = {}
    for view in service.on_demand:
        outputs = _outputs(view, joined, request)
        columns |= {
            feature.name: outputs.column(feature.feature)
            for feature in service.features
            if feature.view == view.name
        }
    return columns


def with_service_columns(
    labels: pa.Table, joined: Mapping[str, pa.ChunkedArray], service: ResolvedService
) -> pa.Table:
    """The labels' columns and, in the order of the service, its features.

    `joined` has those of its feature views and the hidden inputs, a value for each label.
    """
    columns = {**joined, **computed(service, joined, labels)}
    table = labels
    for column in service.columns:
        table = table.append_column(column.name, columns[column.name].cast(column.dtype.arrow))
    return table.combine_chunks()


def _outputs(
    view: ResolvedOnDemand, joined: Mapping[str, pa.ChunkedArray], request: pa.Table
) -> pa.Table:
    compute = OnDemandComputation(view.name, callable_of(view.code), view.outputs)
    arguments = {field.name: array_of(request[field.name], field.dtype) for field in view.request}
    for one in view.inputs:
        column = joined[hidden_name(one.view, one.feature)]
        arguments[one.feature] = array_of(column, one.dtype)
    plain = pa.schema(
        [
            (field.name, pa.int64() if pa.types.is_timestamp(field.type) else field.type)
            for field in arrow_schema(view.outputs)
        ]
    )
    return pa.table(compute(arguments), schema=plain).cast(arrow_schema(view.outputs))
