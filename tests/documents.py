"""Documents that are made from the code: `make docs` writes them, and a test compares them with what it would write."""

from collections.abc import Iterator
from pathlib import Path

import click

from ci_eventstore.cli.program import program

COMMANDS = Path(__file__).parents[1] / "docs" / "cli.md"
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


if __name__ == "__main__":
    COMMANDS.write_text(render_commands())
