"""Functional: recorded answers come again, and malformed requests get a clear 4xx."""

from typing import Any

import httpx
import msgspec
import numpy as np

from konveyer.bundle.compiled import compiled_model
from konveyer.bundle.manifest import GOLDEN, Golden
from konveyer.bundle.store import Bundle
from konveyer.core.schema import ColumnType
from konveyer.execution.releases.gates.context import GateContext, predict_path
from konveyer.execution.releases.verdict import Verdict
from konveyer.execution.serving.contract import example
from konveyer.execution.serving.gateway import MOST_BODY_BYTES
from konveyer.feature_store.definitions.resolved import ResolvedService

TOLERANCE = 1e-9
_UNKNOWN = {
    ColumnType.INT64: -(2**61) - 7,
    ColumnType.STRING: "\u2205 no such entity",
    ColumnType.UUID: "deadbeef-0000-0000-0000-000000000000",
}


def functional_gate(context: GateContext, bundle: Bundle) -> Verdict:
    differences = golden_differences(bundle)
    with context.on_test(bundle) as url:
        answers = _malformed_answers(url, bundle)
    return judge(differences, answers)


def judge(differences: list[float], answers: list[dict[str, Any]]) -> Verdict:
    worst = max(differences, default=float("inf"))
    wrong = [answer for answer in answers if answer["got"] != answer["expected"]]
    return Verdict(
        passed=worst <= TOLERANCE and not wrong,
        rule="recorded answers come again and malformed requests get their 4xx",
        measured=f"{len(differences)} answers, worst difference {worst:.1e}; "
        f"{len(answers) - len(wrong)} of {len(answers)} malformed requests refused as they should",
        limit=f"difference {TOLERANCE:.0e}, every request",
        evidence={"worst_difference": worst, "malformed_requests": answers},
    )


def golden_differences(bundle: Bundle) -> list[float]:
    """How far the compiled model is from what the model said where it was trained."""
    cases = msgspec.json.decode((bundle.path / GOLDEN).read_bytes(), type=Golden).cases
    model = compiled_model(bundle)
    rows = [case.features for case in cases]
    recorded = np.array([case.outputs for case in cases])
    single = np.array([model.predict([row])[0] for row in rows])
    together = np.array(model.predict(rows))
    both = np.maximum(np.abs(single - recorded), np.abs(together - recorded))
    differences: list[float] = both.max(axis=1).tolist()
    return differences


def malformed_requests(service: ResolvedService) -> list[tuple[str, bytes, str]]:
    """(what is wrong, the body, the error code it must get)."""
    good, keys = example(service), service.keys
    first = keys[0]
    wrong: Any = "text" if first.dtype is ColumnType.INT64 else 1
    unknown = good | {key.name: _UNKNOWN[key.dtype] for key in keys}
    encode = msgspec.json.encode
    fields = [
        (
            f"no {field.name}",
            encode({n: v for n, v in good.items() if n != field.name}),
            "missing_field",
        )
        for field in service.request
    ] + [
        (f"wrong {field.name}", encode({**good, field.name: []}), "wrong_type")
        for field in service.request
    ]
    return [
        *fields,
        ("not JSON", b"{", "invalid_json"),
        ("a list", b"[]", "wrong_type"),
        ("no key", b"{}", "missing_key"),
        ("null key", encode({**good, first.name: None}), "missing_key"),
        ("wrong type", encode({**good, first.name: wrong}), "wrong_type"),
        ("extra field", encode({**good, "no_such_field": 1}), "extra_field"),
        ("unknown entity", encode(unknown), "entity_not_found"),
        ("no rows", encode({"rows": []}), "no_rows"),
        ("too large", b" " * (MOST_BODY_BYTES + 1), "body_too_large"),
    ]


def _malformed_answers(url: str, bundle: Bundle) -> list[dict[str, Any]]:
    path = predict_path(bundle.manifest)
    answers = []
    with httpx.Client(base_url=url, timeout=10.0) as client:
        for what, body, code in malformed_requests(bundle.manifest.service):
            answers.append(_answer(what, code, client.post(path, content=body)))
        missing = f"/{bundle.manifest.application}/v999999999/predict"
        answers.append(_answer("unknown version", "version_not_found", client.post(missing)))
        answers.append(_answer("GET", "method_not_allowed", client.get(path)))
    return answers


def _answer(what: str, expected: str, response: httpx.Response) -> dict[str, Any]:
    code = response.json().get("error", {}).get("code", "") if response.is_client_error else ""
    return {
        "request": what,
        "expected": expected,
        "got": code or f"status {response.status_code}",
        "status": response.status_code,
    }
