"""The Containerfile, as far as it can be read: nothing here builds an image."""

import re
import tomllib
from pathlib import Path

from tests.deploy.kustomize import documents
from tests.deploy.test_kubernetes import KUBERNETES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy" / "Containerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions() -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE))
    lines = [line for line in joined.splitlines() if line.strip()]
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines]


def values(name: str) -> list[str]:
    return [value for instruction, value in instructions() if instruction == name]


def test_the_base_image_is_an_argument_that_names_no_host() -> None:
    (argument,) = values("ARG")
    name, _, image = argument.partition("=")
    assert values("FROM") == [f"${{{name}}} AS build", f"${{{name}}}"]
    assert re.fullmatch(r"[a-z]+:[0-9.]+[a-z-]*", image)
    assert f"python:{PROJECT['project']['requires-python'].removeprefix('>=')}" in image
    assert "://" not in TEXT


def test_it_does_not_run_as_root() -> None:
    final = [name for name, _ in instructions()][::-1]
    (user,) = values("USER")
    assert user == "10001:10001"
    assert final.index("USER") < final.index("RUN"), "nothing is run after the user is set"
    (manifest, *_) = documents(KUBERNETES / "base" / "nodes-prod.yaml")
    context = manifest["spec"]["template"]["spec"]["securityContext"]
    assert user == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert f"useradd --uid {context['runAsUser']} " in " ".join(values("RUN"))


def test_what_it_copies_is_there_and_not_ignored() -> None:
    kept = (ROOT / ".containerignore").read_text().split()
    assert kept[0] == "*"
    for copy in values("COPY"):
        sources = [one for one in copy.split()[:-1] if not one.startswith("--from")]
        for source in sources:
            assert source.startswith("/") or (ROOT / source).exists(), source
            assert source.startswith("/") or f"!{source}" in kept


def test_it_starts_a_command_that_the_package_has() -> None:
    assert values("ENTRYPOINT") == ['["konveyer"]']
    assert "konveyer" in PROJECT["project"]["scripts"]
    assert values("EXPOSE") == ["8080"]
    (workdir,) = [value for value in values("WORKDIR") if value != "/build"]
    assert f"KONVEYER_WORKSPACE={workdir}" in " ".join(values("ENV"))


def test_it_installs_what_is_locked_and_nothing_else() -> None:
    installs = [run for run in values("RUN") if "pip install" in run]
    assert len(installs) == 2
    assert "--require-hashes --requirement requirements.lock" in installs[0]
    assert "--no-deps --no-build-isolation" in installs[1]
    locked = pins(ROOT / "requirements.lock")
    image = pins(ROOT / "deploy" / "requirements.lock")
    assert image.items() <= locked.items(), "run 'make lock'"
    needed = {re.split(r"[<>=\[;]", one)[0] for one in PROJECT["project"]["dependencies"]}
    assert needed <= set(image)
    assert {"lightgbm", "redis", "psycopg", "setuptools"} <= set(image)
    assert not {"kubernetes-validate", "moto", "mypy", "pyspark"} & set(image)


def pins(lock: Path) -> dict[str, str]:
    return dict(
        re.findall(r"^([a-z0-9-]+)(?:\[[^\]]*\])?==([^ ]+)", lock.read_text(), re.MULTILINE)
    )
