"""The program: all commands in one group, and how a call of it ends."""

import sys

import click

from ci_common.errors import RepositoryError
from ci_eventstore.cli.lazy_group import LazyGroup
from ci_eventstore.cli.output import discard_output, open_missing_streams, say
from ci_eventstore.cli.secrecy import receive
from ci_eventstore.cli.store import StoreAddress, store_options
from ci_eventstore.cli.usage import MEANINGS, ExitCode, exit_code_of, literally

NAME = "ci-eventstore"

EPILOG = "\n\n".join(
    (
        literally(
            "Examples:",
            "  ci-eventstore run -- make test",
            "  ci-eventstore tail 3f9c",
            "  ci-eventstore submit --dir . -- make test",
            "  ci-eventstore controller",
            "  ci-eventstore serve",
            "  ci-eventstore jobs list",
            "  ci-eventstore COMMAND --help",
        ),
        literally("Exit codes:", *(f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())),
        "`run` exits with its command's own code: 128 + N if signal N killed it, 127 if it wasn't found, 126 if it "
        "can't be executed.",
    )
)


#: The commands in the order of the help, and where they are.
COMMANDS = {
    "demo": "demo:demo",
    "run": "run:run",
    "tail": "tail:tail",
    "replay": "replay:replay",
    "export": "replay:export",
    "submit": "submit:submit",
    "controller": "controller:controller",
    "serve": "serve:serve",
    "queues": "queues:queues",
    "jobs": "jobs:jobs",
    "facts": "facts:facts",
    "webhook": "webhook:webhook",
    "user": "accounts:users",
    "key": "accounts:keys",
    "doctor": "doctor:doctor",
    "verify": "maintenance:verify",
    "rebuild": "maintenance:rebuild",
    "seal": "history:seal",
    "archive": "archive:archive",
    "verify-archive": "history:verify_archive",
    "retention": "retention:retention",
    "rules": "retention:rules",
    "copy": "moving:copy",
    "export-store": "moving:export_store",
    "import-store": "moving:import_store",
    "restored": "maintenance:restored",
    "upgrade": "maintenance:upgrade",
}


class GroupInOrder(LazyGroup):
    """Lists its commands in the order in which they are given."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names."""
        return list(self.elsewhere)


@click.group(
    cls=GroupInOrder,
    elsewhere=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@store_options
@click.version_option(package_name=NAME, message="%(prog)s %(version)s")
def program() -> None:
    """Keep CI jobs and their logs as streams of events on Redis or Valkey.

    Without --url, --url-file, CI_EVENTSTORE_URL and CI_EVENTSTORE_URL_FILE, the store is a server of its own in your
    data directory, which starts by itself and stops when nobody uses it. Commands that take a job accept the beginning
    of its id.
    """


def main() -> None:
    """Run the program with the arguments of the command line, and exit."""
    sys.exit(call(sys.argv[1:], receive()))


def call(arguments: list[str], address: StoreAddress | None = None) -> int:
    """Run the program and return its exit code; whatever goes wrong is said in one line on standard error."""
    open_missing_streams()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # whatever the terminal's encoding
    try:
        code: int | None = program.main(arguments, prog_name=NAME, standalone_mode=False, obj=address)
        sys.stdout.flush()
        return code or ExitCode.SUCCESS
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return ExitCode.INTERRUPTED
    except RepositoryError as error:
        say(str(error))
        return exit_code_of(error)
    except OSError as error:
        say(str(error))
        discard_output()
        return ExitCode.INPUT_OUTPUT
