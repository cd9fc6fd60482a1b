"""Clients of the Open Inference Protocol and of the OpenAPI document, against a real node."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import numpy as np
import pytest
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from konveyer.bundle.manifest import Serving
from tests.faults.conftest import OPEN
from tests.serving_nodes import Node, serving
from tests.serving_space import NAMES, features_of, new_space

NUMBER, CITY = NAMES[0], next(name for name in NAMES if name.endswith("city"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Every feature may be given."""
    space = new_space(tmp_path_factory.mktemp("inference") / "space", OPEN)
    space.publish(200)
    space.desire(space.pack(1, serving=Serving(given=tuple(NAMES))))
    with serving(space, processes=1) as node:
        yield node


@pytest.fixture
def client(node: Node) -> Iterator[triton.InferenceServerClient]:
    made = triton.InferenceServerClient(node.url.removeprefix("http://"))
    yield made
    made.close()


def ours(node: Node, *bodies: Mapping[str, object]) -> list[float]:
    with node.client() as asked:
        return [
            asked.post("/scoring/v1/predict", json=body).json()["prediction"] for body in bodies
        ]


def tensor(name: str, values: np.ndarray, kind: str, *, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput(name, list(values.shape), kind)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("scoring")
    assert client.is_model_ready("scoring", "1")
    assert not client.is_model_ready("scoring", "7")
    assert client.get_server_metadata()["name"] == "konveyer"
    model = client.get_model_metadata("scoring")
    assert model["versions"] == ["1"]
    assert model["inputs"][0] == {"name": "client_id", "datatype": "INT64", "shape": [-1]}
    assert {"name": CITY, "datatype": "BYTES", "shape": [-1]} in model["inputs"]
    assert model["outputs"] == [{"name": "prediction", "datatype": "FP64", "shape": [-1]}]


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize("binary", [True, False])
def test_rows_by_key(
    client: triton.InferenceServerClient, node: Node, shape: tuple[int, ...], binary: bool
) -> None:
    keys = np.array([1, 2, 3], dtype=np.int64).reshape(shape)
    asked = [triton.InferRequestedOutput("prediction", binary_data=binary)]
    result = client.infer(
        "scoring", [tensor("client_id", keys, "INT64", binary=binary)], outputs=asked
    )
    expected = ours(node, *({"client_id": key} for key in (1, 2, 3)))
    assert result.as_numpy("prediction").tolist() == expected
    default = client.infer("scoring", [tensor("client_id", keys, "INT64")], model_version="1")
    assert default.as_numpy("prediction").tolist() == expected


@pytest.mark.parametrize(
    ("of_all", "of_one", "expected"),
    [(True, None, True), (True, False, False), (False, True, True), (None, None, False)],
)
def test_an_output_is_binary_as_it_says_or_as_the_request_says(
    node: Node, of_all: bool | None, of_one: bool | None, expected: bool
) -> None:
    body: dict[str, object] = {
        "inputs": [{"name": "client_id", "datatype": "INT64", "shape": [1], "data": [1]}],
        "outputs": [
            {"name": "prediction"}
            | ({} if of_one is None else {"parameters": {"binary_data": of_one}})
        ],
    }
    if of_all is not None:
        body["parameters"] = {"binary_data_output": of_all}
    with node.client() as client:
        answer = client.post("/v2/models/scoring/infer", json=body)
    assert answer.status_code == 200, answer.text
    assert ("inference-header-content-length" in answer.headers) is expected


def test_given_values_of_every_type(client: triton.InferenceServerClient, node: Node) -> None:
    rows = [features_of(client_id) for client_id in (5, 6)]
    inputs = []
    for name in NAMES:
        values = [row[name] for row in rows]
        if name.endswith("city"):
            inputs.append(tensor(name, np.array(values, dtype=np.object_), "BYTES"))
        elif name == NUMBER:
            inputs.append(tensor(name, np.array(values, dtype=np.float32), "FP32"))
        else:
            inputs.append(tensor(name, np.array(values, dtype=np.float64), "FP64"))
    result = client.infer("scoring", inputs)
    single = [{**row, NUMBER: float(np.float32(row[NUMBER]))} for row in rows]
    assert result.as_numpy("prediction").tolist() == ours(node, *single)
    json_inputs = [
        tensor(name, np.array([row[name] for row in rows]).astype(object), "BYTES", binary=False)
        if name.endswith("city")
        else tensor(name, np.array([row[name] for row in single]), "FP64", binary=False)
        for name in NAMES
    ]
    assert client.infer("scoring", json_inputs).as_numpy("prediction").tolist() == ours(
        node, *single
    )


def test_nan_is_null(client: triton.InferenceServerClient, node: Node) -> None:
    keys = tensor("client_id", np.array([1], dtype=np.int64), "INT64")
    value = tensor(NUMBER, np.array([np.nan]), "FP64")
    result = client.infer("scoring", [keys, value])
    assert result.as_numpy("prediction").tolist() == ours(node, {"client_id": 1, NUMBER: None})


def test_mistakes_are_clear(client: triton.InferenceServerClient) -> None:
    keys = tensor("client_id", np.array([1], dtype=np.int64), "INT64")
    for inputs, model, words in (
        ([keys], "scorin", "did you mean 'scoring'"),
        ([tensor("client", np.array([1], dtype=np.int64), "INT64")], "scoring", "client"),
        ([tensor("client_id", np.array([1.5]), "FP64")], "scoring", "not int64"),
        (
            [tensor("client_id", np.array([10**9], dtype=np.int64), "INT64")],
            "scoring",
            "No features",
        ),
        ([keys, tensor(NUMBER, np.array([1.0, 2.0]), "FP64")], "scoring", "numbers of rows"),
        ([tensor("client_id", np.zeros((2, 2), dtype=np.int64), "INT64")], "scoring", "[rows, 1]"),
    ):
        with pytest.raises(InferenceServerException, match=words.replace("[", r"\[")):
            client.infer(model, inputs)
    for version in ("0", "2"):
        with pytest.raises(InferenceServerException, match=f"no version v{version} here"):
            client.infer("scoring", [keys], model_version=version)
    with pytest.raises(InferenceServerException, match="no output"):
        client.infer("scoring", [keys], outputs=[triton.InferRequestedOutput("nothing")])
    for binary in (True, False):
        twice = [triton.InferRequestedOutput("prediction", one) for one in (True, binary)]
        with pytest.raises(InferenceServerException, match="'prediction' is asked for twice"):
            client.infer("scoring", [keys], outputs=twice)


def test_bodies_that_lie_about_their_tensors_get_a_4xx(node: Node) -> None:
    head = b'{"inputs":[{"name":"client_id","shape":[1],"datatype":"INT64","parameters":%b}]}'
    with node.client() as client:
        for parameters, length in (
            (b'{"binary_data_size":8}', 10_000),
            (b'{"binary_data_size":8000}', None),
            (b'{"binary_data_size":-1}', None),
            (b'{"binary_data_size":7}', None),
            (b'{"binary_data_size":"8"}', None),
            (b"{}", None),
        ):
            body = head % parameters
            sent = str(len(body) if length is None else length)
            answer = client.post(
                "/v2/models/scoring/infer",
                content=body + b"1234567",
                headers={"inference-header-content-length": sent},
            )
            assert answer.status_code in (400, 422), answer.text
            assert isinstance(answer.json()["error"], str)


def test_the_snippet_of_the_document_runs(node: Node) -> None:
    text = (Path(__file__).parents[2] / "docs/execution.md").read_text()
    (code,) = re.findall(r"```py\n(.*?)```", text, re.DOTALL)
    here = (
        ("127.0.0.1:8081", node.url.removeprefix("http://")),
        ("coupon-response", "scoring"),
        ("household_id", "client_id"),
        (', headers={"X-API-Key": KEY}', ""),
    )
    for theirs, ours_ in here:
        assert theirs in code
        code = code.replace(theirs, ours_)
    found: dict[str, np.ndarray] = {}
    exec(code + "client.close()", found)
    assert found["predictions"].tolist() == ours(node, {"client_id": 1}, {"client_id": 7})


def test_the_openapi_document_is_valid_and_fuzzing_finds_no_5xx(node: Node, tmp_path: Path) -> None:
    import jsonschema
    from jsonschema.validators import validator_for

    document = httpx.get(node.url + "/openapi.json").json()
    assert document == httpx.get(node.url + "/scoring/v1/openapi.json").json()
    for path in ("/scoring/v1/predict", "/v2/models/scoring/versions/1/infer"):
        row = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        schema = row["schema"]
        validator_for(schema, default=jsonschema.Draft202012Validator).check_schema(schema)
        example = row["examples"]["one"]["value"]
        jsonschema.validate(example, schema)
        assert httpx.post(node.url + path, json=example).is_success
    checks = "not_a_server_error,status_code_conformance,response_schema_conformance"
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run"),
            *(node.url + "/openapi.json", "--url", node.url, "--checks", checks),
            *("--max-examples", "30", "--seed", "1", "--generation-database", "none"),
            *("--phases", "examples,coverage,fuzzing"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    assert "5xx" not in node.log()


def test_tensors_that_are_nested_or_of_endless_digits_are_refused_at_once(node: Node) -> None:
    tensor = b'{"inputs":[{"name":"client_id","datatype":"FP64","shape":[1],"data":[%b]}]}'
    asked = tensor[:-1] % b"1" + b',"outputs":[{"name":"%b"}]}'
    deep = b"[" * 900 + b"1" + b"]" * 900 + b",0" * 400_000
    with node.client() as client:
        for content, headers in (
            (tensor % deep, {}),
            (tensor % b"1".ljust(400, b"0"), {}),
            (tensor % b"1", {"inference-header-content-length": "9" * 5000}),
            ((tensor % b"1").replace(b"client_id", b"client_id" * 100_000), {}),
            (asked % (b"prediction" * 90_000), {}),
        ):
            answer = client.post("/v2/models/scoring/infer", content=content, headers=headers)
            assert answer.status_code == 422, answer.text
            assert answer.elapsed.total_seconds() < 5
            assert len(answer.text) < 2000
