"""Definitions are module-level values in the Python files of a folder."""

import runpy
import traceback
from pathlib import Path
from typing import get_args

import msgspec

from konveyer.core.errors import KonveyerError, did_you_mean
from konveyer.feature_store.definitions.definition import Definition, kind_of, to_spec
from konveyer.feature_store.registry.errors import DefinitionsUnreadable, DuplicateDefinition


def load_definitions(folder: Path) -> tuple[Definition, ...]:
    """Run every `*.py` of `folder` (sorted, each on its own) and collect its definitions."""
    if not folder.is_dir():
        near = did_you_mean(folder.name, [path.name for path in folder.parent.glob("*/")])
        raise DefinitionsUnreadable(
            f"The definitions folder {folder} does not exist.",
            hint=near or "make it, or correct 'definitions' in konveyer.toml",
        )
    found: dict[tuple[str, str], tuple[Definition, Path]] = {}
    for path in sorted(folder.glob("*.py")):
        for definition in _definitions_in(path):
            key = (kind_of(definition), definition.name)
            known = found.get(key)
            if known is not None and known[0] is not definition:
                raise DuplicateDefinition(
                    f"{key[0]} '{key[1]}' is defined in {known[1].name} and in {path.name}.",
                    hint="rename or remove one of them",
                )
            _check_texts(definition, path)
            found[key] = (definition, path)
    return tuple(definition for definition, _ in found.values())


def _definitions_in(path: Path) -> list[Definition]:
    try:
        values = runpy.run_path(str(path))
    except KonveyerError as error:
        error.message = f"{path.name}:{_line_in(path, error)}: {error.message}"
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic in Rust, such as one of Polars, is no `Exception`
        raise DefinitionsUnreadable(
            f"{path.name}:{_line_in(path, error)}: {type(error).__name__}: {error}",
            hint="correct the file, then apply again",
        ) from error
    definitions = [value for value in values.values() if isinstance(value, get_args(Definition))]
    names = [(kind_of(definition), definition.name) for definition in definitions]
    for place, name in enumerate(names):
        if name in names[:place] and definitions[place] is not definitions[names.index(name)]:
            raise DuplicateDefinition(
                f"{path.name}: {name[0]} '{name[1]}' is defined twice.",
                hint="rename or remove one of them",
            )
    return definitions


def _check_texts(definition: Definition, path: Path) -> None:
    """Texts that are no Unicode can be neither compiled nor shown."""
    try:
        msgspec.json.encode(to_spec(definition))
    except UnicodeEncodeError as error:
        raise DefinitionsUnreadable(
            f"{path.name}: {kind_of(definition)} '{definition.name}' has half a surrogate pair in "
            f"{error.object!r}.",
            hint="write the whole character",
        ) from error


def _line_in(path: Path, error: BaseException) -> int:
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return lines[-1] or 0 if lines else 0
