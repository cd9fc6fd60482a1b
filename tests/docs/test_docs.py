"""What the documents say runs, and every command that they name exists."""

import re
import runpy
import tomllib
from pathlib import Path

import click
import pytest

from konveyer.cli.main import cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (document.name, block)
        for document in DOCUMENTS
        for block in re.findall(rf"```{language}\n(.*?)```", document.read_text(), re.DOTALL)
    ]


@pytest.mark.parametrize(("name", "code"), blocks("python"))
def test_python_runs(name: str, code: str, tmp_path: Path) -> None:
    file = tmp_path / "snippet.py"
    file.write_text(code)
    assert runpy.run_path(str(file))


@pytest.mark.parametrize(("name", "code"), blocks("toml"))
def test_toml_parses(name: str, code: str) -> None:
    assert tomllib.loads(code)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(document: Path) -> None:
    code = re.findall(r"`(konveyer [^`]*)`|^(konveyer [^\n#]*)", document.read_text(), re.MULTILINE)
    for line in (inline or block for inline, block in code):
        command: click.Command = cli
        words = [word for word in line.split()[1:] if re.fullmatch(r"[a-z][a-z-]+", word)]
        for word in words:
            if not isinstance(command, click.Group) or "profile" in line:
                break
            assert word in command.commands, f"{document.name}: {line}"
            command = command.commands[word]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target
