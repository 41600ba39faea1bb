"""What commands have in common on the command line: exit codes, examples, durations."""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

import click

from ci_common.errors import AlreadyExistsError, ConflictError, InvalidInputError, NotFoundError, RepositoryError
from ci_eventstore.amounts import parse_duration
from ci_eventstore.errors import AmbiguousPrefixError, ConfigurationError

Function = TypeVar("Function", bound=Callable[..., Any])


class ExitCode(IntEnum):
    """The codes that the program itself exits with; `run` adds those of its command."""

    SUCCESS = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    STORE = 4
    INPUT_OUTPUT = 74
    NOT_EXECUTABLE = 126
    COMMAND_NOT_FOUND = 127
    #: To which the number of a signal is added.
    SIGNAL = 128
    INTERRUPTED = 130
    BROKEN_PIPE = 141


#: As help shows it.
MEANINGS = {
    ExitCode.SUCCESS: "success",
    ExitCode.FAILED: "the job failed or was cancelled; verify or doctor found something; grep found nothing",
    ExitCode.USAGE: "wrong usage or input, or the job's state forbids it; nothing was done",
    ExitCode.NOT_FOUND: "there is no such job, user, key or webhook, or it was deleted",
    ExitCode.STORE: "the store can't be reached, isn't suitable, or failed",
    ExitCode.INPUT_OUTPUT: "output can't be written, as on a full disk",
    ExitCode.INTERRUPTED: "ended by Ctrl-C",
    ExitCode.BROKEN_PIPE: "the reader of the output has gone",
}

_USAGE_ERRORS = (InvalidInputError, AlreadyExistsError, ConflictError, ConfigurationError, AmbiguousPrefixError)


def exit_code_of(error: RepositoryError) -> ExitCode:
    """Return the code that an error of the repository ends the program with."""
    if isinstance(error, _USAGE_ERRORS):
        return ExitCode.USAGE
    return ExitCode.NOT_FOUND if isinstance(error, NotFoundError) else ExitCode.STORE


def exit_code_of_process(returncode: int) -> int:
    """Return a process's exit code as a shell would: 128 and its number for one that a signal killed."""
    return returncode if returncode >= 0 else ExitCode.SIGNAL - returncode


def literally(*lines: str) -> str:
    """Return a paragraph whose lines click doesn't join."""
    return "\n".join(("\b", *lines))


def examples(*commands: str) -> str:
    """Return the examples that end a command's help."""
    return literally("Examples:", *(f"  ci-eventstore {command}" for command in commands))


def duration_option(name: str, text: str, **settings: Any) -> Callable[[Function], Function]:
    """Return an option that takes a duration, and gives the command its seconds; `settings` are those of click's."""
    return click.option(name, metavar="TIME", callback=_read_duration, help=text, **settings)


def _read_duration(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


def job_options(function: Function) -> Function:
    """Give a command --name, --user and --id, which say what the job that it makes is called and whose it is."""
    name = click.option("--name", metavar="TEXT", help="The job's name, for people.")
    text = "The user who owns the job: an id or an email. Without an owner, no API key sees the job over HTTP."
    user = click.option("--user", metavar="USER", help=text)
    job_id = click.option("--id", "job_id", metavar="ID", help="The job's id.  [default: a random one]")
    return name(user(job_id(function)))


def argument_text(argument: str) -> str:
    """Return an argument with U+FFFD for bytes that aren't UTF-8."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
