"""`run`: a command as a job."""

from collections.abc import Sequence
from secrets import token_hex
from typing import TypedDict, Unpack

import click

from ci_common.models import Job, JobStatus, utc_now
from ci_eventstore.cli.durations import read_duration
from ci_eventstore.cli.help import examples
from ci_eventstore.cli.job_run import JobRun
from ci_eventstore.cli.secret_variables import Secrets, check_holds_none, mask_standard_error, read_secrets
from ci_eventstore.cli.store import find_user, uses_store
from ci_eventstore.repository import RedisJobRepository


class Options(TypedDict):
    """What the command line says of a job."""

    name: str | None
    user: str | None
    job_id: str | None
    pty: bool
    secrets: Secrets
    lease: float
    command: Sequence[str]


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog=examples(
        "run -- make test",
        "run --name nightly --user ada@example.com -- ./build.sh --all",
        "run --pty -- npm test",
        "run --secret-env TOKEN -- ./deploy.sh",
        "run --id build-42 -- sh -c 'make && make install'",
    ),
)
@click.option("--name", metavar="TEXT", help="What the job is called.")
@click.option(
    "--user", metavar="USER", help="Whose job it is: an id or an email. Without it, no API key sees the job over HTTP."
)
@click.option("--id", "job_id", metavar="ID", help="The job's id; a random one if it is left out.")
@click.option(
    "--pty", is_flag=True, help="Run the command on a pseudo-terminal, so that it shows colours and progress."
)
@click.option(
    "--secret-env",
    "secrets",
    metavar="NAME",
    multiple=True,
    callback=read_secrets,
    help="Store *** for the value of this environment variable; may be given several times.",
)
@click.option(
    "--lease",
    metavar="TIME",
    callback=read_duration,
    default="30s",
    show_default=True,
    help="If this program doesn't renew its lease for this long, its job fails.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@uses_store
async def run(repository: RedisJobRepository, **options: Unpack[Options]) -> int:
    """Run a command as a job.

    What it prints goes to standard output and into the job's log, at once, byte for byte; its standard output and
    error come together, in their order. The job's id is the first thing on standard error.

    Exits with the command's own code, 128 + N if signal N killed it, 127 if it wasn't found, 126 if it can't be
    executed; with 4 if the command succeeded and the store failed.

    Ctrl-C, SIGTERM, SIGHUP, and `ci-eventstore jobs cancel` from elsewhere stop the command and all that it started
    in its process group; what is left after 10 seconds, or at a second Ctrl-C, is killed. The job ends as cancelled,
    when the command has ended. After a second Ctrl-C this program ends within 5 seconds, whatever the store does.

    When the command has ended, what it has left behind may still print: that is stored until nothing comes for 2
    seconds, or 30 are over; then a line in the log says what could still have printed.

    The job ends with this program: if that is killed, so is the command, and the job fails when the lease has run out
    and a controller, `serve`, `tail` or `jobs` looks.

    While the store is away, the command goes on, and its output and its end wait. What the store doesn't take within 10
    minutes (5 seconds once the command was stopped) is kept in a local file, which a warning names. If the job was
    ended meanwhile, as its lease had run out, this program says so, and exits with 4 if the command succeeded.

    --secret-env masks a secret in all that is stored: in the log, however the secret is split, in the job's name and in
    its command; in base64, URLs, JSON and other spellings too, and each line of several. It has four characters or
    more. A line ::add-mask::VALUE that the command prints masks VALUE from then on, and isn't stored itself.
    docs/guarantees.md says what is masked. Standard output stays as the command printed it.
    """
    secrets, job_id, name, user = options["secrets"].texts, options["job_id"], options["name"], options["user"]
    mask = mask_standard_error(secrets)
    if job_id is not None:
        check_holds_none("--id", job_id, mask)
    owner = None if user is None else await find_user(repository, user)
    now = utc_now()
    job = Job(
        id=token_hex(8) if job_id is None else job_id,
        user_id=None if owner is None else owner.id,
        status=JobStatus.RUNNING,
        start_time=now,
        created_at=now,
        name=None if name is None else mask(name),
        command=[_as_text(mask(argument)) for argument in options["command"]],
    )
    running = JobRun(repository, job, secrets, lease_seconds=options["lease"])
    return await running.execute(options["command"], pty=options["pty"])


def _as_text(argument: str) -> str:
    """Return an argument with U+FFFD for bytes that aren't UTF-8."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
