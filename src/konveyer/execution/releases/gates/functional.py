"""Functional: recorded answers come again, invariants hold, malformed requests get a clear 4xx."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import httpx
import msgspec

from konveyer.bundle.manifest import GOLDEN, TRAINING, Golden
from konveyer.bundle.parity import Parity, parity
from konveyer.bundle.release_policy import ReleasePolicy
from konveyer.bundle.store import Bundle
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.development.golden import REAL_ROWS
from konveyer.execution.releases.gates.answers import answering
from konveyer.execution.releases.gates.context import GateContext, predict_path
from konveyer.execution.releases.gates.invariants import Held, check_all
from konveyer.execution.releases.nodes import NodeAccess, no_answer
from konveyer.execution.releases.verdict import Verdict
from konveyer.execution.serving.connection import MOST_BODY_BYTES
from konveyer.execution.serving.contract import MOST_ROWS, RequestContract
from konveyer.feature_store.datamart.manifest import TrainingSetManifest
from konveyer.feature_store.definitions.resolved import ResolvedService

ANY = "4xx"
_UNKNOWN = {
    ColumnType.INT64: -(2**61) - 7,
    ColumnType.STRING: "\u2205 no such entity",
    ColumnType.UUID: "deadbeef-0000-0000-0000-000000000000",
}


def functional_gate(context: GateContext, bundle: Bundle) -> Verdict:
    recorded = msgspec.json.decode((bundle.path / GOLDEN).read_bytes(), type=Golden)
    services = context.services
    with answering(bundle, services.environments, services.secrets) as answer:
        golden = parity(answer, recorded.cases)
        held = check_all(bundle.manifest, observed_rows(bundle, recorded), answer)
    with context.on_test(bundle) as node:
        answers = _malformed_answers(node, bundle)
    return judge(golden, answers, held, tolerance=bundle.manifest.release.tolerance)


def observed_rows(bundle: Bundle, golden: Golden) -> list[list[Any]]:
    """The recorded rows that the model has an answer for.

    Where the run does not say how many were recorded, they were all rows of a small training set.
    """
    real = golden.real
    if real is None:
        content = (bundle.path / TRAINING).read_bytes()
        real = min(REAL_ROWS, msgspec.json.decode(content, type=TrainingSetManifest).rows)
    return [case.features for case in golden.cases[:real] if not case.error]


def judge(
    golden: Parity,
    answers: list[dict[str, Any]],
    held: Sequence[Held] = (),
    *,
    tolerance: float = ReleasePolicy().tolerance,
) -> Verdict:
    worst = max(golden.differences, default=math.inf)
    wrong = [answer for answer in answers if answer["got"] != answer["expected"]]
    broken = [one.invariant for one in held if one.broken]
    kept = f"; {len(held) - len(broken)} of {len(held)} invariants hold" if held else ""
    return Verdict(
        passed=worst <= tolerance and not golden.unlike and not wrong and not broken,
        rule="recorded answers come again, invariants hold, malformed requests get their 4xx",
        measured=f"{golden}; {len(answers) - len(wrong)} of {len(answers)} malformed requests "
        f"refused as they should{kept}" + (f" (broken: {', '.join(broken)})" if broken else ""),
        limit=f"difference {tolerance:.0e}, every invariant, every request",
        evidence={
            "worst_difference": worst,
            "worst_cases": [msgspec.structs.asdict(one) for one in golden.worst],
            "unlike": golden.unlike,
            "invariants": [asdict(one) for one in held],
            "malformed_requests": [*wrong, *(one for one in answers if one not in wrong)],
        },
    )


def malformed_requests(service: ResolvedService) -> list[tuple[str, bytes, str]]:
    """(what is wrong, the body, the error code it must get)."""
    good = RequestContract(service).example()
    encode = msgspec.json.encode
    # Where an input has that name, the body is one row that has it.
    no_rows = [] if "rows" in good else [("no rows", encode({"rows": []}), "no_rows")]
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
        ("extra field", encode({**good, "no_such_field": 1}), "extra_field"),
        *(_wrong_keys(good, service.keys) if service.keys else []),
        *no_rows,
        ("too large", b" " * (MOST_BODY_BYTES + 1), "body_too_large"),
        *((what, body, ANY) for what, body in _nonsense(service)),
    ]


def _wrong_keys(good: dict[str, Any], keys: Sequence[ScalarColumn]) -> list[tuple[str, bytes, str]]:
    encode, first = msgspec.json.encode, keys[0]
    wrong: Any = "text" if first.dtype is ColumnType.INT64 else 1
    unknown = good | {key.name: _UNKNOWN[key.dtype] for key in keys}
    return [
        ("no key", b"{}", "missing_key"),
        ("null key", encode({**good, first.name: None}), "missing_key"),
        ("wrong type", encode({**good, first.name: wrong}), "wrong_type"),
        ("unknown entity", encode(unknown), "entity_not_found"),
    ]


def malformed_inference(service: ResolvedService) -> list[tuple[str, bytes]]:
    """(what is wrong, the body), for callers that speak the Open Inference Protocol."""
    first = (*service.keys, *service.request)[0]
    return [*_nonsense(service), *_nonsense_tensors(first.name)]


def _nonsense(service: ResolvedService) -> list[tuple[str, bytes]]:
    """Bodies of which only that is asked: they are the caller's mistake, and no 5xx."""
    encode, good = msgspec.json.encode, RequestContract(service).example()
    many = {"rows": [good] * (MOST_ROWS + 1)}
    keys = [nonsense for key in service.keys[:1] for nonsense in _nonsense_keys(good, key.name)]
    return [
        ("nothing", b""),
        ("no UTF-8", b"\xff\xfe\x00"),
        ("deep nesting", b"[" * 50_000),
        ("null", b"null"),
        ("rows that are an object", encode({"rows": {}})),
        ("rows of numbers", encode({"rows": [1, 2]})),
        ("rows and more", encode({"rows": [good], "more": 1})),
        ("too many rows", encode(many)),
        *keys,
    ]


