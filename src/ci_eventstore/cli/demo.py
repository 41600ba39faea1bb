"""`demo`: a server, controllers and jobs to look at, in a store of their own that goes with them."""

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from ci_common.models import APIKey, Job, JobStatus, User, generate_api_key, hash_api_key, utc_now
from ci_eventstore.cli.demo_jobs import IDLE_QUEUE, PROJECT, DemoJob, demo_jobs
from ci_eventstore.cli.output import result, table
from ci_eventstore.cli.usage import ExitCode, examples
from ci_eventstore.controllers import CommandHandler, Controller, ControllerSettings, WorkFolder
from ci_eventstore.controllers.project import pack
from ci_eventstore.processes.command import without_own
from ci_eventstore.repository import RedisJobRepository

if TYPE_CHECKING:
    from ci_eventstore.web.server import WebServer

USER = "ada"
CONTROLLERS = ("demo-1", "demo-2")
PORT = 8000
#: How long one of the jobs prints: long enough to be looked at, or hardly at all.
WATCHED_SECONDS = 3600
WATCHED_SECONDS_OF_SCRIPTS = 2


@click.command(epilog=examples("demo", "demo --port 0", "demo --exit"))
@click.option(
    "--port",
    metavar="N",
    type=click.IntRange(0, 65535),
    help="The port to listen on; 0 takes any that is free.  [default: 8000, or any that is free]",
)
@click.option("--exit", "exits", is_flag=True, help="Exit when the jobs have ended: 0 if they ended as they should.")
def demo(port: int | None, exits: bool) -> int:
    """Show the page, and real jobs that it follows, until Ctrl-C.

    A store of its own, a web server and two controllers run. Real commands are the jobs of a user: some pass, one
    fails, one prints until you stop it, one waits. The page's address and the user's API key are printed.

    The store is a server of its own in a temporary folder, whatever --url says; nothing stays.
    """
    try:
        # Commands are started by asyncio's own event loop alone.
        with TemporaryDirectory(prefix="ci-eventstore-demo-") as folder, asyncio.Runner() as runner:
            return runner.run(_show(Path(folder), port, exits))
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


async def _show(folder: Path, port: int | None, exits: bool) -> int:
    """Serve the page and run the jobs until a signal comes, or all have ended if that `exits`."""
    try:
        from ci_eventstore.web import WebSettings, create_app
        from ci_eventstore.web.server import WebServer, server_config
    except ModuleNotFoundError as missing:
        text = f"demo needs {missing.name}, which isn't installed: install ci-eventstore with its extra [server]"
        raise click.ClickException(text) from None
    async with RedisJobRepository.from_url(f"embedded://{folder / 'store'}") as repository:
        key = await _create_account(repository)
        app = create_app(repository, settings=WebSettings(queues=frozenset({"default", IDLE_QUEUE})))
        with _listen(port) as listening:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            click.echo(f"page     {url}/\nAPI key  {key}\n")
            click.echo(f'curl -H "Authorization: Bearer {key}" {url}/jobs\n')
            server = WebServer(app, server_config(app))
            async with _controllers(repository), asyncio.TaskGroup() as tasks:
                jobs = await _submit(repository, WATCHED_SECONDS_OF_SCRIPTS if exits else WATCHED_SECONDS, folder)
                waiting = tasks.create_task(_wait(repository, jobs, server) if exits else _say_how_to_end())
                await server.serve(sockets=[listening])
                waiting.cancel()
        return await _report(repository, jobs) if exits else ExitCode.SUCCESS


async def _create_account(repository: RedisJobRepository) -> str:
    """Create the user, and return an API key."""
    await repository.create_user(User(id=USER, name="Ada Lovelace", email="ada@example.com", created_at=utc_now()))
    key = generate_api_key()
    await repository.create_api_key(APIKey(id=secrets.token_hex(8), user_id=USER, key_hash=hash_api_key(key)))
    return key


def _listen(port: int | None) -> socket.socket:
    from ci_eventstore.web.server import listen

    try:
        return listen("127.0.0.1", PORT if port is None else port)
    except OSError as error:
        if port is None:
            return listen("127.0.0.1", 0)
        raise OSError(f"can't listen on 127.0.0.1, port {port}: {error.strerror}") from error


@asynccontextmanager
async def _controllers(repository: RedisJobRepository) -> AsyncIterator[None]:
    """Run two controllers until this is left; then stop their jobs at once."""
    with WorkFolder() as folder:
        # Commands find this Python by its name.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        handler = CommandHandler(folder, environment={**without_own(os.environ), "PATH": path})
        settings = ControllerSettings(concurrency=2, grace_seconds=0)
        async with asyncio.TaskGroup() as tasks:
            controllers = [Controller(repository, name=name, settings=settings) for name in CONTROLLERS]
            for controller in controllers:
                tasks.create_task(_control(controller, handler))
            try:
                yield
            finally:
                handler.hurry()
                for controller in controllers:
                    controller.stop()


async def _control(controller: Controller, handler: CommandHandler) -> None:
    async with controller:
        await controller.run(handler)


async def _submit(repository: RedisJobRepository, watched_seconds: int, folder: Path) -> Mapping[str, DemoJob]:
    """Pack the project, put the jobs into their queues, and return them by their ids."""
    project, packed = folder / "project", folder / "project.zip"
    project.mkdir()
    for name, text in PROJECT.items():
        (project / name).write_text(text.lstrip())
    pack(project, packed)
    submitted = {secrets.token_hex(8): job for job in demo_jobs(Path(sys.executable).name, watched_seconds)}
    for job_id, job in submitted.items():
        await repository.create_job(
            Job(
                id=job_id,
                user_id=USER,
                status=JobStatus.QUEUED,
                zip_file_path=str(packed),
                name=job.name,
                queue=job.queue,
                command=job.command,
            )
        )
    return submitted


async def _say_how_to_end() -> None:
    click.echo("Open the page and log in with the key. Ctrl-C ends all of this; nothing stays.")


async def _wait(repository: RedisJobRepository, jobs: Mapping[str, DemoJob], server: "WebServer") -> None:
    """Stop the server when all jobs have ended but for those that nobody takes."""
    for job_id in (job_id for job_id, job in jobs.items() if job.passes is not None):
        async with aclosing(repository.follow_events(job_id)) as events:
            async for _ in events:
                pass
    server.should_exit = True


async def _report(repository: RedisJobRepository, jobs: Mapping[str, DemoJob]) -> int:
    """Print how each job ended, and return whether all ended as they should."""
    found = {job_id: await repository.get_job_summary(job_id) for job_id in jobs}
    ended = [(job_id, jobs[job_id], job) for job_id, job in found.items() if job is not None]
    rows = [(job_id, shown.name, str(JobStatus(job.status).value), result(job)) for job_id, shown, job in ended]
    click.echo(table(("ID", "NAME", "STATUS", "RESULT"), rows))
    is_right = len(ended) == len(jobs) and all(job.success is shown.passes for _, shown, job in ended)
    return ExitCode.SUCCESS if is_right else ExitCode.FAILED
