"""What a node serves: verified bundles, swapped whole; a damaged one is refused."""

import hashlib
from pathlib import Path
from typing import Any

import lightgbm as lgb
import msgspec
import numpy as np
import pytest

from konveyer.bundle.compiled import compiled_model
from konveyer.bundle.errors import BundleCorrupt, BundleNotFound, ModelUnusable
from konveyer.bundle.lightgbm import LightGBMScorer
from konveyer.bundle.manifest import ISOLATED, MODEL, PREPARATION, ModelSpec
from konveyer.bundle.native.preparation import Preparation
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.core.clock import FeatureClock, now_us
from konveyer.core.schema import Column, ColumnType, ScalarColumn
from konveyer.core.storage import FolderStorage
from konveyer.execution.serving.desired import (
    ApiKey,
    Desired,
    DesiredVersion,
    desired_name,
    read_desired,
    write_desired,
)
from konveyer.execution.serving.errors import (
    ApplicationNotFound,
    KeyUnknown,
    ModelUnavailable,
    VersionNotFound,
)
from konveyer.execution.serving.inference import INFER, Asked, endpoint_of
from konveyer.execution.serving.rates import SharedRates, TooManyKeys
from konveyer.execution.serving.router import Router
from konveyer.feature_store.definitions.resolved import (
    ResolvedFeature,
    ResolvedService,
    ResolvedView,
)
from konveyer.feature_store.online.base import OnlineStore
from konveyer.feature_store.online.memory import MemoryOnlineStore
from tests.manifests import manifest_with
from tests.support import wait_for

KEY = ScalarColumn("client_id", ColumnType.INT64)
COLUMNS = (Column("amount", ColumnType.FLOAT64), Column("city", ColumnType.STRING))
VIEW = ResolvedView(
    name="spend",
    version="1",
    keys=(KEY,),
    columns=COLUMNS,
    defaults=(None, None),
    space="spend.1",
    ttl_us=None,
    windowed=True,
)
SERVICE = ResolvedService(
    name="scoring",
    version="1",
    views=(VIEW,),
    features=tuple(
        ResolvedFeature(name=column.name, view="spend", feature=column.name, dtype=column.dtype)
        for column in COLUMNS
    ),
)

LATEST = Asked("scoring", None, INFER)
CATEGORIES: dict[str, tuple[str, ...]] = {"city": ("Oslo", "Rome")}


def booster(seed: int) -> lgb.Booster:
    rng = np.random.default_rng(seed)
    rows = np.column_stack([rng.normal(size=500), rng.integers(0, 2, 500)]).astype(float)
    rows[::7] = np.nan
    labels = (np.nan_to_num(rows[:, 0]) + np.nan_to_num(rows[:, 1]) > 0.5).astype(int)
    data = lgb.Dataset(rows, labels, categorical_feature=[1])
    parameters = {"objective": "binary", "verbosity": -1, "min_data_in_leaf": 5, "seed": seed}
    return lgb.train(parameters, data, num_boost_round=20)


def three_classes(seed: int) -> lgb.Booster:
    rng = np.random.default_rng(seed)
    rows = np.column_stack([rng.normal(size=500), rng.integers(0, 2, 500)]).astype(float)
    data = lgb.Dataset(rows, np.digitize(rows[:, 0], [-0.5, 0.5]), categorical_feature=[1])
    parameters = {"objective": "multiclass", "num_class": 3, "verbosity": -1, "seed": seed}
    return lgb.train(parameters, data, num_boost_round=5)


def packed(bundles: BundleStore, seed: int, spec: ModelSpec | None = None) -> Bundle:
    manifest = manifest_with(
        created_us=seed,
        service=SERVICE,
        categories=CATEGORIES,
        model=spec or ModelSpec(),
    )

    def write(folder: Path) -> None:
        (folder / MODEL).parent.mkdir()
        model = booster(seed) if len(manifest.model.outputs) == 1 else three_classes(seed)
        model.save_model(str(folder / MODEL))

    return bundles.pack(manifest, write)


@pytest.fixture
def bundles(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "bundles")


def made_router(
    root: Path, bundles: BundleStore, online: OnlineStore | None = None, **more: Any
) -> Router:
    return Router(
        "prod",
        storage=FolderStorage(root),
        bundles=bundles,
        online=online or MemoryOnlineStore(),
        clock=FeatureClock(0),
        rates=SharedRates(root / "rates"),
        **more,
    )


