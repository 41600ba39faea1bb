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
from ci_eventstore.cli.store import find_user, uses_store
from ci_eventstore.cli.usage import argument_text, examples, job_options
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
@click.option("--queue", metavar="NAME", default="default", help="The queue that takes the job.")
@job_options
@click.option(
    "--dir",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Pack this folder, and run the command in a copy of it.",
)
@click.option(
    "--zip",
    "zip_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Run the command in a copy of this zip file's content.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@uses_store
async def submit(repository: RedisJobRepository, **options: Unpack[Options]) -> None:
    """Put a job into a queue, and print its id.

    Users take turns; each user's jobs run in the order in which they were submitted.

    --dir packs the folder's files into a zip file in ~/.local/share/ci-eventstore/files ($XDG_DATA_HOME); --zip uses a
    zip file of yours. A controller reads the file at that path when the job begins, so the file must stay, and must be
    at the same path on every machine that has a controller. Nothing removes it. Executable files stay executable. Links
    to files inside the folder become files; other links are refused.

    The command and the name aren't secret. A controller's --secret-env masks what the command prints.
    """
    if options["folder"] is not None and options["zip_file"] is not None:
        raise click.UsageError("--dir and --zip can't be used together")
    job_id = token_hex(8) if options["job_id"] is None else check_id("job id", options["job_id"])
    owner = None if options["user"] is None else await find_user(repository, options["user"])
    if await repository.get_job_summary(job_id) is not None:
        raise JobAlreadyExistsError(job_id)
    packed = None if options["folder"] is None else await _pack(options["folder"], job_id)
    project = packed
    if (zip_file := options["zip_file"]) is not None:
        check_zip(zip_file)
        project = zip_file.parent.resolve() / zip_file.name
    job = Job(
        id=job_id,
        user_id=None if owner is None else owner.id,
        status=JobStatus.QUEUED,
        zip_file_path=None if project is None else str(project),
        name=options["name"],
        queue=options["queue"],
        command=list(map(argument_text, options["command"])),
    )
    try:
        await repository.create_job(job)
    except OutcomeUnknownError:
        # If the job was created, it needs its project.
        raise
    except BaseException:
        if packed is not None:
            packed.unlink(missing_ok=True)
        raise
    click.echo(job_id)


async def _pack(folder: Path, job_id: str) -> Path:
    """Pack a folder into a zip file of its own, whichever other submit has the same id."""
    name = f"{quote(job_id, safe='')[:200]}.{token_hex(4)}.zip"
    target = data_folder() / "files" / name
    await asyncio.to_thread(pack, folder, target)
    return target


def data_folder() -> Path:
    """Return the folder of the user's data, below $XDG_DATA_HOME."""
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share").absolute() / "ci-eventstore"
