"""Nodes that serve two bundles from one folder."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from konveyer.bundle.store import Bundle
from tests.serving_nodes import Node, serving
from tests.serving_space import ServingSpace, new_space

OPEN = '[environments.prod]\nkeys = "open"\n'


@pytest.fixture(scope="session")
def made_space(tmp_path_factory: pytest.TempPathFactory) -> ServingSpace:
    """Published features and two packed bundles; not to be changed."""
    space = new_space(tmp_path_factory.mktemp("serving") / "space", OPEN)
    space.publish()
    space.pack(1)
    space.pack(2)
    return space


@pytest.fixture
def space(made_space: ServingSpace, tmp_path: Path) -> ServingSpace:
    """A copy for one test, which serves the first bundle."""
    shutil.copytree(made_space.root, tmp_path / "space")
    copy = ServingSpace(tmp_path / "space")
    copy.desire(copy.pack(1))
    return copy


@pytest.fixture
def first(space: ServingSpace) -> Bundle:
    return space.pack(1)


@pytest.fixture
def second(space: ServingSpace) -> Bundle:
    return space.pack(2)


@pytest.fixture(scope="module")
def made_node(made_space: ServingSpace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node of one process that several tests ask."""
    root = tmp_path_factory.mktemp("node") / "space"
    shutil.copytree(made_space.root, root)
    copy = ServingSpace(root)
    copy.desire(copy.pack(1))
    with serving(copy, processes=1) as node:
        yield node
