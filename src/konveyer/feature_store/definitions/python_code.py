"""The source text of a Python function, which is what a definition keeps of it."""

import __future__

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from konveyer.feature_store.definitions.errors import BadDefinition


def code_of(function: Callable[..., Any] | str, *, where: str) -> str:
    """The text of one self-contained function; what it imports, it imports inside.

    Text is taken as it is once it has been checked, so that a definition survives the catalog.
    """
    if isinstance(function, str):
        code = function
    else:
        try:
            code = textwrap.dedent(inspect.getsource(function))
        except (OSError, TypeError) as error:
            raise BadDefinition(
                f"{where}: the source of its function cannot be read.",
                hint="write it with `def` in the definitions file",
            ) from error
    _function_in(code, where)
    return code


def arguments_of(code: str) -> tuple[str, ...]:
    """The names of the function's arguments, in order.

    >>> arguments_of("def share(part, whole):\\n    return {'share': part / whole}")
    ('part', 'whole')
    """
    return tuple(argument.arg for argument in _function_in(code, "the function").args.args)


def callable_of(code: str) -> Callable[..., Any]:
    """The function that the text defines; nothing but the text is visible to it.

    >>> callable_of("def double(x):\\n    return 2 * x")(4)
    8
    """
    names: dict[str, Any] = {}
    # Annotations stay text: they may name what the function does not need when it runs.
    compiled = compile(
        code, "<definition>", "exec", __future__.annotations.compiler_flag, dont_inherit=True
    )
    exec(compiled, names)  # noqa: S102 - code that was reviewed
    function: Callable[..., Any] = names[_function_in(code, "the function").name]
    return function


def _function_in(code: str, where: str) -> ast.FunctionDef:
    try:
        body = ast.parse(code).body
    except SyntaxError as error:
        raise BadDefinition(f"{where}: its function does not parse: {error}.") from error
    if len(body) != 1 or not isinstance(body[0], ast.FunctionDef) or body[0].decorator_list:
        raise BadDefinition(
            f"{where}: its function must be one plain `def`.",
            hint="no lambda, no method, no decorator; import inside the function what it needs",
        )
    return body[0]
