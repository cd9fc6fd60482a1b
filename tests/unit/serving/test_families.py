"""What the processes of isolated models are given."""

from pathlib import Path

import pytest

from konveyer.bundle.manifest import ISOLATED, LOCK, ModelSpec
from konveyer.bundle.store import Bundle
from konveyer.core.settings import parse_settings
from konveyer.execution.serving import families
from konveyer.execution.serving.families import Families
from tests.manifests import manifest_with
from tests.support import wait_for

SETTINGS = b"""
[workspace]
name = "shop"
[databases.crm]
url = "postgresql://reader:${CRM_PASSWORD}@crm/clients"
[environments.prod]
online = "redis://:${REDIS_PASSWORD}@redis"
"""
SECRETS = {"CRM_PASSWORD", "REDIS_PASSWORD", "AWS_SECRET_ACCESS_KEY", "KONVEYER_TOKEN"}


def test_models_do_not_see_credentials_of_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, python = tmp_path / "seen", tmp_path / "python"
    python.write_text(f"#!/bin/sh\nenv > {seen}.part\nmv {seen}.part {seen}\n")
    python.chmod(0o755)
    monkeypatch.setattr(families, "ensure_environment", lambda *_: python)
    for name in [*SECRETS, "HTTPS_PROXY"]:
        monkeypatch.setenv(name, "something")
    manifest = manifest_with(files={LOCK: "sha256:1"}, model=ModelSpec(form=ISOLATED))
    bundle = Bundle(digest="sha256:0", path=tmp_path, manifest=manifest)
    kept = Families(tmp_path, tmp_path, parse_settings(SETTINGS, root=tmp_path).secrets)

    def has_started() -> bool:
        kept.reconcile([bundle])
        return seen.exists()

    try:
        wait_for(has_started)
    finally:
        kept.stop()
    names = {line.partition("=")[0] for line in seen.read_text().splitlines()}
    assert names & SECRETS == set()
    assert {"PATH", "HTTPS_PROXY"} <= names
