"""How far a view has come in its run, in the record of runs: who waits may be another process."""

import time

from konveyer.catalog.session import Catalog
from konveyer.feature_store.etl import runs

_NOTED_EVERY_S = 0.5


class NotedStages:
    """A `Progress` of one view in one run. Writes a few times a second at most."""

    def __init__(self, catalog: Catalog, run_id: str, view: str, version: str) -> None:
        self._catalog, self._key = catalog, (run_id, view, version)
        self._noted_s = time.monotonic()

    def __call__(self, stage: str, done: int, of: int) -> None:
        now_s = time.monotonic()
        if now_s - self._noted_s < _NOTED_EVERY_S:
            return
        self._noted_s = now_s
        with self._catalog.transaction() as session:
            runs.note_stage(session, *self._key, runs.Stage(name=stage, done=done, of=of))
