"""Where a run happens: in the worker that serves the workspace, or here when there is none."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus

from konveyer.catalog.leases import holder_of, lease, refuse_if_held
from konveyer.catalog.session import Catalog
from konveyer.core.errors import KonveyerError
from konveyer.pipeline.flow import Flow, FlowFailed, Json, Run

LEASE = "worker"
SERVING = "konveyer worker"
INTERRUPTED = 130


class WorkerMissing(KonveyerError):
    """A process that leaves runs to a worker was asked for one, and there is none."""

    code, status = "worker_missing", HTTPStatus.SERVICE_UNAVAILABLE


def is_served(catalog: Catalog) -> bool:
    """Whether a worker (`konveyer up`) takes runs."""
    with catalog.reading() as session:
        holder = holder_of(session, LEASE)
    return holder is not None and holder.purpose == SERVING


def refuse_if_busy(catalog: Catalog, *, may_run_here: bool = True) -> None:
    """Raise what `run_flow` would raise now: `LeaseHeld` or `WorkerMissing`."""
    if not is_served(catalog):
        if not may_run_here:
            raise WorkerMissing(
                "No worker takes runs now.",
                hint="send it again in a few seconds; 'konveyer up' and 'konveyer worker' have one",
            )
        with catalog.reading() as session:
            refuse_if_held(session, LEASE)


def run_flow(
    catalog: Catalog,
    url: str,
    flows: Sequence[Flow],
    run: Run,
    *,
    lost: Callable[[], Sequence[Run]],
    leaving: Callable[[], None],
    purpose: str,
    may_run_here: bool = True,
) -> Json:
    """Run a flow to its end and give its result, raising the error that it ended with.

    A serving worker gets the run. Without one this process takes the workspace's lease, first
    finishes what a killed worker left and starts what was `lost` before it began, then runs it;
    while another command holds the lease, `LeaseHeld` is raised and nothing happens. A process
    that may not run it here raises `WorkerMissing` then. `leaving` is called on Ctrl-C, which ends
    the process.
    """
    from konveyer.pipeline import worker

    if is_served(catalog):
        return worker.run_elsewhere(url, run, is_served=lambda: is_served(catalog))
    refuse_if_busy(catalog, may_run_here=may_run_here)
    with lease(catalog, LEASE, purpose=purpose), worker.started_worker(url, flows) as here:
        try:
            here.finish_leftovers()
            for other in lost():
                if other.id != run.id:
                    with suppress(FlowFailed):  # on its own record
                        here.run(other)
            return here.run(run)
        except KeyboardInterrupt:
            # Steps run in threads that nobody can interrupt. Ending at once is what a kill does,
            # and that is safe: the step under way is run again.
            leaving()
            sys.stderr.write(
                "\nInterrupted. The next command that runs something goes on with it.\n"
            )
            sys.stderr.flush()
            os._exit(INTERRUPTED)
