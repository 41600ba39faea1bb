"""`serve`: jobs over HTTP."""

import asyncio
import gc
import logging
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import TypedDict, Unpack

import click

from ci_eventstore.cli.archive import archive_after_option, archive_option, archiving
from ci_eventstore.cli.history import seal_after_option, sealing
from ci_eventstore.cli.output import say
from ci_eventstore.cli.store import head_option, uses_store
from ci_eventstore.cli.submit import data_folder
from ci_eventstore.cli.usage import examples
from ci_eventstore.cli.webhook import allow_option, sending
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.webhooks.addresses import Network

MEBIBYTE = 1024 * 1024
_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+")


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
    uds: Path | None
    trusted_proxy: tuple[str, ...]
    cors_origin: tuple[str, ...]
    access_log: bool
    seal_after: float | None
    archive_after: float | None
    archive_url: str | None
    no_webhooks: bool
    webhook_allow: list[Network]


def checked_root_path(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Return a prefix of paths with a slash in front and none at the end; click.BadParameter."""
    path = value.strip("/")
    parts = path.split("/")
    if path and not all(_SEGMENT.fullmatch(part) and part not in {".", ".."} for part in parts):
        raise click.BadParameter(f"{value!r} is no path such as /ci or /tools/ci", context, parameter)
    return f"/{path}" if path else ""


def checked_networks(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Return addresses and networks as they are; click.BadParameter for anything else."""
    for text in value:
        try:
            ip_network(text)
        except ValueError as error:
            raise click.BadParameter(str(error), context, parameter) from None
    return value


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's event loop where that is installed, else asyncio's."""
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
        "serve --uds /run/ci/web.sock --root-path /ci --access-log",
    )
)
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", help="The address to listen on.")
@click.option(
    "--port",
    metavar="N",
    type=click.IntRange(0, 65535),
    default=8000,
    help="The port to listen on; 0 takes any that is free.",
)
@click.option(
    "--no-auth", is_flag=True, help="Let everybody on this machine see and do everything; only with a loopback address."
)
@click.option(
    "--root-path",
    metavar="PATH",
    default="",
    show_default=False,
    callback=checked_root_path,
    help="The prefix that a proxy removes from paths, such as /ci.",
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
    help="The largest zip file accepted, in MiB.",
)
@click.option(
    "--max-streams",
    metavar="N",
    type=click.IntRange(min=1),
    default=100,
    help="The most live streams that one user may have open.",
)
@click.option(
    "--queue",
    metavar="NAME",
    multiple=True,
    default=("default",),
    help="A queue that users may submit to. May be repeated; '*' allows any.",
)
@click.option(
    "--keep-alive",
    metavar="SECONDS",
    type=click.IntRange(min=1),
    default=75,
    help="Keep idle connections open for this long: longer than the proxy in front does.",
)
@click.option(
    "--uds",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Listen on this Unix socket instead of an address. Everybody who may enter its folder may connect.",
)
@click.option(
    "--trusted-proxy",
    metavar="ADDRESS",
    multiple=True,
    default=("127.0.0.1", "::1"),
    callback=checked_networks,
    help="Trust this proxy, or this network of proxies, to name the client and its scheme. May be repeated. Clients of "
    "--uds are trusted, too.",
)
@click.option(
    "--cors-origin",
    metavar="ORIGIN",
    multiple=True,
    help="Let pages of this site send requests with a key: https://ci.example. May be repeated; '*' allows any.",
)
@seal_after_option
@archive_after_option
@archive_option
@click.option("--no-webhooks", is_flag=True, help="Leave the sending of webhooks to others, as to `webhook send`.")
@allow_option
@click.option("--access-log", is_flag=True, help="Print a line of JSON for each request when it has ended.")
@head_option
@partial(uses_store, loop_factory=new_event_loop)
async def serve(repository: RedisJobRepository, **options: Unpack[Options]) -> None:
    """Serve jobs over HTTP.

    Users authenticate with API keys (`key create`); browsers log in with one. Users see their own jobs; nobody sees
    jobs without an owner. With --no-auth there are no users: everybody on this machine sees all jobs, and can run
    commands if there is a controller. Pages of other sites that are open in your browser can't.

    At Ctrl-C and SIGTERM live streams end; their clients reconnect to the next server and lose nothing.

    For TLS, put a proxy such as nginx in front (docs/server.md).
    """
    try:
        from ci_eventstore.web import WebSettings, create_app, this_machine_sees_everything
        from ci_eventstore.web.authentication import LOOPBACK
        from ci_eventstore.web.server import Service, WebServer, server_config
    except ModuleNotFoundError as missing:
        text = f"serve needs {missing.name}, which isn't installed: install ci-eventstore with its extra [server]"
        raise click.ClickException(text) from None
    if options["no_auth"] and options["host"] not in LOOPBACK:
        raise click.UsageError("--no-auth is for this machine alone: leave --host out")
    if options["no_auth"] and options["cors_origin"]:
        raise click.UsageError("--no-auth is for this machine's own pages: leave --cors-origin out")
    folder = options["zip_dir"] or data_folder() / "files"
    settings = WebSettings(
        project_folder=folder.absolute(),
        max_project_bytes=options["max_zip_mib"] * MEBIBYTE,
        max_streams_per_user=options["max_streams"],
        queues=None if "*" in options["queue"] else frozenset(options["queue"]),
        cors_origins=options["cors_origin"],
        webhook_allow=tuple(map(str, options["webhook_allow"])),
    )
    service = Service(
        root_path=options["root_path"],
        keep_alive_seconds=options["keep_alive"],
        trusted_proxies=options["trusted_proxy"],
        has_access_log=options["access_log"],
    )
    if service.has_access_log:
        _write_access_log()
    authenticate = this_machine_sees_everything if options["no_auth"] else None
    app = create_app(repository, authenticate=authenticate, settings=settings)
    # All that is there by now stays: no garbage is looked for in it, over and over. A search takes a third less so.
    gc.collect()
    gc.freeze()
    with _listening(options) as listening:
        sweeping = archiving(repository, options["archive_after"], options["archive_url"])
        hooks = sending(repository, options["webhook_allow"], is_wanted=not options["no_webhooks"])
        async with repository.engine.holders.watched(), sealing(repository, options["seal_after"]), sweeping, hooks:
            await WebServer(app, server_config(app, service)).serve(sockets=[listening])


@contextmanager
def _listening(options: Options) -> Iterator[socket.socket]:
    """Listen, and print the address; OSError."""
    from ci_eventstore.web.server import listen_at

    if options["uds"] is not None:
        with listen_at(options["uds"]) as listening:
            say(f"serving on {options['uds']}")
            yield listening
        return
    with _listen(options["host"], options["port"]) as listening:
        address, port = listening.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        say(f"serving on http://{shown}:{port}{options['root_path']}")
        yield listening


def _listen(host: str, port: int) -> socket.socket:
    from ci_eventstore.web.server import listen

    try:
        return listen(host, port)
    except OSError as error:
        raise OSError(f"can't listen on {host}, port {port}: {error.strerror}") from error


def _write_access_log() -> None:
    from ci_eventstore.web import access_log

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(access_log.AsJSON())
    access_log.logger.addHandler(handler)
    access_log.logger.setLevel(logging.INFO)
    access_log.logger.propagate = False
