"""`submit`: a job for the controllers."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import TypedDict, Unpack
from urllib.parse import quote

import click

from ci_common.errors import JobAlreadyExistsError
from ci_common.models import Job, JobStatus
from ci_common.validation import check_id
from ci_eventstore.cli.help import examples
from ci_eventstore.cli.store import find_user, uses_store
from ci_eventstore.controllers.project import check_zip, pack
from ci_eventstore.errors import OutcomeUnknownError
from ci_eventstore.repository import RedisJobRepository


class Options(TypedDict):
    """What the command line says of a job."""

    queue: str
    name: str | None
    user: str | None
    job_id: str | None
    folder: Path | None
    zip_file: Path | None
    command: Sequence[str]


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog=examples(
        "submit -- make test",
        "submit --queue slow --user ada@example.com --dir . -- ./build.sh --all",
        "submit --zip project.zip -- sh -c 'make && make install'",
    ),
)
@click.option(
    "--queue", metavar="NAME", default="default", show_default=True, help="The queue, whose controllers run the job."
)
@click.option("--name", metavar="TEXT", help="What the job is called.")
@click.option(
    "--user", metavar="USER", help="Whose job it is: an id or an email. Without it, no API key sees the job over HTTP."
)
@click.option("--id", "job_id", metavar="ID", help="The job's id; a random one if it is left out.")
@click.option(
    "--dir",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Pack this folder; the command is run in a copy of it.",
)
@click.option(
    "--zip", "zip_file", metavar="FILE", type=click.Path(path_type=Path), help="Use this zip file in the same way."
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@uses_store
async def submit(repository: RedisJobRepository, **options: Unpack[Options]) -> None:
    """Put a job into a queue, and print its id.

    Controllers take the jobs of a queue: each user's in the order in which they were submitted, users in turn.

    With --dir, the folder's files are packed into a zip file in ~/.local/share/ci-eventstore/files ($XDG_DATA_HOME);
    with --zip, yours is used. Controllers read it where it is, when the job begins, so it has to stay, and on several
    machines to be in the same place; nothing removes it. Files stay executable. Links to files inside of the folder
    become files; other links are refused.

    Neither the command nor the name are secret; a controller's --secret-env masks what the command prints.
    """
    if options["folder"] is not None and options["zip_file"] is not None:
        raise click.UsageError("--dir and --zip can't be used together")
    job_id = token_hex(8) if options["job_id"] is None else check_id("job id", options["job_id"])
    owner = None if options["user"] is None else await find_user(repository, options["user"])
    if await repository.get_job_summary(job_id) is not None:
        raise JobAlreadyExistsError(job_id)
    packed = None if options["folder"] is None else await _pack(options["folder"], job_id)
    project = packed if options["zip_file"] is None else _checked(options["zip_file"])
    job = Job(
        id=job_id,
        user_id=None if owner is None else owner.id,
        status=JobStatus.QUEUED,
        zip_file_path=None if project is None else str(project),
        name=options["name"],
        queue=options["queue"],
        command=[_as_text(argument) for argument in options["command"]],
    )
    try:
        await repository.create_job(job)
    except OutcomeUnknownError:
        # The job may be there, and then needs its project.
        raise
    except BaseException:
        if packed is not None:
            packed.unlink(missing_ok=True)
        raise
    click.echo(job_id)


async def _pack(folder: Path, job_id: str) -> Path:
    """Pack a folder, and return the zip file; another submit of the same id makes another one."""
    name = f"{quote(job_id, safe='')[:200]}.{token_hex(4)}.zip"
    target = data_folder() / "files" / name
    await asyncio.to_thread(pack, folder, target)
    return target


def _checked(zip_file: Path) -> Path:
    check_zip(zip_file)
    return zip_file.parent.resolve() / zip_file.name


def data_folder() -> Path:
    """Return where the user's data is kept."""
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share").absolute() / "ci-eventstore"


def _as_text(argument: str) -> str:
    """Return an argument with U+FFFD for bytes that aren't UTF-8."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
