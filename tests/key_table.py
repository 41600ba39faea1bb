"""The table of keys, from the docstring of the module that names them."""

import re

#: `{ci:0}:name:<part>   type: what it holds`, which may go on in lines that are indented more.
LINE = re.compile(r"^ {4}\{ci:0\}:(\S+) +([a-z][a-z ]*): (.*(?:\n {8,}\S.*)*)$", re.MULTILINE)


def keys_of(docstring: str) -> list[tuple[str, str, str]]:
    """Return name, type and content of each key of a partition; the accounts' keys share a line of another form."""
    return [(name, kind, " ".join(text.split())) for name, kind, text in LINE.findall(docstring)]


def table(docstring: str) -> str:
    """Return the keys as a table."""
    rows = [f"| `<tag>:{name}` | {kind} | {text} |" for name, kind, text in keys_of(docstring)]
    return "\n".join(["| key | type | holds |", "|---|---|---|", *rows])
