"""How many processes a node has."""

import os
from pathlib import Path
from typing import Any

import pytest

from konveyer.core.settings import load_settings
from konveyer.execution.serving import node
from konveyer.node_wiring import serve_node


@pytest.mark.parametrize(
    ("setting", "asked", "expected"), [("", None, 3), ("processes = 5", None, 5), ("", 2, 2)]
)
def test_a_node_has_as_many_processes_as_cores_unless_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, asked: int | None, expected: int
) -> None:
    """Cores are those that it may use: a container may not use all of its machine."""
    started: dict[str, Any] = {}
    monkeypatch.setattr(node, "run_node", lambda _, **options: started.update(options))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 4, 6}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    (tmp_path / "konveyer.toml").write_text(
        f'[workspace]\nname = "cores"\n[environments.prod]\n{setting}\n'
    )
    serve_node(load_settings(tmp_path), "prod", host=None, port=None, processes=asked)
    assert started["processes"] == expected