def _nonsense_keys(good: dict[str, Any], key: str) -> list[tuple[str, bytes]]:
    encode = msgspec.json.encode
    wrong: tuple[Any, ...] = ([], {}, True, 2**63)
    return [
        *((f"key {value!r}", encode({**good, key: value})) for value in wrong),
        ("key NaN", encode(good).replace(encode(good[key]), b"NaN", 1)),
        ("key 1e999", encode(good).replace(encode(good[key]), b"1e999", 1)),
        ("key twice and cut off", encode(good)[:-1] + b',"' + key.encode() + b'":'),
    ]


def _nonsense_tensors(name: str) -> list[tuple[str, bytes]]:
    tensor = {"name": name, "datatype": "INT64", "shape": [1], "data": [1]}
    wrong: tuple[dict[str, Any], ...] = (
        {"shape": [-1]},
        {"shape": [2**62]},
        {"shape": [3]},
        {"data": None},
        {"data": [[[1]], {}]},
        {"datatype": "FP128"},
        {"name": "no_such_input"},
    )
    return [
        ("no inputs", b'{"inputs": []}'),
        ("inputs that are numbers", b'{"inputs": [1]}'),
        *(
            (f"tensor {change}", msgspec.json.encode({"inputs": [{**tensor, **change}]}))
            for change in wrong
        ),
    ]


def _malformed_answers(node: NodeAccess, bundle: Bundle) -> list[dict[str, Any]]:
    path = predict_path(bundle.manifest)
    answers = []
    with node.client() as client:
        for what, body, code in malformed_requests(bundle.manifest.service):
            answers.append(_answer(what, code, partial(client.post, path, content=body)))
        missing = partial(client.post, f"/{bundle.manifest.application}/v999999999/predict")
        answers.append(_answer("unknown version", "version_not_found", missing))
        answers.append(_answer("GET", "method_not_allowed", partial(client.get, path)))
        answers += _malformed_inference(client, bundle)
    return answers


def _malformed_inference(client: httpx.Client, bundle: Bundle) -> list[dict[str, Any]]:
    manifest = bundle.manifest
    path = f"/v2/models/{manifest.application}/versions/{manifest.api_version}/infer"
    answers = []
    for what, body in malformed_inference(manifest.service):
        ask = partial(client.post, path, content=body)
        answers.append(_answer(f"infer: {what}", ANY, ask))
    return answers


def _answer(what: str, expected: str, ask: Callable[[], httpx.Response]) -> dict[str, Any]:
    """What came of one request, also when a node did not live through it."""
    said: dict[str, Any] = {"request": what, "expected": expected}
    try:
        response = ask()
    except httpx.HTTPError as error:
        return {**said, "got": no_answer(error), "status": None}
    refusal = response.json().get("error") if response.is_client_error else None
    own = refusal.get("code") if isinstance(refusal, dict) else None
    code = ANY if expected == ANY and refusal else own
    status = response.status_code
    return {**said, "got": code or f"status {status}", "status": status}