@pytest.fixture
def router(tmp_path: Path, bundles: BundleStore) -> Router:
    return made_router(tmp_path, bundles)


def desire(root: Path, *digests: str, since_us: int = 0) -> None:
    versions = tuple(
        DesiredVersion(
            application="scoring",
            api_version=place + 1,
            digest=digest,
            release="r",
            since_us=since_us,
        )
        for place, digest in enumerate(digests)
    )
    write_desired(FolderStorage(root), Desired(environment="prod", versions=versions))


def desire_only_the_last(root: Path) -> None:
    storage = FolderStorage(root)
    desired = read_desired(storage, "prod")
    write_desired(storage, msgspec.structs.replace(desired, versions=desired.versions[-1:]))


def test_a_node_waits_for_models_that_start_but_not_for_ever(
    bundles: BundleStore, tmp_path: Path
) -> None:
    isolated = packed(bundles, 1, ModelSpec(form=ISOLATED, reason="a test"))
    desire(tmp_path, isolated.digest, packed(bundles, 2).digest)
    patient, hasty = (
        made_router(tmp_path, bundles, families=tmp_path, models_within_s=within_s)
        for within_s in (60.0, 0.0)
    )
    for router in (patient, hasty):
        assert router.refresh()
        assert [one.api_version for one in router.report.serving] == [2]
        assert [(one.api_version, one.is_preparing) for one in router.report.refused] == [(1, True)]
    assert patient.report.is_starting
    assert not hasty.report.is_starting


def test_a_node_waits_for_a_bundle_that_is_damaged(bundles: BundleStore, tmp_path: Path) -> None:
    bundle = packed(bundles, 1)
    content = (bundle.path / MODEL).read_bytes()
    (bundle.path / MODEL).write_bytes(content[:-1])
    desire(tmp_path, bundle.digest)
    router = made_router(tmp_path, bundles)
    router.refresh()
    assert router.report.is_starting
    assert not router.report.refused[0].is_preparing
    (bundle.path / MODEL).write_bytes(content)
    wait_for(router.refresh)
    assert not router.report.is_starting


