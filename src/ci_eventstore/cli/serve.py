"""`serve`: jobs over HTTP."""

import asyncio
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack

import click

from ci_eventstore.cli.help import examples
from ci_eventstore.cli.messages import say
from ci_eventstore.cli.store import uses_store_on
from ci_eventstore.cli.submit import data_folder
from ci_eventstore.repository import RedisJobRepository

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
MEBIBYTE = 1024 * 1024


class Options(TypedDict):
    """What the command line says of a web server."""

    host: str
    port: int
    no_auth: bool
    root_path: str
    zip_dir: Path | None
    max_zip_mib: int
    max_streams: int
    queue: tuple[str, ...]
    keep_alive: int


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop: uvloop's, where it is installed."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


@click.command(
    epilog=examples(
        "serve",
        "serve --host 0.0.0.0 --port 8080 --zip-dir /srv/ci/files",
        "serve --no-auth",
        "serve --root-path /ci",
    )
)
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    metavar="N",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="The port to listen on; 0 takes any that is free.",
)
@click.option(
    "--no-auth", is_flag=True, help="Let everybody on this machine see and do everything; only with a loopback address."
)
@click.option(
    "--root-path", metavar="PATH", default="", help="The prefix that a proxy removes from paths, such as /ci."
)
@click.option(
    "--zip-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The folder for uploaded zip files.  [default: ~/.local/share/ci-eventstore/files]",
)
@click.option(
    "--max-zip-mib",
    metavar="N",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="The largest zip file accepted, in MiB.",
)
@click.option(
    "--max-streams",
    metavar="N",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="The most live streams that one user may have open.",
)
@click.option(
    "--queue",
    metavar="NAME",
    multiple=True,
    default=("default",),
    help="A queue that users may put jobs into; may be given several times; '*': any.  [default: default]",
)
@click.option(
    "--keep-alive",
    metavar="SECONDS",
    type=click.IntRange(min=1),
    default=75,
    show_default=True,
    help="How long a connection may be idle: longer than a proxy in front keeps it.",
)
@partial(uses_store_on, loop_factory=new_event_loop)
async def serve(repository: RedisJobRepository, **options: Unpack[Options]) -> None:
    """Serve jobs over HTTP.

    Users send their API keys (`key create`); browsers log in with one. A user sees their own jobs; jobs without a user
    are seen by nobody. With --no-auth there are no users: everybody on this machine sees all jobs, and can run commands
    if there is a controller; pages of other sites that are open in your browser can't.

    At Ctrl-C and SIGTERM live streams end; their clients reconnect to the next server and lose nothing.

    TLS is left to a proxy in front, such as nginx (docs/server.md).
    """
    try:
        from ci_eventstore.web import WebSettings, create_app, this_machine_sees_everything
        from ci_eventstore.web.server import WebServer, listen, server_config
    except ModuleNotFoundError as missing:
        text = f"serve needs {missing.name}, which isn't installed: install ci-eventstore with its extra [server]"
        raise click.ClickException(text) from None
    if options["no_auth"] and options["host"] not in LOOPBACK:
        raise click.UsageError("--no-auth is for this machine alone: leave --host out")
    folder = options["zip_dir"] or data_folder() / "files"
    settings = WebSettings(
        project_folder=folder.absolute(),
        max_project_bytes=options["max_zip_mib"] * MEBIBYTE,
        max_streams_per_user=options["max_streams"],
        queues=None if "*" in options["queue"] else frozenset(options["queue"]),
    )
    authenticate = this_machine_sees_everything if options["no_auth"] else None
    app = create_app(repository, authenticate=authenticate, settings=settings)
    with listen(options["host"], options["port"]) as listening:
        address, port = listening.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        say(f"serving on http://{shown}:{port}{options['root_path']}")
        async with repository.parts.holders.watched():
            await WebServer(app, server_config(app, options["root_path"], options["keep_alive"])).serve(
                sockets=[listening]
            )
