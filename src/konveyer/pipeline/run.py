"""Where a run happens: in the worker that serves the workspace, or here when there is none."""

from collections.abc import Sequence

from konveyer.catalog.leases import holder_of, lease
from konveyer.catalog.session import Catalog
from konveyer.pipeline.flow import Flow, Json, Payload

LEASE = "worker"
SERVING = "konveyer worker"


def run_flow(
    catalog: Catalog,
    url: str,
    flows: Sequence[Flow],
    *,
    flow: str,
    run_id: str,
    payload: Payload,
    purpose: str,
) -> Json:
    """Run a flow to its end and give its result, raising the error that it ended with.

    A serving worker (`konveyer up`) gets the run. Without one this process takes the workspace's
    lease, first finishes what a killed worker left, then runs it; while another command holds the
    lease, `LeaseHeld` is raised and nothing happens.
    """
    from konveyer.pipeline import worker

    with catalog.reading() as session:
        holder = holder_of(session, LEASE)
    if holder is not None and holder.purpose == SERVING:
        return worker.run_elsewhere(url, flow, run_id, payload)
    with lease(catalog, LEASE, purpose=purpose), worker.started_worker(url, flows) as here:
        here.finish_leftovers()
        return here.run(flow, run_id, payload)