def test_a_node_waits_for_a_document_that_is_damaged(bundles: BundleStore, tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    storage.write(desired_name("prod"), b"{")
    router = made_router(tmp_path, bundles, models_within_s=0.0)
    with pytest.raises(msgspec.DecodeError):
        router.refresh()
    assert router.report.is_starting
    with pytest.raises(ModelUnavailable):
        router.find("scoring", 1)
    with pytest.raises(ModelUnavailable):
        router.keys.caller({b"x-api-key": b"perhaps a good one"}, "scoring")
    desire(tmp_path, packed(bundles, 1).digest)
    router.refresh()
    with pytest.raises(KeyUnknown):
        router.keys.caller({b"x-api-key": b"not a good one"}, "scoring")
    assert not router.report.is_starting


def test_a_document_that_is_gone_changes_nothing(
    router: Router, bundles: BundleStore, tmp_path: Path
) -> None:
    first = packed(bundles, 1)
    desire(tmp_path, first.digest)
    router.refresh()
    FolderStorage(tmp_path).remove(desired_name("prod"))
    assert not router.refresh()
    assert router.find("scoring", 1).live.digest == first.digest


def test_a_node_follows_its_document(router: Router, bundles: BundleStore, tmp_path: Path) -> None:
    router.refresh()
    with pytest.raises(ApplicationNotFound, match="scoring"):
        router.find("scoring", 1)
    first, second = packed(bundles, 1), packed(bundles, 2)
    desire(tmp_path, first.digest)
    assert router.refresh()
    assert not router.refresh()
    assert router.find("scoring", 1).live.digest == first.digest
    with pytest.raises(VersionNotFound) as caught:
        router.find("scoring", 2)
    assert caught.value.hint == "it has v1"
    desire(tmp_path, second.digest)
    assert router.refresh()
    assert router.find("scoring", 1).live.digest == second.digest
    desire(tmp_path)
    assert router.refresh()
    assert router.endpoints == []


@pytest.mark.parametrize("damage", ["changed", "gone", "manifest", "unknown", "added"])
def test_a_damaged_bundle_is_refused_and_the_old_one_keeps_serving(
    router: Router, bundles: BundleStore, tmp_path: Path, damage: str
) -> None:
    first, second = packed(bundles, 1), packed(bundles, 2)
    desire(tmp_path, first.digest)
    router.refresh()
    digest = second.digest
    match damage:
        case "changed":
            (second.path / MODEL).write_bytes((second.path / MODEL).read_bytes() + b"\n")
        case "gone":
            (second.path / MODEL).unlink()
        case "manifest":
            (second.path / "manifest.json").write_bytes(b"{}")
        case "unknown":
            digest = "sha256:" + "0" * 64
        case "added":
            (second.path / "more.py").symlink_to(second.path / MODEL)
    with pytest.raises((BundleCorrupt, BundleNotFound)):
        bundles.open(digest)
    desire(tmp_path, digest)
    router.refresh()
    assert router.find("scoring", 1).live.digest == first.digest
    assert "scoring/v1" in router.refused
    desire(tmp_path, first.digest)
    router.refresh()
    assert router.refused == {}


def test_a_bundle_that_makes_no_sense_keeps_no_other_back(
    router: Router, bundles: BundleStore, tmp_path: Path
) -> None:
    good = packed(bundles, 1)

    def write(folder: Path) -> None:
        (folder / MODEL).parent.mkdir()
        booster(1).save_model(str(folder / MODEL))
        (folder / PREPARATION).write_text("null")

    odd = bundles.pack(msgspec.structs.replace(good.manifest, files={}, created_us=2), write)
    desire(tmp_path, odd.digest, good.digest)
    router.refresh()
    assert router.refused["scoring/v1"].startswith("TypeError: ")
    assert router.find("scoring", 2).live.digest == good.digest


def test_no_version_means_the_highest_also_on_a_node_that_refuses_it(
    router: Router, bundles: BundleStore, tmp_path: Path
) -> None:
    first, second = packed(bundles, 1), packed(bundles, 2)
    (second.path / MODEL).write_bytes(b"")
    desire(tmp_path, first.digest, second.digest)
    router.refresh()
    with pytest.raises(ModelUnavailable, match="'scoring' v2 cannot be served yet"):
        endpoint_of(router, LATEST)
    desire(tmp_path, first.digest, second.digest, since_us=now_us())
    router.refresh()
    assert endpoint_of(router, LATEST).live.digest == first.digest, "its release is under way"
    desire_only_the_last(tmp_path)
    router.refresh()
    with pytest.raises(ModelUnavailable, match="'scoring' v2 cannot be served yet"):
        endpoint_of(router, LATEST)


def test_no_version_does_not_mean_one_that_is_prepared_while_another_answers(
    bundles: BundleStore, tmp_path: Path
) -> None:
    first = packed(bundles, 1)
    isolated = packed(bundles, 2, ModelSpec(form=ISOLATED, reason="a test"))
    router = made_router(tmp_path, bundles, families=tmp_path)
    desire(tmp_path, first.digest, isolated.digest)
    router.refresh()
    assert endpoint_of(router, LATEST).live.digest == first.digest
    desire_only_the_last(tmp_path)
    router.refresh()
    with pytest.raises(ModelUnavailable, match="'scoring' v2 cannot be served yet"):
        endpoint_of(router, LATEST)


def test_what_should_be_served_and_is_not_there_yet_is_unavailable(
    router: Router, bundles: BundleStore, tmp_path: Path
) -> None:
    bundle = packed(bundles, 1)
    (bundle.path / MODEL).write_bytes(b"")
    desire(tmp_path, bundle.digest)
    router.refresh()
    with pytest.raises(ModelUnavailable, match="cannot be served yet: model"):
        router.find("scoring", 1)
    with pytest.raises(ApplicationNotFound):
        router.find("scorin", 1)


def test_packing_the_same_twice_gives_one_bundle(bundles: BundleStore, tmp_path: Path) -> None:
    assert packed(bundles, 1).digest == packed(bundles, 1).digest
    assert len(list((tmp_path / "bundles").iterdir())) == 1


def test_a_pack_that_fails_leaves_nothing(bundles: BundleStore, tmp_path: Path) -> None:
    def fails(_folder: Path) -> None:
        raise OSError("disk full")

    good = packed(bundles, 1)
    with pytest.raises(OSError, match="disk full"):
        bundles.pack(good.manifest, fails)
    assert len(list((tmp_path / "bundles").iterdir())) == 1


def test_the_compiled_model_is_the_native_one(bundles: BundleStore) -> None:
    model, native = compiled_model(packed(bundles, 3)), booster(3)
    preparation = Preparation(["amount", "city"], CATEGORIES)
    rows: list[list[Any]] = [
        [0.1, "Oslo"],
        [None, "Rome"],
        [1e308, "Paris"],
        [-1e308, None],
        [float("inf"), "Oslo"],
        [None, None],
    ]
    expected = [(score,) for score in np.asarray(native.predict(preparation.matrix(rows)))]
    assert model.predict(rows) == expected
    assert [model.predict([row])[0] for row in rows] == expected


def test_threads_share_a_model(bundles: BundleStore) -> None:
    from concurrent.futures import ThreadPoolExecutor

    model = LightGBMScorer(packed(bundles, 3).path / MODEL, 2)
    rows = np.random.default_rng(0).normal(size=(400, 2))
    expected = model.score(rows)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: model.score(rows[n : n + 1])[0], range(len(rows))))
    assert np.array_equal(found, expected)


