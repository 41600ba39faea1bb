"""`run`: a command as a job."""

from collections.abc import Sequence
from secrets import token_hex
from typing import TypedDict, Unpack

import click

from ci_common.models import Job, JobStatus, utc_now
from ci_eventstore.cli.job_run import JobRun
from ci_eventstore.cli.secrecy import Secrets, check_holds_none, mask_standard_error, secrets_option
from ci_eventstore.cli.store import find_user, uses_store
from ci_eventstore.cli.usage import argument_text, duration_option, examples, job_options
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
@job_options
@click.option(
    "--pty", is_flag=True, help="Run the command on a pseudo-terminal, so that it prints colours and progress bars."
)
@secrets_option("Store *** in place of this environment variable's value.")
@duration_option("--lease", "Fail the job if this program stops renewing its lease for this long.", default="30s")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@uses_store
async def run(repository: RedisJobRepository, **options: Unpack[Options]) -> int:
    """Run a command as a job.

    The command's output goes to standard output and into the job's log at once, byte for byte; its standard output and
    standard error are merged, in order. The first line on standard error is the job's id.

    Exits with the command's own code, with 128 + N if signal N killed it, with 127 if it wasn't found, with 126 if it
    can't be executed; with 4 if the command succeeded but the store failed.

    Ctrl-C, SIGTERM, SIGHUP and `ci-eventstore jobs cancel` stop the command and everything in its process group;
    processes that are left after 10 seconds, or at a second Ctrl-C, are killed. The job then ends as cancelled. After a
    second Ctrl-C this program ends within 5 seconds, whatever the store does.

    Processes that the command leaves running may still print. Their output is stored until they have been silent for 2
    seconds, or for 30 seconds at most; a line in the log then names what could still have printed.

    The job ends with this program. If this program is killed, so is the command, and the job fails as soon as its lease
    has run out and a controller, `serve`, `tail` or `jobs` notices.

    If the store is away, the command goes on, and its output waits. Whatever the store doesn't take within 10 minutes
    (5 seconds once the command was stopped) is kept in a local file, which a warning names. If the job's lease ran out
    meanwhile and the job was ended, this program says so, and exits with 4 if the command succeeded.

    --secret-env masks a secret in everything that is stored: in the log, however its output is split, in the job's name
    and in its command; also in base64, URLs, JSON and other spellings, and line by line. A secret has at least four
    characters. If the command prints a line ::add-mask::VALUE, VALUE is masked from then on, and the line itself isn't
    stored. docs/guarantees.md lists what is masked. Standard output shows what the command printed, unmasked.
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
        command=[argument_text(mask(argument)) for argument in options["command"]],
    )
    running = JobRun(repository, job, secrets, lease_seconds=options["lease"])
    return await running.execute(options["command"], pty=options["pty"])
