"""The tree of errors that the module's docstring draws."""

import inspect

import ci_eventstore.errors as module


def drawn_parents() -> dict[str, str]:
    """Return each drawn error's parent."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (module.__doc__ or "").splitlines()[2:]:
        name = line.lstrip("│├└─ ").split(" ")[0]
        depth = len(line) - len(line.lstrip("│├└─ "))
        if not name:
            continue
        above = [(its_depth, its_name) for its_depth, its_name in above if its_depth < depth]
        if above:
            parents[name] = above[-1][1]
        above.append((depth, name))
    return parents


def test_the_tree_in_the_docstring_is_true() -> None:
    """The docstring names every error of the module, and draws each under its first base class."""
    errors = {name: kind for name, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, Exception)}
    drawn = drawn_parents()
    assert drawn == {name: errors[name].__bases__[0].__name__ for name in drawn}
    assert {name for name, kind in errors.items() if kind.__module__ == module.__name__} <= drawn.keys()
