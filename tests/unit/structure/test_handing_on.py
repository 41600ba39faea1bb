"""No function only hands its arguments on to another one."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.unit.structure.source import Module, parse, source_modules

#: Functions that do so, by where they stand, and why that is no hop.
FACES: Mapping[str, str] = {
    "ci_eventstore.connection.exchange.ReplyStream.write": "redis-py calls it",
    "ci_eventstore.controllers.claimed_job.ClaimedJob.write": "opens the log on the way",
    "ci_eventstore.engine.Engine.hurry": "its time limit is its own",
    "ci_eventstore.writer.log_writer.LogWriter.hurry": "its time limit is its own",
    "ci_eventstore.writer.log_writer.LogWriter.masked": "its masker is its own",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_in(node: ast.AST, outer: str) -> Iterator[tuple[str, Function]]:
    """Yield all functions in a part of the code, each with its qualified name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | Function):
            name = f"{outer}.{child.name}"
            if isinstance(child, Function):
                yield name, child
            yield from functions_in(child, name)


def only_hands_on(function: Function) -> bool:
    """Return whether a function does nothing but call another one of ours with the arguments that it was given.

    Functions without arguments have nothing to hand on; a decorated one does what its decorator does; and one that
    calls a builtin or a method of its argument gives that a name.
    """
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    names += [argument.arg for argument in (given.vararg, given.kwarg) if argument is not None]
    handed = [name for name in names if name not in ("self", "cls")]
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not handed or function.decorator_list or len(body) != 1 or not isinstance(body[0], ast.Return | ast.Expr):
        return False
    call = body[0].value.value if isinstance(body[0].value, ast.Await) else body[0].value
    if not isinstance(call, ast.Call) or not _is_plain(call.func, handed):
        return False
    arguments = [argument.value if isinstance(argument, ast.Starred) else argument for argument in call.args]
    arguments += [keyword.value for keyword in call.keywords]
    return [argument.id if isinstance(argument, ast.Name) else None for argument in arguments] == handed


def _is_plain(callee: ast.expr, given: Iterable[str]) -> bool:
    """Return whether a function is named by names alone, and isn't one of an argument's own."""
    while isinstance(callee, ast.Attribute):
        callee = callee.value
    return isinstance(callee, ast.Name) and callee.id not in given


def handing_on(modules: Iterable[Module]) -> list[str]:
    """Return the functions of modules that only hand on."""
    return [
        name
        for module in modules
        for name, function in functions_in(module.tree, module.name)
        if only_hands_on(function)
    ]


def test_nothing_only_hands_on() -> None:
    """A function does something of its own; those that needn't are all there still."""
    assert sorted(handing_on(source_modules())) == sorted(FACES)


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("def f(a, b):\n    return g(a, b)", True),
        ('async def f(a, *b):\n    """Do it."""\n    await x.y.g(a, *b)', True),
        ("class C:\n    def f(self, a):\n        return self.part.f(a=a)", True),
        ("def f(a, b):\n    return g(b, a)", False),
        ("def f(a):\n    return g(a, 1)", False),
        ("def f(a):\n    return g(a).h(a)", False),
        ("def f(a):\n    return a.g(a)", False),
        ("@cache\ndef f(a):\n    return g(a)", False),
        ("def f():\n    return g()", False),
        ("def f(a):\n    check(a)\n    return g(a)", False),
    ],
)
def test_a_hop_is_found(tmp_path: Path, text: str, is_found: bool) -> None:
    """Nothing but a call, with the same arguments in the same order."""
    (tmp_path / "part.py").write_text(text)
    assert bool(handing_on([parse(tmp_path / "part.py", tmp_path)])) is is_found
