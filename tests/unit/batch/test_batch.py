"""Batch scoring: the rows that a node would answer, once for each period, whatever is killed."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from konveyer import Aggregation, FeatureService, FeatureView, Source
from konveyer.access.actor import Actor, NotAllowed
from konveyer.access.roles import Role
from konveyer.bundle.compiled import compiled_model
from konveyer.bundle.errors import ModelFailed
from konveyer.bundle.manifest import MODEL, ModelSpec
from konveyer.catalog import audit, outages
from konveyer.core.clock import parse_instant
from konveyer.core.errors import KonveyerError
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.execution.batch import flow, frame, runs
from konveyer.execution.batch.flow import BatchFailed, batch_flow
from konveyer.execution.batch.frame import RowsMissing, RowsUnfit
from konveyer.execution.batch.order import Given
from konveyer.execution.batch.output import (
    ScoreColumnsClash,
    ScoresDiffer,
    ScoreTable,
    scores_schema,
    table_of,
)
from konveyer.execution.batch.plan import ModelNotLive, find_live
from konveyer.execution.batch.schedule import DueBatches, scheduled_models
from konveyer.execution.batch.score import ScoreFile
from konveyer.execution.releases.machine import State
from konveyer.execution.releases.records import live_versions, release_row, set_live, set_tried
from konveyer.execution.releases.service import open_release
from konveyer.feature_store.offline.delta import PartFile
from tests.outages import SealedSteps, failing
from tests.unit.batch.scorer import DAY_US, DEFINITIONS, NOW, Scorer, opened_scorer, packed

FIRST, SECOND = "2026-01-05T00:00:00Z", "2026-01-08T00:00:00Z"


@pytest.fixture
def scorer(tmp_path: Path) -> Iterator[Scorer]:
    with opened_scorer(tmp_path) as scorer:
        yield scorer


def test_scores_are_what_a_node_answers(scorer: Scorer) -> None:
    bundle = scorer.release()
    (period,) = scorer.run(scorer.plan())
    rows = scorer.rows()
    assert [row["client_id"] for row in rows] == list(range(40))
    features = scorer.store.online(*[(row["client_id"],) for row in rows])
    expected = compiled_model(bundle).predict(features)
    assert [(row["prediction"],) for row in rows] == expected
    assert len(set(expected)) > 5
    assert {row["event_time"] for row in rows} == {datetime(2026, 1, 11, tzinfo=UTC)}
    assert {(row["bundle"], row["release"], row["period"]) for row in rows} == {
        (bundle.digest, period.release, NOW)
    }
    assert (period.status, period.rows, period.rows_asked) == ("succeeded", 40, 40)
    assert scorer.left() == []


def test_each_period_sees_the_features_of_its_time_and_who_was_known(scorer: Scorer) -> None:
    scorer.release()
    scorer.run(scorer.plan("2026-01-02T00:00:00Z", FIRST, SECOND))
    by_period: dict[str, dict[int, float]] = {}
    for row in scorer.rows():
        by_period.setdefault(row["period"], {})[row["client_id"]] = row["prediction"]
    assert set(by_period["2026-01-02T00:00:00Z"]) == {n for n in range(40) if n % 3 == 0}
    assert len(by_period[FIRST]) == len(by_period[SECOND]) == 40
    assert by_period[FIRST] != by_period[SECOND]


def test_a_period_before_anybody_was_known_has_no_rows(scorer: Scorer) -> None:
    scorer.release()
    (period,) = scorer.run(scorer.plan("2025-01-01T00:00:00Z"))
    assert (period.status, period.rows_asked) == ("succeeded", 0)
    assert scorer.rows() == []


def test_scoring_a_period_again_gives_the_same_rows_and_another_release_replaces_them(
    scorer: Scorer,
) -> None:
    scorer.release()
    scorer.run(scorer.plan(FIRST, SECOND))
    before = scorer.rows()
    scorer.run(scorer.plan(SECOND))
    assert scorer.rows() == before
    other = scorer.release(seed=2)
    scorer.run(scorer.plan(SECOND))
    after = scorer.rows()
    assert [row for row in after if row["period"] == FIRST] == before[:40]
    assert {row["bundle"] for row in after if row["period"] == SECOND} == {other.digest}
    assert len(after) == len(before)


class Killed(BaseException):
    """As if the process ended here: nothing may catch it and put things right."""


@pytest.mark.parametrize("moment", ["features", "scores", "commit", "record"])
def test_a_run_that_is_killed_anywhere_gives_the_same_rows_when_it_runs_again(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    scorer.release()
    expected_run = scorer.plan(FIRST, SECOND)
    scorer.run(expected_run)
    expected = scorer.rows()
    scorer.release(seed=2)
    order = scorer.plan(FIRST, SECOND)
    targets = {
        "features": (flow, "write_large"),
        "scores": (ScoreFile, "_scored"),
        "commit": (ScoreTable, "replace"),
        "record": (runs, "succeed"),
    }

    def killed(*_arguments: Any, **_options: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(*targets[moment], killed)
        with pytest.raises(Killed):
            scorer.run(order)
    if moment != "record":
        assert scorer.rows() == expected, "half a period must never be seen"
    done = scorer.run(order)
    assert [period.status for period in done] == ["succeeded", "succeeded"]
    assert len(scorer.rows()) == len(expected)
    assert {row["release"] for row in scorer.rows()} == {order.release}
    scorer.run(expected_run)
    assert scorer.rows() == expected
    assert scorer.left() == []


def test_a_period_that_fails_says_why_and_leaves_what_was_there(scorer: Scorer) -> None:
    bundle = scorer.release()
    scorer.run(scorer.plan(FIRST, SECOND))
    before = scorer.rows()
    order = scorer.plan(FIRST)
    (bundle.path / MODEL).write_bytes(b"damaged")
    with pytest.raises(BatchFailed, match="missing or was changed"):
        scorer.run(order)
    (period,) = scorer.periods(order)
    assert period.status == "failed"
    assert period.error is not None
    assert period.error["code"] == "bundle_corrupt"
    assert scorer.rows() == before


def given_rows() -> pa.Table:
    moments = [parse_instant(moment) for moment in (FIRST, SECOND, FIRST)]
    return pa.table(
        {
            "who": [1, 1, 2],
            "moment": pa.array(moments).cast(pa.timestamp("us", "UTC")),
            "more": ["a", "b", "c"],
        }
    )


@pytest.mark.parametrize("kind", ["file", "folder", "delta"])
def test_a_table_is_scored_at_the_times_of_its_rows(scorer: Scorer, kind: str) -> None:
    scorer.release()
    scorer.run(scorer.plan(FIRST, SECOND))
    known = {(row["client_id"], row["event_time"]): row["prediction"] for row in scorer.rows()}
    table, path = given_rows(), scorer.root / "given"
    match kind:
        case "file":
            pq.write_table(table, path)
        case "folder":
            path.mkdir()
            pq.write_table(table.slice(0, 2), path / "a.parquet")
            pq.write_table(table.slice(2), path / "b.parquet")
        case "delta":
            write_deltalake(str(path), table)
    given = Given(path=str(path), timestamp="moment", columns={"client_id": "who"})
    for _ in range(2):
        scorer.run(scorer.plan(given=given))
    rows = [row for row in scorer.rows() if row["period"] == f"table {path}"]
    assert [(row["client_id"], row["event_time"].day) for row in rows] == [(1, 5), (1, 8), (2, 5)]
    for row in rows:
        assert row["prediction"] == known[row["client_id"], row["event_time"]]


def test_a_table_without_times_is_scored_as_of_the_period(scorer: Scorer) -> None:
    scorer.release()
    path = scorer.root / "given.parquet"
    pq.write_table(pa.table({"client_id": [3, 5]}), path)
    scorer.run(scorer.plan(FIRST, given=Given(path=str(path))))
    assert [(row["client_id"], row["event_time"].day) for row in scorer.rows()] == [(3, 5), (5, 5)]


def test_rows_that_are_alike_are_scored_like_others(scorer: Scorer) -> None:
    scorer.release()
    path = scorer.root / "given.parquet"
    pq.write_table(pa.table({"client_id": [3, 5, 3]}), path)
    scorer.run(scorer.plan(FIRST, given=Given(path=str(path))))
    first, second, third = scorer.rows()
    assert (first["client_id"], third["client_id"]) == (3, 5)
    assert first == second


def test_a_key_that_the_model_does_not_have_is_refused_before_anything_runs(
    scorer: Scorer,
) -> None:
    scorer.release()
    given = Given(path="list.parquet", columns={"client": "who"})
    with pytest.raises(KonveyerError, match="'client' is no join key") as caught:
        scorer.plan(given=given)
    assert "client_id" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("columns", "error"),
    [({"client": [1]}, RowsUnfit), (None, RowsMissing), ({"client_id": ["x"]}, Exception)],
)
def test_a_table_that_does_not_fit_is_an_error(
    scorer: Scorer, columns: dict[str, Any] | None, error: type[Exception]
) -> None:
    scorer.release()
    path = scorer.root / "given.parquet"
    if columns is not None:
        pq.write_table(pa.table(columns), path)
    with pytest.raises(BatchFailed) as caught:
        scorer.run(scorer.plan(given=Given(path=str(path))))
    assert caught.value.hint
    (detail,) = caught.value.detail["periods"].values()  # type: ignore[attr-defined]
    if issubclass(error, RowsUnfit | RowsMissing):
        assert detail["code"] == error.code
    assert not scorer.table.exists()


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (pa.table({"other": [2]}), "no column 'client_id'"),
        (pa.table({"client_id": ["two"]}), "string in column 'client_id', .* as int64"),
        (pa.Table.from_arrays([[2], [3]], names=["client_id"] * 2), "several columns 'client_id'"),
        (None, "not a readable Parquet file"),
    ],
)
def test_each_file_of_a_folder_has_the_columns(
    scorer: Scorer, second: pa.Table | None, said: str
) -> None:
    scorer.release()
    path = scorer.root / "given"
    path.mkdir()
    pq.write_table(pa.table({"client_id": [1]}), path / "a.parquet")
    if second is None:
        (path / "b.parquet").write_bytes(b"no Parquet")
    else:
        pq.write_table(second, path / "b.parquet")
    with pytest.raises(BatchFailed, match=f"b.parquet (has|is) {said}") as caught:
        scorer.run(scorer.plan(given=Given(path=str(path))))
    (detail,) = caught.value.detail["periods"].values()  # type: ignore[attr-defined]
    assert detail["code"] == RowsUnfit.code
    assert not scorer.table.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "delta"])
@pytest.mark.parametrize("is_gone", [False, True])
def test_a_file_that_is_damaged_or_goes_while_it_is_read_is_named(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, kind: str, is_gone: bool
) -> None:
    scorer.release()
    path, table = scorer.root / "given", pa.table({"client_id": [*range(5_000)]})
    match kind:
        case "file":
            pq.write_table(table, path)
            file = path
        case "folder":
            path.mkdir()
            file = path / "a.parquet"
            pq.write_table(table, file)
        case "delta":
            write_deltalake(str(path), table)
            (file,) = path.glob("*.parquet")
    size, check = file.stat().st_size, frame._check_columns

    def checked(*arguments: Any) -> None:
        """Columns are checked by the footers of files; then their pages are read."""
        check(*arguments)
        if is_gone:
            file.unlink()
        else:
            file.write_bytes(b"x" * 2_000 + file.read_bytes()[2_000:])
            assert file.stat().st_size == size

    monkeypatch.setattr(frame, "_check_columns", checked)
    with pytest.raises(BatchFailed, match=f"{path.name}.* cannot be read: ") as caught:
        scorer.run(scorer.plan(given=Given(path=str(path))))
    (detail,) = caught.value.detail["periods"].values()  # type: ignore[attr-defined]
    assert detail["code"] == RowsUnfit.code
    assert not scorer.table.exists()


def test_scores_are_a_source_of_features(scorer: Scorer) -> None:
    """A cascade: what one model said is what another one learns from."""
    scorer.release()
    scorer.run(scorer.plan(FIRST, SECOND))
    path = str(scorer.table.relative_to(scorer.root))
    scores = Source(name="scores", path=path, event_time="event_time")
    view = FeatureView(
        name="earlier_scores",
        entity="client",
        source="scores",
        aggregations=(
            Aggregation(column="prediction", function="last", over="30d"),
            Aggregation(column="prediction", function="count", over="30d"),
        ),
    )
    second = FeatureService(name="second", features=("earlier_scores", "spend"))
    scorer.store.apply(*DEFINITIONS, scores, view, second)
    scorer.store.etl("earlier_scores")
    labels = pa.table(
        {
            "client_id": [7, 7],
            "at": pa.array([parse_instant(at) + 1 for at in (FIRST, SECOND)]).cast(
                pa.timestamp("us", "UTC")
            ),
        }
    )
    built = scorer.store.training_set(labels, service="second").table
    said = [row["prediction"] for row in scorer.rows() if row["client_id"] == 7]
    assert built.column("prediction_last_30d").to_pylist() == said
    assert built.column("prediction_count_30d").to_pylist() == [1, 2]


def test_a_table_of_other_columns_is_left_alone(scorer: Scorer) -> None:
    bundle = scorer.release()
    scorer.run(scorer.plan(FIRST))
    two = (ScalarColumn("low", ColumnType.FLOAT64), ScalarColumn("high", ColumnType.FLOAT64))
    manifest = msgspec.structs.replace(bundle.manifest, model=ModelSpec(outputs=two))
    with pytest.raises(ScoresDiffer, match="api_version"):
        table_of(scorer.services.scores, "scoring", 1).check(manifest)


def test_a_table_takes_a_new_output_and_a_rollback_from_it(scorer: Scorer) -> None:
    """Neither is a break to callers, and so neither may stop the scores."""
    manifest, table = scorer.release().manifest, table_of(scorer.services.scores, "scoring", 1)

    def score(period: str, *names: str) -> None:
        outputs = tuple(ScalarColumn(name, ColumnType.FLOAT64) for name in names)
        model = msgspec.structs.replace(manifest, model=ModelSpec(outputs=outputs))
        table.check(model)
        schema = scores_schema(model)
        schema = schema.remove(schema.get_field_index("period"))
        at = datetime(2026, 1, 5, tzinfo=UTC)
        row = {"client_id": 1, "event_time": at, "bundle": "b", "release": "r"}
        file = scorer.root / "part.parquet"
        pq.write_table(pa.Table.from_pylist([row | dict.fromkeys(names, 0.5)], schema), file)
        size = file.stat().st_size
        table.replace(model, period, [PartFile(path=str(file), rows=1, size_bytes=size)])

    score(FIRST, "low", "high")
    score(SECOND, "middle", "high", "low")
    score("2026-01-09T00:00:00Z", "low", "high")
    seen = [(row["low"], row["middle"], row["high"]) for row in scorer.rows()]
    assert seen == [(0.5, None, 0.5), (0.5, 0.5, 0.5), (0.5, None, 0.5)]
    score(SECOND, "low", "high")
    assert [row["middle"] for row in scorer.rows()] == [None, None, None]
    with pytest.raises(ScoresDiffer, match="middle"):
        score(FIRST, "low", "other")


@pytest.mark.parametrize(
    ("moment", "state"),
    [
        ("run", State.ROLLED_BACK),
        ("_write_features", State.ROLLED_BACK),
        ("_write_features", State.FAILED),
    ],
)
def test_a_release_that_is_rolled_back_meanwhile_replaces_no_more_scores(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, moment: str, state: State
) -> None:
    """Between two periods, as after a kill, and in the middle of one."""
    scorer.release()
    scorer.run(scorer.plan(FIRST, SECOND))
    before = scorer.rows()
    scorer.release(seed=2)
    order = scorer.plan(FIRST, SECOND)

    def rolled_back(work: Any) -> Any:
        def act(*arguments: Any) -> Any:
            result = work(*arguments)
            with scorer.services.catalog.transaction() as session:
                release_row(session, order.release).state = str(state)
            return result

        return act

    if moment == "run":
        monkeypatch.setattr(flow, "_score", rolled_back(flow._score))
    else:
        monkeypatch.setattr(flow, moment, rolled_back(getattr(flow, moment)))
    with pytest.raises(BatchFailed, match=f"is in '{state}'") as caught:
        scorer.run(order)
    assert str(caught.value.hint).endswith("konveyer batch run scoring/v1")
    kept = {FIRST, SECOND} if moment != "run" else {SECOND}
    assert [row for row in scorer.rows() if row["period"] in kept] == [
        row for row in before if row["period"] in kept
    ]
    assert scorer.periods(order)[-1].status == "failed"
    assert scorer.left() == []


def test_a_release_that_nodes_are_only_taking_up_is_no_model_to_score_with(scorer: Scorer) -> None:
    """They may refuse it, and its scores would stay."""
    services = scorer.services
    due = DueBatches(services.catalog, services.bundles, "prod", lambda: parse_instant(NOW))
    first = scorer.release(every="1d", state=State.PRODUCTION)
    assert due([]) == []
    with pytest.raises(ModelNotLive, match="'scoring/v1' is not live in prod"):
        scorer.plan()
    with services.catalog.transaction() as session:
        (live,) = live_versions(session, "prod")
        release_row(session, live.release).state = str(State.LIVE)
    scorer.release(seed=2, every="1d", state=State.PRODUCTION)
    with services.catalog.reading() as session:
        (model,) = scheduled_models(session, services.bundles, "prod", parse_instant(NOW))
    (run,) = due([])
    assert {model.live.digest, run.payload["digest"], scorer.plan().digest} == {first.digest}


def test_runs_are_audited_and_only_for_those_who_may(scorer: Scorer) -> None:
    scorer.release()
    order = scorer.plan(FIRST)
    scorer.run(order)
    with scorer.services.catalog.reading() as session:
        (entry,) = audit.entries(session, kind="batch")
        assert (entry.actor, entry.action, entry.subject) == ("admin", "scored", "scoring/v1")
        assert entry.detail["run"] == order.run_id
        with pytest.raises(ModelNotLive) as caught:
            find_live(session, "scorin/v1")
        assert caught.value.hint == "did you mean 'scoring/v1'?"
    with pytest.raises(NotAllowed):
        scorer.plan(actor=Actor("eva", frozenset({Role.ANALYST})))


def test_an_output_that_is_called_like_a_column_of_scores_is_told(scorer: Scorer) -> None:
    output = (ScalarColumn("Release", ColumnType.FLOAT64),)
    manifest = scorer.release().manifest
    manifest = msgspec.structs.replace(manifest, model=ModelSpec(outputs=output))
    with pytest.raises(ScoreColumnsClash, match="two columns 'Release'"):
        table_of(scorer.services.scores, "scoring", 1).check(manifest)


def test_what_its_author_tries_is_no_model_to_score_with(scorer: Scorer) -> None:
    reviewed = scorer.release()
    with scorer.services.catalog.transaction() as session:
        service = reviewed.manifest.service
        tried = packed(scorer.services.bundles, service, seed=2)
        set_tried(session, "dev", tried)
        set_tried(session, "test", tried)
    scorer.run(scorer.plan(FIRST))
    assert {row["bundle"] for row in scorer.rows()} == {reviewed.digest}


def test_a_model_is_due_once_in_each_period_of_its_cadence(scorer: Scorer) -> None:
    scorer.release()
    now = [parse_instant(NOW) + DAY_US // 2]
    services = scorer.services
    due = DueBatches(services.catalog, services.bundles, "prod", lambda: now[0])
    assert due([]) == []  # it has no [batch]
    scorer.release(seed=2, every="1d")
    (run,) = due([])
    assert due([run]) == []
    assert run.id == "batch-scoring-v1-20260111T000000Z"
    flow.batch_flow(services).run(_Plain(), run.payload)
    assert {row["period"] for row in scorer.rows()} == {NOW}
    assert due([]) == []
    now[0] += DAY_US
    (following,) = due([])
    assert following.id == "batch-scoring-v1-20260112T000000Z"
    with services.catalog.reading() as session:
        (model,) = scheduled_models(session, services.bundles, "prod", now[0])
    assert (model.every, model.last_us) == ("1d", parse_instant(NOW))


def test_a_table_and_a_time_to_come_hold_up_no_period(scorer: Scorer, tmp_path: Path) -> None:
    scorer.release(every="1d")
    services, now = scorer.services, parse_instant(NOW) + DAY_US // 2
    due = DueBatches(services.catalog, services.bundles, "prod", lambda: now)
    pq.write_table(pa.table({"client_id": [1, 2]}), tmp_path / "list.parquet")
    scorer.run(scorer.plan(given=Given(path=str(tmp_path / "list.parquet"))))
    scorer.run(scorer.plan("2030-01-01T00:00:00Z"))
    assert [run.id for run in due([])] == ["batch-scoring-v1-20260111T000000Z"]
    scorer.run(scorer.plan(NOW))
    assert due([]) == []


def test_a_bundle_that_cannot_be_opened_is_not_due_until_it_can(scorer: Scorer) -> None:
    bundle = scorer.release(every="1d")
    services, model = scorer.services, bundle.path / MODEL
    due = DueBatches(services.catalog, services.bundles, "prod", lambda: parse_instant(NOW))
    content = model.read_bytes()
    model.write_bytes(b"damaged")
    assert due([]) == []
    model.write_bytes(content)
    assert len(due([])) == 1


def test_a_bundle_that_cannot_be_opened_hides_no_other_model(scorer: Scorer) -> None:
    services, now_us = scorer.services, parse_instant(NOW)
    good = scorer.release(every="1d")
    bad = packed(services.bundles, good.manifest.service, seed=2, application="another")
    with services.catalog.transaction() as session:
        row = release_row(session, open_release(session, scorer.store.admin, bad))
        row.state = str(State.LIVE)
        set_live(session, "prod", row)
    (bad.path / MODEL).write_bytes(b"damaged")
    with services.catalog.reading() as session:
        first, second = scheduled_models(session, services.bundles, "prod", now_us)
    assert (first.live.application, first.every, first.next_us) == ("another", None, None)
    assert "missing or was changed" in first.error
    assert (second.live.application, second.every, second.error) == ("scoring", "1d", "")


def test_a_period_in_which_the_catalog_is_away_keeps_no_other_from_being_scored(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "_LOOK_EVERY_S", 0.01)
    catalog = scorer.services.catalog
    scorer.release()
    order = scorer.plan(FIRST, SECOND)
    with failing(catalog, 1, 2, 3):
        batch_flow(scorer.services).run(SealedSteps(), msgspec.to_builtins(order))
    assert [period.status for period in scorer.periods(order)] == ["succeeded"] * 2
    order = scorer.plan(FIRST, SECOND)
    with failing(catalog, 1, 3, 5, 6), pytest.raises(BatchFailed):
        batch_flow(scorer.services).run(SealedSteps(), msgspec.to_builtins(order))
    failed, scored = scorer.periods(order)
    assert (failed.status, scored.status) == ("failed", "succeeded")
    assert "the database is away" in (failed.error or {})["message"]


class _Plain:
    def step(self, _name: str, work: Any) -> Any:
        return work()


def test_memory_is_bounded_by_blocks_of_rows(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many small blocks give the same rows as one: nothing depends on having all at once."""
    scorer.release()
    scorer.run(scorer.plan(FIRST))
    expected = scorer.rows()
    monkeypatch.setattr("konveyer.core.digests.BLOCK_ROWS", 7)
    monkeypatch.setattr("konveyer.execution.batch.score.BATCH_ROWS", 3)
    scorer.run(scorer.plan(FIRST))
    assert scorer.rows() == expected
    assert len(list(scorer.table.glob("*.parquet"))) == 1 + 6


def test_a_row_that_the_model_has_no_answer_for_has_none_and_costs_no_other_its_own(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = compiled_model(scorer.release())
    scorer.run(scorer.plan(NOW))
    before = scorer.rows()
    unanswered = {scorer.store.online((client,))[0] for client in (7, 8, 23)}

    class Picky:
        def predict_columns(self, columns: Any) -> Any:
            raise ModelFailed("One of them is not a finite number.")

        def predict(self, rows: Any) -> Any:
            if unanswered & set(rows):
                raise ModelFailed("The answer is not a finite number.")
            return model.predict(rows)

    monkeypatch.setattr("konveyer.execution.batch.score.compiled_model", lambda _: Picky())
    scorer.run(scorer.plan(NOW))
    after = scorer.rows()
    assert [row["client_id"] for row in after if row["prediction"] is None] == [7, 8, 23]
    assert [row for row in after if row["prediction"] is not None] == [
        row for row in before if row["client_id"] not in (7, 8, 23)
    ]
