"""What a `model.toml` may not ask for."""

from pathlib import Path

import msgspec
import pytest

from konveyer.access.actor import Actor
from konveyer.access.roles import Role
from konveyer.bundle.manifest import TRAINING
from konveyer.bundle.store import BundleStore
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.development.package import pack_run
from konveyer.development.project import BadProject, load_project
from konveyer.development.tracking import Tracking
from konveyer.development.training import CODE, TrainingRun, Workshop, train
from konveyer.feature_store.datamart.manifest import TrainingSet, TrainingSetManifest
from konveyer.feature_store.definitions.resolved import ResolvedOnDemand, ResolvedService

ANA = Actor("ana", frozenset({Role.DATA_SCIENTIST}))
MODEL = """
[model]
application = "scoring"
api_version = 1
service = "payments"

[labels]
timestamp = "at"
label = "fraud"

[split]
out_of_time = "2026-01-01"

[objective]
rate_per_s = 10
p99_ms = 50

[batch]
every = "1d"
"""


def test_a_batch_cannot_score_entities_that_callers_describe(tmp_path: Path) -> None:
    """Neither is such a model trained, nor one submitted that was trained before."""
    view = ResolvedOnDemand(
        name="payment",
        version="1",
        code="",
        request=(ScalarColumn("amount", ColumnType.FLOAT64),),
        inputs=(),
        outputs=(),
    )
    service = ResolvedService(
        name="payments", version="1", views=(), features=(), on_demand=(view,)
    )
    manifest = TrainingSetManifest(
        id="set-1",
        service=service,
        tables=(),
        keys=(),
        columns={},
        timestamp="at",
        label="fraud",
        rows=0,
        labels_digest="",
        result_digest="",
        built_by="ana",
        built_us=0,
    )
    code = tmp_path / CODE
    code.mkdir()
    for name, content in (("model.toml", MODEL), ("model.py", ""), ("requirements.lock", "")):
        (code / name).write_text(content)
    (tmp_path / TRAINING).write_bytes(msgspec.json.encode(manifest))
    training_set = TrainingSet(manifest=manifest, path=tmp_path, held=None)
    shop = Workshop(
        root=tmp_path,
        environments=tmp_path,
        runs=tmp_path / "runs",
        tracking=Tracking(url="", artifacts=""),
    )
    run = TrainingRun(
        run_id="run",
        application="scoring",
        training_set="set-1",
        person="ana",
        finished_us=0,
        parameters={},
        metrics={},
        categories={},
    )
    with pytest.raises(BadProject, match=r"\[batch\] .* amount") as refused:
        train(load_project(code), training_set, ANA, shop)
    assert refused.value.hint
    with pytest.raises(BadProject, match=r"\[batch\] .* amount"):
        pack_run(run, tmp_path, "ana", BundleStore(tmp_path / "bundles"), tmp_path)
