"""The tree of errors, drawn from their classes: for the docstrings of their modules, and for a page."""

import inspect
import re
from collections.abc import Iterator, Sequence
from types import ModuleType

from ci_common import errors as common_errors
from ci_common.errors import RepositoryError
from ci_eventstore import errors

#: Lines of a docstring that are indented: those of its tree.
DRAWN = re.compile(r"^    .*\n(?:    .*\n|\n(?=    ))*", re.MULTILINE)

Kind = type[BaseException]


def defined_in(module: ModuleType) -> list[Kind]:
    """Return the errors of a module, in its order."""
    kinds = (value for value in vars(module).values() if isinstance(value, type) and issubclass(value, BaseException))
    return [kind for kind in kinds if kind.__module__ == module.__name__]


def all_errors() -> list[type[RepositoryError]]:
    """Return every error class of both packages."""
    members = [*vars(common_errors).values(), *vars(errors).values()]
    return [member for member in members if isinstance(member, type) and issubclass(member, RepositoryError)]


def draw(kinds: Sequence[Kind]) -> list[str]:
    """Return the tree of errors; parents that are none of them, such as those of another module, stand above them."""
    parents = [parent for kind in kinds for parent in reversed(kind.__mro__) if _is_parent(parent, kind)]
    shown = list(dict.fromkeys([*parents, *kinds]))
    tops = [kind for kind in shown if kind.__bases__[0] not in shown]
    return [line for top in tops for line in [_name(top), *_children(top, shown)]]


def _is_parent(parent: type, kind: Kind) -> bool:
    """Return whether a class is above an error by first bases alone, and none of Python's own."""
    if kind is parent or kind.__module__ == "builtins":
        return kind is parent and kind.__module__ != "builtins"
    return _is_parent(parent, kind.__bases__[0])


def _children(parent: Kind, shown: Sequence[Kind]) -> Iterator[str]:
    children = [kind for kind in shown if kind.__bases__[0] is parent]
    for child in children:
        is_last = child is children[-1]
        yield f"{'└── ' if is_last else '├── '}{_name(child)}"
        yield from (f"{'    ' if is_last else '│   '}{line}" for line in _children(child, shown))


def _name(kind: Kind) -> str:
    others = [f"{'an' if base.__name__[0] in 'AEIOU' else 'a'} {base.__name__}" for base in kind.__bases__[1:]]
    return f"{kind.__name__} (also {', '.join(others)})" if others else kind.__name__


def with_tree(source: str, kinds: Sequence[Kind]) -> str:
    """Return a module's source with the tree in its docstring drawn anew; ValueError if it has no such lines."""
    docstring = source[: source.index('"""', 3)]
    drawn = "".join(f"    {line}\n" for line in draw(kinds))
    changed, count = DRAWN.subn(lambda _: drawn, docstring, count=1)
    if not count:
        raise ValueError("the docstring draws no tree")
    return changed + source[len(docstring) :]


def page(modules: Sequence[ModuleType]) -> str:
    """Return a page with one tree of all errors, and what each of them says of itself first."""
    kinds = [kind for module in modules for kind in defined_in(module)]
    rows = [f"| `{kind.__name__}` | {first_sentence(kind)} |" for kind in kinds]
    introduction = (
        "Every error of the contract and of the store. Each module draws its part; `make docs` writes this page."
    )
    tree = "\n".join(draw(kinds))
    return "\n".join(["# Errors", "", introduction, "", f"```text\n{tree}\n```", "", "| | |", "|---|---|", *rows, ""])


def first_sentence(kind: Kind) -> str:
    """Return the first paragraph of a class's docstring, in one line."""
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())
