"""The process that answers predictions stays free of SQL and of heavy libraries."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import Shop, node


@pytest.mark.parametrize(
    ("workspace", "driver", "other"),
    [
        ("released_shop", "lmdb", "redis"),
        pytest.param("redis_shop", "redis", "lmdb", marks=pytest.mark.slow),
    ],
)
def test_a_node_never_loads_sql_or_frames(
    workspace: str, driver: str, other: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Looks at the modules of a process that predicts and logs with the node's own code."""
    root = str(request.getfixturevalue(workspace).root)
    code = f"""
import asyncio
import sys
from pathlib import Path
from konveyer.core.settings import load_settings
from konveyer.execution.serving import gateway, node_process, router
from konveyer.execution.serving.contract import AskedRow
from konveyer.execution.serving.prediction_log import Prediction, PredictionLog
from konveyer.execution.serving.rates import SharedRates
from konveyer.wiring import open_bundle_store, open_online_store, open_storage
settings = load_settings(Path({root!r}))
online = open_online_store(settings)
r = router.Router("prod", storage=open_storage(settings), bundles=open_bundle_store(settings),
                  online=online, clock=settings.clock,
                  rates=SharedRates(Path({str(tmp_path)!r}) / "rates"))
r.refresh()
live = r.find("coupon-response", 1).live.loaded
rows = asyncio.run(live.reader.rows([AskedRow((1,), ())])).rows
((answer,),) = asyncio.run(live.lane.predict(rows))
assert 0 < answer < 1
log = PredictionLog(Path({str(tmp_path)!r}))
log.add(Prediction("r", 0, "prod", "a", 1, "sha256:0", "r-1", "live", "bank", 200, None, (1,), (),
                   (), (), rows[0], (answer,), answer, 1))
log.close()
r.close()
online.close()
print("\\n".join(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    heavy = {"sqlalchemy", "pandas", "polars", "mlflow", "pyspark", "lightgbm", "duckdb", "dbos"}
    assert loaded & heavy == set()
    assert driver in loaded
    assert other not in loaded
    assert list(tmp_path.glob("*.jsonl"))


def test_a_node_listens_on_loopback_only(released_shop: Shop) -> None:
    command = released_shop.command("serve", "test", "--port", "0")
    with node(command, released_shop.root, "test") as (url, _):
        assert url.startswith("http://127.0.0.1:")
