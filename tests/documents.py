"""Documents that are made from the code: `make docs` writes them, and a test compares them with what it would write."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import click

import ci_common.errors
import ci_eventstore.errors
from ci_eventstore import keys
from ci_eventstore.cli.program import program
from tests import error_tree, key_table, room_picture
from tests.unit.structure.imports import imports_of_sources
from tests.unit.structure.rooms import graph_of, picture

DOCS = Path(__file__).parents[1] / "docs"
COMMANDS = DOCS / "cli.md"
ARCHITECTURE = DOCS / "architecture.md"
ERRORS = DOCS / "errors.md"
FORMAT = DOCS / "format.md"
ROOMS = DOCS / "pictures" / "rooms.svg"
MODULES_OF_ERRORS = (ci_common.errors, ci_eventstore.errors)
INTRODUCTION = "# Commands\n\nWhat `--help` says of each; `make docs` writes this page.\n"


def render_commands() -> str:
    """Return the page that documents every command."""
    parts = [f"## {path}\n\n```text\n{help_text}\n```\n" for path, help_text in _help(program, "ci-eventstore")]
    return "\n".join([INTRODUCTION, *parts])


def _help(command: click.Command, path: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    name = path.rsplit(" ", 1)[-1]
    context = click.Context(command, parent, info_name=name, terminal_width=100, **command.context_settings)
    yield path, command.get_help(context).rstrip()
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _help(child, f"{path} {name}", context)


def render_rooms() -> str:
    """Return the picture of the rooms, as the imports draw it."""
    return picture(graph_of(imports_of_sources()))


def _with_tree(module: ModuleType) -> str:
    return error_tree.with_tree(_file_of(module).read_text(), error_tree.defined_in(module))


def _file_of(module: ModuleType) -> Path:
    return Path(module.__file__ or "")


#: What returns the text that each document should have: pages, and pages with parts that are made.
DOCUMENTS: dict[Path, Callable[[], str]] = {
    COMMANDS: render_commands,
    ARCHITECTURE: lambda: with_part(ARCHITECTURE.read_text(), "rooms", render_rooms()),
    FORMAT: lambda: with_part(FORMAT.read_text(), "keys", key_table.table(keys.__doc__ or "")),
    ROOMS: lambda: room_picture.drawn(graph_of(imports_of_sources())),
    ERRORS: lambda: error_tree.page(MODULES_OF_ERRORS),
    **{_file_of(module): partial(_with_tree, module) for module in MODULES_OF_ERRORS},
}


def with_part(page: str, name: str, text: str) -> str:
    """Return a page with another text between the comments that name a part; ValueError if it lacks them."""
    begin, end = f"<!-- {name}: made by make docs -->\n", f"<!-- end of {name} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page has no part {name!r}")
    head, _, rest = page.partition(begin)
    return f"{head}{begin}\n{text}\n\n{end}{rest.partition(end)[2]}"


if __name__ == "__main__":
    for path, render in DOCUMENTS.items():
        path.write_text(render())
