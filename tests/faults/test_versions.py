"""Versions that come, go and fail under load: no request is lost."""

import time
from collections import Counter

from konveyer.bundle.manifest import MODEL
from konveyer.bundle.store import Bundle
from konveyer.execution.serving.desired import Share
from konveyer.execution.serving.sides import place_of
from tests.serving_nodes import Load, rows_logged, serving, wait_for_bundle
from tests.serving_space import CLIENTS, ServingSpace
from tests.support import wait_for


def test_swaps_and_rollbacks_under_load_fail_no_request(
    space: ServingSpace, first: Bundle, second: Bundle
) -> None:
    with serving(space, processes=2) as node, Load(node.url) as load:
        rolled_back_s = []
        for _ in range(3):
            space.desire(second)
            wait_for_bundle(node, second.digest)
            load.more(100)
            began = time.monotonic()
            space.desire(first)
            wait_for_bundle(node, first.digest)
            rolled_back_s.append(time.monotonic() - began)
            load.more(100)
    assert load.broken == []
    assert load.statuses == {200}
    assert load.bundles() == {first.digest, second.digest}
    assert min(rolled_back_s) < 1.0


def test_a_corrupted_bundle_is_refused_and_the_old_one_answers(
    space: ServingSpace, first: Bundle, second: Bundle
) -> None:
    file = second.path / MODEL
    good = file.read_bytes()
    file.write_bytes(good[:-1] + b"#")
    with serving(space, processes=2) as node, Load(node.url) as load, node.client() as client:
        space.desire(second)
        wait_for(lambda: client.get("/health/ready").json()["refused"])
        reason = client.get("/health/ready").json()["refused"]["scoring/v1"]
        load.more(100)
        assert load.bundles() == {first.digest}
        file.write_bytes(good)  # as if it was brought again
        wait_for_bundle(node, second.digest)
        load.more(100)
    assert "was changed" in reason
    assert load.broken == []
    assert load.statuses == {200}


def test_a_node_goes_on_following_after_a_document_of_no_sense(
    space: ServingSpace, second: Bundle
) -> None:
    document = space.state / "environments" / "prod.json"
    with serving(space, processes=1) as node:
        for odd in (b"", b"null", b'{"environment":"prod","keys":[{"digest":"no","name":"till"}]}'):
            before = node.log().count("cannot be read")
            document.write_bytes(odd)
            wait_for(lambda: node.log().count("cannot be read") > before)  # noqa: B023 - at once
        space.desire(second)
        wait_for_bundle(node, second.digest)


def test_a_canary_gets_its_entities_each_time(
    space: ServingSpace, first: Bundle, second: Bundle
) -> None:
    canary = Share(digest=second.digest, release="r-2", per_mille=300)
    with serving(space, processes=2) as node, Load(node.url) as load, node.client() as client:
        load.more(50)
        space.desire(first, canary=canary)
        wait_for_bundle(node, second.digest, side="canary")
        sides = {}
        for key in range(100):
            body = {"client_id": key}
            got = {client.post("/scoring/v1/predict", json=body).json()["bundle"] for _ in range(3)}
            (sides[key],) = got
        load.more(200)
        space.desire(second)
        wait_for_bundle(node, second.digest)
        load.more(100)
    assert load.broken == []
    assert load.statuses == {200}
    expected = {key: place_of("r-2", (key,)) < 300 for key in sides}
    assert {key: bundle == second.digest for key, bundle in sides.items()} == expected
    share = sum(place_of("r-2", (key,)) < 300 for key in range(10 * CLIENTS)) / (10 * CLIENTS)
    assert abs(share - 0.3) < 0.02
    rows = Counter((row["side"], row["release"]) for row in rows_logged(space.root))
    assert rows["canary", "r-2"] > 0
    assert rows["live", "r-1"] > 0


def test_shadows_see_copies_and_hold_up_nobody(
    space: ServingSpace, first: Bundle, second: Bundle
) -> None:
    shadow = Share(digest=second.digest, release="r-2", per_mille=1000)
    space.desire(first, shadows=(shadow,))
    with serving(space, processes=1) as node, node.client() as client:
        answers = {}
        for key in range(50):
            headers = {"x-request-id": f"mirrored-{key}"}
            answer = client.post("/scoring/v1/predict", json={"client_id": key}, headers=headers)
            answers[f"mirrored-{key}"] = answer.json()
        assert {answer["bundle"] for answer in answers.values()} == {first.digest}
    rows = [row for row in rows_logged(space.root) if row["request_id"] in answers]
    shadows = {row["request_id"]: row for row in rows if row["side"] == "shadow"}
    lives = {row["request_id"]: row for row in rows if row["side"] == "live"}
    assert shadows.keys() == lives.keys() == answers.keys()
    for key, row in shadows.items():
        assert row["bundle"] == second.digest
        assert row["features"] == lives[key]["features"]
        assert row["prediction"] != lives[key]["prediction"] == answers[key]["prediction"]


def test_a_shadow_under_full_load_costs_no_request(
    space: ServingSpace, first: Bundle, second: Bundle
) -> None:
    shadow = Share(digest=second.digest, release="r-2", per_mille=1000)
    with serving(space, processes=1) as node, Load(node.url, connections=16) as load:
        space.desire(first, shadows=(shadow,))
        wait_for_bundle(node, second.digest, side="shadow")
        load.more(2000)
        with node.client() as client:
            metrics = client.get("/metrics").text
    assert load.broken == []
    assert load.statuses == {200}
    assert load.bundles() == {first.digest}
    rows = Counter(row["side"] for row in rows_logged(space.root))
    dropped = next(
        float(line.split()[-1])
        for line in metrics.splitlines()
        if line.startswith("konveyer_shadows_dropped_total")
    )
    assert rows["shadow"] + dropped > 0


def test_a_model_that_answers_nan_gives_an_error_and_a_canary_hands_over(
    space: ServingSpace, first: Bundle
) -> None:
    broken = space.pack(7, with_nan=True)
    space.desire(broken)
    with serving(space, processes=1) as node, node.client() as client:
        with Load(node.url) as load:
            answers = {
                key: client.post("/scoring/v1/predict", json={"client_id": key})
                for key in range(100)
            }
            load.more(200)
        assert (load.statuses, load.codes, load.broken) == ({200, 500}, {"model_failed"}, [])
        failed = [key for key, answer in answers.items() if answer.status_code != 200]
        assert 0 < len(failed) < 100
        assert {answers[key].status_code for key in failed} == {500}
        assert {answers[key].json()["error"]["code"] for key in failed} == {"model_failed"}

        space.desire(first, canary=Share(digest=broken.digest, release="r-7", per_mille=1000))
        wait_for_bundle(node, broken.digest, side="canary")
        headers = {"x-request-id": "handed-over"}
        body = {"client_id": failed[0]}
        with Load(node.url) as load:
            answer = client.post("/scoring/v1/predict", json=body, headers=headers)
            load.more(200)
    assert (load.statuses, load.broken) == ({200}, [])
    assert answer.status_code == 200
    assert answer.json()["bundle"] == first.digest
    logged = {r["side"]: r for r in rows_logged(space.root) if r["request_id"] == "handed-over"}
    assert (logged["canary"]["status"], logged["canary"]["error"]) == (500, "model_failed")
    assert logged["live"]["error"] is None
