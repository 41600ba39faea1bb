"""Documents that are made from the code: `make docs` writes them, and a test compares them with what it would write."""

from collections.abc import Iterator
from pathlib import Path

import click

import ci_common.errors
import ci_eventstore.errors
from ci_eventstore import keys
from ci_eventstore.cli.program import program
from tests import error_tree, key_table, room_picture
from tests.unit.structure.imports import all_imports
from tests.unit.structure.rooms import graph_of, picture
from tests.unit.structure.source import source_modules

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
    return picture(graph_of(all_imports(source_modules())))


def documents() -> dict[Path, str]:
    """Return the text that each document should have: pages, and pages with parts that are made."""
    return {
        COMMANDS: render_commands(),
        ARCHITECTURE: with_part(ARCHITECTURE.read_text(), "rooms", render_rooms()),
        FORMAT: with_part(FORMAT.read_text(), "keys", key_table.table(keys.__doc__ or "")),
        ROOMS: room_picture.drawn(graph_of(all_imports(source_modules()))),
        ERRORS: error_tree.page(MODULES_OF_ERRORS),
        **{path: error_tree.with_tree(path.read_text(), kinds) for path, kinds in _errors()},
    }


def _errors() -> Iterator[tuple[Path, list[error_tree.Kind]]]:
    for module in MODULES_OF_ERRORS:
        yield Path(module.__file__ or ""), error_tree.defined_in(module)


def with_part(page: str, name: str, text: str) -> str:
    """Return a page with another text between the comments that name a part; ValueError if it lacks them."""
    begin, end = f"<!-- {name}: made by make docs -->\n", f"<!-- end of {name} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page has no part {name!r}")
    head, _, rest = page.partition(begin)
    return f"{head}{begin}\n{text}\n\n{end}{rest.partition(end)[2]}"


if __name__ == "__main__":
    for path, text in documents().items():
        path.write_text(text)
