"""Every command explains itself, and what it says holds."""

import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from ci_common.errors import RepositoryError
from ci_eventstore.cli.program import EPILOG, program
from ci_eventstore.cli.usage import MEANINGS, ExitCode, exit_code_of
from tests.error_tree import all_errors


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and all below it, each with what one types for it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from commands(child, f"{path} {name}")


COMMANDS = dict(commands(program, "ci-eventstore"))
LEAVES = {path: command for path, command in COMMANDS.items() if not isinstance(command, click.Group)}
EXAMPLES = [
    line.strip()
    for command in COMMANDS.values()
    for line in (command.epilog or "").splitlines()
    if line.startswith("  ci-eventstore") and "COMMAND" not in line
]


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_help_with_an_example(path: str) -> None:
    """A sentence, and a call of this very command."""
    command = COMMANDS[path]
    assert (command.help or "").split("\n")[0].endswith(".")
    assert f"  {path}" in (command.epilog or "")


@pytest.mark.parametrize("path", [path for path in COMMANDS if " " in path])
def test_short_help_is_not_cut_off(path: str) -> None:
    """The list of commands shows whole sentences, on a narrow terminal too."""
    assert not COMMANDS[path].get_short_help_str(limit=62).endswith("...")


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_is_explained(path: str) -> None:
    """Each has a help text."""
    options = [parameter for parameter in COMMANDS[path].params if isinstance(parameter, click.Option)]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize("path", LEAVES)
def test_every_command_takes_the_address_of_the_store(path: str) -> None:
    """`--url` and `--prefix` may stand after any command; `copy` has two stores, and `demo` makes its own."""
    names = {parameter.name for parameter in LEAVES[path].params}
    two_stores = {"source_url", "prefix", "target_url", "to_prefix"}
    needed = {"ci-eventstore copy": two_stores, "ci-eventstore demo": set[str]()}.get(path, {"url", "prefix"})
    assert needed <= names


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_can_be_typed(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands and options of every example exist, where the variables that they name are set."""
    monkeypatch.setenv("TOKEN", "hunter2")
    words = shlex.split(example.partition(" > ")[0])
    command, context, rest = click.Command(""), None, words[1:]
    path = words[0]
    while rest and f"{path} {rest[0]}" in COMMANDS:
        path, rest = f"{path} {rest[0]}", rest[1:]
    command = COMMANDS[path]
    context = command.make_context(path, rest, **program.context_settings)
    assert context.params is not None


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.__name__)
def test_every_error_has_a_documented_code(error: type[RepositoryError]) -> None:
    """What it means stands in the program's help, and it is not the code of a failed job."""
    code = exit_code_of(error.__new__(error))
    assert code in {ExitCode.USAGE, ExitCode.NOT_FOUND, ExitCode.STORE}
    assert f"{code.value:>3}  {MEANINGS[code]}" in EPILOG


def test_without_click_it_says_what_to_install() -> None:
    """An installation without the extra has the program, too."""
    code = "import sys; sys.modules['click'] = None; from ci_eventstore.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    message = "ci-eventstore: the command line needs one more package: install ci-eventstore with its extra [cli]\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)