def test_a_file_that_is_no_model_or_another_model_is_refused(
    bundles: BundleStore, tmp_path: Path
) -> None:
    (tmp_path / "nonsense.txt").write_text("nonsense")
    with pytest.raises(ModelUnusable):
        LightGBMScorer(tmp_path / "nonsense.txt", 2)
    with pytest.raises(ModelUnusable, match="reads 2 features"):
        LightGBMScorer(packed(bundles, 1).path / MODEL, 3)


CLASSES = ModelSpec(
    outputs=tuple(ScalarColumn(name, ColumnType.FLOAT64) for name in ("low", "middle", "high"))
)


def test_a_model_of_several_outputs_gives_each(bundles: BundleStore) -> None:
    model = compiled_model(packed(bundles, 3, CLASSES))
    rows: list[list[Any]] = [[-2.0, "Oslo"], [None, None], [2.0, "Rome"]]
    expected = three_classes(3).predict(Preparation(["amount", "city"], CATEGORIES).matrix(rows))
    assert model.predict(rows) == [tuple(one) for one in np.asarray(expected).tolist()]
    assert [model.predict([row])[0] for row in rows] == model.predict(rows)


def test_a_model_that_is_not_its_contract_is_refused(
    router: Router, bundles: BundleStore, tmp_path: Path
) -> None:
    two = ModelSpec(outputs=CLASSES.outputs[:2])
    newer = ModelSpec(form="of next year")
    other = ModelSpec(form="calibrated")
    specs = (two, newer, other)
    desire(tmp_path, *(packed(bundles, 3, spec).digest for spec in specs))
    router.refresh()
    assert "cannot be read" in router.refused["scoring/v3"]
    assert router.endpoints == []
    assert "gives 3 numbers, its contract has 2" in router.refused["scoring/v1"]
    assert "of next year" in router.refused["scoring/v2"]


def test_keys_that_cannot_be_taken_up_keep_no_version_from_being_followed(
    router: Router, bundles: BundleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = packed(bundles, 1), packed(bundles, 2)
    keys = [
        ApiKey(digest=hashlib.sha256(secret).hexdigest(), name="n", rate_per_s=100.0)
        for secret in (b"revoked", b"new")
    ]

    def write(bundle: Bundle, key: ApiKey) -> None:
        version = DesiredVersion(
            application="scoring", api_version=1, digest=bundle.digest, release="r", since_us=0
        )
        desired = Desired(environment="prod", versions=(version,), keys=(key,))
        write_desired(FolderStorage(tmp_path), desired)

    monkeypatch.setattr("konveyer.execution.serving.router._RETRY_REFUSED_S", 0.0)
    write(first, keys[0])
    router.refresh()
    write(second, keys[1])
    with monkeypatch.context() as patch:
        patch.setattr(SharedRates, "limit", _no_cell)
        router.refresh()
        assert router.find("scoring", 1).live.digest == second.digest
        assert router.keys.caller({b"x-api-key": b"revoked"}, "scoring") == "n"
    router.refresh()
    assert router.keys.caller({b"x-api-key": b"new"}, "scoring") == "n"
    with pytest.raises(KeyUnknown):
        router.keys.caller({b"x-api-key": b"revoked"}, "scoring")


def _no_cell(*_: object) -> None:
    raise TooManyKeys("no cell is left")
