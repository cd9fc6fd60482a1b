"""The manifests are valid, and mean what the code means: ports, paths, commands, settings."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from konveyer.cli.main import cli
from konveyer.core.settings import Settings, parse_settings
from konveyer.core.variables import variables_of
from konveyer.execution.serving.node import STOP_WITHIN_S
from konveyer.node_wiring import NodePlaces
from konveyer.wiring import ONLINE_STORES, STORAGES
from tests.deploy.kustomize import Manifest, containers, documents, named, rendered

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.parent for path in KUBERNETES.glob("overlays/*/kustomization.yaml"))
VERSIONS = ("1.29", "1.33")
DOCUMENT = (ROOT / "docs" / "deploy.md").read_text()


@pytest.fixture(scope="module", params=OVERLAYS, ids=lambda path: path.name)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return rendered(request.param)


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = (manifest for manifest in manifests if named(manifest) == (kind, name))
    return found


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def settings_of(manifests: list[Manifest]) -> Settings:
    text = one(manifests, "ConfigMap", "konveyer")["data"]["konveyer.toml"]
    return parse_settings(text.encode(), root=Path("/workspace"))


def nodes(manifests: list[Manifest]) -> list[Manifest]:
    found = of_kind(manifests, "Deployment")
    return [one for one in found if "konveyer/environment" in one["metadata"]["labels"]]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_fits_the_schema_of_kubernetes(
    manifests: list[Manifest], version: str
) -> None:
    assert len(manifests) > 12
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_kustomize_itself_gives_the_same(overlay: Path) -> None:
    command = ["kubectl", "kustomize", str(overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if "unknown command" in done.stderr:
        pytest.skip("this kubectl has no kustomize")
    assert done.returncode == 0, done.stderr
    text = re.sub(r"konveyer-[0-9a-z]{10}\b(?=\n)", "konveyer", done.stdout)
    theirs = {named(manifest): manifest for manifest in yaml.safe_load_all(text)}
    assert theirs == {named(manifest): manifest for manifest in rendered(overlay)}


def test_every_file_of_the_base_is_used() -> None:
    (own,) = documents(KUBERNETES / "base" / "kustomization.yaml")
    files = {path.name for path in (KUBERNETES / "base").iterdir()} - {"kustomization.yaml"}
    assert files == {*own["resources"], "konveyer.toml"}


def test_commands_exist_and_take_these_arguments(manifests: list[Manifest]) -> None:
    for deployment in of_kind(manifests, "Deployment"):
        for container in containers(deployment):
            assert "command" not in container, "the image's entry point is konveyer"
            name, *arguments = container["args"]
            command = cli.commands[name]
            parsed = command.make_context(name, arguments, parent=click.Context(cli))
            if name == "serve":
                assert parsed.params["environment"] in settings_of(manifests).environments


def test_settings_parse_and_name_backends_that_are_there(manifests: list[Manifest]) -> None:
    settings = settings_of(manifests)
    assert NodePlaces(settings, "prod").is_apart
    assert settings.storage.url.partition(":")[0] in STORAGES
    assert settings.bundles.url.partition(":")[0] in STORAGES
    assert settings.online.url.partition(":")[0] in ONLINE_STORES


def test_containers_have_the_variables_that_settings_take(manifests: list[Manifest]) -> None:
    """Also those that PostgreSQL's library and the S3 client look for, and the node's own."""
    url = settings_of(manifests).online.url
    wanted = set(re.findall(r"\$\{(\w+)\}", url))
    assert variables_of(url, dict.fromkeys(wanted, "x"), setting="online")
    wanted |= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    for deployment in of_kind(manifests, "Deployment"):
        is_node = deployment in nodes(manifests)
        own = {"KONVEYER_NODE_URL"} if is_node else {"PGUSER", "PGPASSWORD"}
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            assert wanted | own <= {variable["name"] for variable in container["env"]}
    (option,) = (p for p in cli.commands["serve"].params if p.name == "url")
    assert option.envvar == "KONVEYER_NODE_URL"


def test_no_secret_is_written_down_and_each_is_documented(manifests: list[Manifest]) -> None:
    assert of_kind(manifests, "Secret") == []
    for deployment in of_kind(manifests, "Deployment"):
        for container in containers(deployment):
            for variable in container.get("env", ()):
                source = variable.get("valueFrom", {}).get("secretKeyRef")
                secret_like = re.search("PASSWORD|SECRET|KEY|USER", variable["name"])
                assert bool(secret_like) <= (source is not None), variable["name"]
                if source is not None:
                    assert f"`{source['name']}`" in DOCUMENT
                    assert f"`{source['key']}`" in DOCUMENT


def test_ports_are_those_that_are_listened_on(manifests: list[Manifest]) -> None:
    settings = settings_of(manifests)
    for deployment in of_kind(manifests, "Deployment"):
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            for port in container.get("ports", ()):
                assert port == {"name": "http", "containerPort": settings.portal.port}
    for deployment in nodes(manifests):
        environment = deployment["metadata"]["labels"]["konveyer/environment"]
        assert settings.listen(environment).port == 8080
    for service in of_kind(manifests, "Service"):
        assert [port["targetPort"] for port in service["spec"]["ports"]] == ["http"]
        labels = [
            d["spec"]["template"]["metadata"]["labels"] for d in of_kind(manifests, "Deployment")
        ]
        assert sum(service["spec"]["selector"].items() <= one.items() for one in labels) == 1


def test_probes_ask_what_a_node_and_the_portal_answer(manifests: list[Manifest]) -> None:
    for deployment in nodes(manifests):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        for probe, path in {
            "startupProbe": "/health/live",
            "livenessProbe": "/health/live",
            "readinessProbe": "/health/ready",
        }.items():
            assert container[probe]["httpGet"] == {"path": path, "port": "http"}
        (pause,) = container["lifecycle"]["preStop"]["exec"]["command"][1:]
        grace_s = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert grace_s > float(pause) + STOP_WITHIN_S + 30, "time to ship the prediction log"
    (portal,) = containers(one(manifests, "Deployment", "konveyer-portal"))
    assert portal["readinessProbe"]["httpGet"]["path"] == "/health/ready"


def test_a_node_has_as_many_processes_as_cores_are_asked_for(manifests: list[Manifest]) -> None:
    """Left alone it would start one for each core of the machine, which it shares."""
    for deployment in nodes(manifests):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        name, *arguments = container["args"]
        command = cli.commands[name]
        parsed = command.make_context(name, arguments, parent=click.Context(cli))
        assert str(parsed.params["processes"]) == container["resources"]["requests"]["cpu"]


def test_production_scales_and_is_replaced_without_a_gap(manifests: list[Manifest]) -> None:
    deployment = one(manifests, "Deployment", "konveyer-prod")
    scaler = one(manifests, "HorizontalPodAutoscaler", "konveyer-prod")["spec"]
    budget = one(manifests, "PodDisruptionBudget", "konveyer-prod")["spec"]
    assert scaler["scaleTargetRef"]["name"] == "konveyer-prod"
    assert scaler["minReplicas"] <= scaler["maxReplicas"]
    assert "replicas" not in deployment["spec"]  # else each apply would undo what the scaler did
    assert budget["selector"] == deployment["spec"]["selector"]
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    worker = one(manifests, "Deployment", "konveyer-worker")["spec"]
    assert (worker["replicas"], worker["strategy"]) == (1, {"type": "Recreate"})


@pytest.mark.parametrize("folder", ["base", "overlays/production"])
def test_production_survives_the_loss_of_a_machine(folder: str) -> None:
    """A trial has one node, and does not."""
    manifests = rendered(KUBERNETES / folder)
    deployment = one(manifests, "Deployment", "konveyer-prod")["spec"]
    fewest = one(manifests, "HorizontalPodAutoscaler", "konveyer-prod")["spec"]["minReplicas"]
    budget = one(manifests, "PodDisruptionBudget", "konveyer-prod")["spec"]
    assert fewest >= 2
    assert set(budget) == {"maxUnavailable", "selector"}
    assert 1 <= budget["maxUnavailable"] < fewest  # with 0 no machine could be emptied
    (spread,) = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["maxSkew"]) == ("kubernetes.io/hostname", 1)
    assert spread["labelSelector"] == deployment["selector"]


def test_pods_may_do_nothing_that_they_need_not(manifests: list[Manifest]) -> None:
    for deployment in of_kind(manifests, "Deployment"):
        pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(deployment):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]) == {"requests", "limits"}
    policies = of_kind(manifests, "NetworkPolicy")
    for deployment in of_kind(manifests, "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        selected = [
            p["spec"]["podSelector"]["matchLabels"].items() <= labels.items() for p in policies
        ]
        assert sum(selected) == 1
    # Who is not named comes in nowhere.
    rules = [rule for policy in policies for rule in policy["spec"].get("ingress", ())]
    assert all(rule["from"] for rule in rules)


def test_a_node_writes_only_where_it_may(manifests: list[Manifest]) -> None:
    """Its root is read-only: all that it writes is below `state`, or temporary, or in memory."""
    for deployment in nodes(manifests):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        mounts = {one["mountPath"]: one for one in container["volumeMounts"]}
        settings = settings_of(manifests)
        assert str(settings.state) in mounts
        assert str(settings.root / "konveyer.toml") in mounts
        assert "/tmp" in mounts
        environment = deployment["metadata"]["labels"]["konveyer/environment"]
        assert NodePlaces(settings, environment).root.is_relative_to(settings.state)
        variables = {one["name"]: one.get("value", "") for one in container["env"]}
        assert Path(variables["UV_CACHE_DIR"]).is_relative_to(settings.state)
