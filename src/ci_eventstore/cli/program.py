"""The program: all commands in one group, and how a call of it ends."""

import sys

import click

from ci_common.errors import RepositoryError
from ci_eventstore.cli.accounts import keys, users
from ci_eventstore.cli.archive import archive, archive_one, unarchive
from ci_eventstore.cli.controller import controller
from ci_eventstore.cli.demo import demo
from ci_eventstore.cli.doctor import doctor
from ci_eventstore.cli.facts import facts
from ci_eventstore.cli.grep import grep
from ci_eventstore.cli.history import seal, segment, verify_archive
from ci_eventstore.cli.jobs import jobs
from ci_eventstore.cli.maintenance import rebuild, restored, upgrade, verify
from ci_eventstore.cli.moving import copy, export_store, import_store
from ci_eventstore.cli.output import discard_output, open_missing_streams, say
from ci_eventstore.cli.queues import queues
from ci_eventstore.cli.replay import export, replay
from ci_eventstore.cli.retention import retention, rules
from ci_eventstore.cli.run import run
from ci_eventstore.cli.secrecy import receive
from ci_eventstore.cli.serve import serve
from ci_eventstore.cli.store import StoreAddress, store_options
from ci_eventstore.cli.submit import submit
from ci_eventstore.cli.tail import tail
from ci_eventstore.cli.usage import MEANINGS, ExitCode, exit_code_of, literally
from ci_eventstore.cli.webhook import webhook

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


class GroupInOrder(click.Group):
    """Lists its commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names."""
        return list(self.commands)


@click.group(
    cls=GroupInOrder,
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


for command in (
    *(demo, run, tail, replay, export, submit, controller, serve, queues, jobs, facts, webhook, users, keys),
    *(doctor, verify, rebuild, seal, archive, verify_archive, retention, rules),
    *(copy, export_store, import_store, restored, upgrade),
):
    program.add_command(command)
for command in (grep, segment, archive_one, unarchive):
    jobs.add_command(command)


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
