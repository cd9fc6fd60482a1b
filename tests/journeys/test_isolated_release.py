"""A model that no node can run itself goes from training to production, in its own process."""

import httpx

from tests.serving_nodes import running_below
from tests.support import Shop, node, wait_for

PROJECT = "models/coupon_response"
PATH = "/coupon-response/v1"
MODEL = '''
"""The first feature, as a share: a class of the project."""

import numpy as np


class Share:
    def __init__(self, most):
        self.most = most

    def predict(self, features):
        first = np.nan_to_num(features[:, 0])
        return np.clip(first / self.most, 0.0, 1.0)


def train(features, labels, names, categorical, parameters):
    return Share(float(np.nanmax(features[:, 0])))
'''
TEST = '''
"""It gives a share."""

import numpy as np

from model import train


def test_it_gives_a_share() -> None:
    features = np.array([[1.0], [4.0], [np.nan]])
    assert train(features, None, ["a"], [], {}).predict(features).tolist() == [0.25, 1.0, 0.0]
'''


def test_a_python_class_is_released_and_served_in_a_process_of_its_own(shop: Shop) -> None:
    project = shop.root / PROJECT
    (project / "model.py").write_text(MODEL.lstrip())
    (project / "tests" / "test_model.py").write_text(TEST.lstrip())
    toml = project / "model.toml"
    toml.write_text(toml.read_text() + "\n[isolated]\nmemory_mb = 256\nlimit_ms = 5000\n")
    shop.run("train", PROJECT, profile="ana")
    release = shop.run("submit", PROJECT, profile="ana")
    assert release["state"] == "review", release
    assert "runs as isolated: Share has no compiled form" in release["stages"][0]["measured"]
    release = shop.run("release", "approve", release["id"], profile="boris")
    assert release["state"] == "live", release
    command = shop.command("serve", "prod", "--port", "0", "--processes", "2")
    with (
        node(command, shop.root, "prod") as (url, process),
        httpx.Client(base_url=url, headers=shop.caller("prod"), timeout=10) as client,
    ):
        wait_for(lambda: client.get(PATH).is_success)
        model = client.get(PATH).json()["model"]
        assert model == {"form": "isolated", "reason": "Share has no compiled form"}

        def answered() -> httpx.Response:
            return client.post(f"{PATH}/predict", json={"household_id": 1})

        first = answered().raise_for_status().json()["prediction"]
        assert 0 <= first <= 1
        ours = running_below(process.pid, "konveyer.bundle.native.family")
        assert len(ours) == 2, "a family and a worker"
        worker = max(ours, key=lambda one: one.create_time())
        worker.kill()
        wait_for(lambda: not worker.is_running())
        wait_for(lambda: answered().is_success)
        assert answered().json()["prediction"] == first
        ours += running_below(process.pid, "konveyer.bundle.native.family")
    wait_for(lambda: not any(one.is_running() for one in ours))
