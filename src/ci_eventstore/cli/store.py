"""Open the store that a command works on, and find in it what the user means."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import click

from ci_common.errors import JobNotFoundError, UserNotFoundError
from ci_common.models import User
from ci_eventstore.amounts import format_size, parse_size
from ci_eventstore.cli.output import discard_output, saying_warnings_of
from ci_eventstore.cli.usage import ExitCode
from ci_eventstore.connection.deployments import given_url, read_url
from ci_eventstore.errors import ConfigurationError
from ci_eventstore.events.append import HEAD_BYTES
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.settings import Access, GivenSettings

PREFIX_VARIABLE = "CI_EVENTSTORE_PREFIX"
ACCESS_VARIABLE = "CI_EVENTSTORE_ACCESS"
DEFAULT_PREFIX = "ci"
HEAD_VARIABLE = "CI_EVENTSTORE_MAX_HEAD_BYTES"
REPLICAS_VARIABLE = "CI_EVENTSTORE_REPLICAS"

P = ParamSpec("P")
R = TypeVar("R")
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class StoreAddress:
    """The store's address on the command line; None for what isn't given."""

    url: str | None = None
    url_file: str | None = None
    prefix: str | None = None
    max_head_bytes: str | None = None
    #: Whether this process runs nothing but this call, and so may start its program again.
    owns_process: bool = False
    #: The URL of a program that was started again without it.
    hidden_url: str | None = None
    was_started_again: bool = False

    def find_url(self) -> str | None:
        """Return the URL from the command line or the environment, None for the default; ConfigurationError."""
        if self.hidden_url is not None:
            return self.hidden_url
        if self.url == "":
            raise ConfigurationError("--url is empty: leave it out, or say where the store is")
        if self.url is not None and self.url_file is not None:
            raise ConfigurationError("--url and --url-file can't be used together")
        if self.url_file is not None:
            return read_url(Path(self.url_file))
        return self.url or given_url()

    def settings(self) -> GivenSettings:
        """Return the settings that the command line and the environment give; ConfigurationError."""
        prefix = self.prefix if self.prefix is not None else os.environ.get(PREFIX_VARIABLE) or DEFAULT_PREFIX
        access = cast(Access, os.environ.get(ACCESS_VARIABLE) or "write")
        given = GivenSettings(prefix=prefix, max_head_bytes=self._head_bytes(), access=access)
        if replicas := _replicas():
            given |= GivenSettings(durability="replicated", replicas=replicas)
        return given

    def _head_bytes(self) -> int:
        text = self.max_head_bytes or os.environ.get(HEAD_VARIABLE)
        try:
            return parse_size(text) if text else HEAD_BYTES
        except ValueError as error:
            where = "--max-head-bytes" if self.max_head_bytes else HEAD_VARIABLE
            raise ConfigurationError(f"{where}: {error}") from None


def _replicas() -> int:
    """Return how many replicas must have each write."""
    text = os.environ.get(REPLICAS_VARIABLE) or "0"
    if not text.isdecimal():
        raise ConfigurationError(f"{REPLICAS_VARIABLE}={text} must be a number of replicas")
    return int(text)


pass_address = click.make_pass_decorator(StoreAddress, ensure=True)


def _keep(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None and parameter.name is not None:
        address = context.find_object(StoreAddress) or StoreAddress()
        changes: dict[str, Any] = {parameter.name: value}
        context.obj = replace(address, **changes)


def store_options(function: Function) -> Function:
    """Give a command --url, --url-file and --prefix; they may stand before the command as well as after it."""
    option = partial(click.option, expose_value=False, callback=_keep)
    url = option(
        "--url",
        metavar="URL",
        help="The store's address: embedded://PATH, redis://, rediss://, valkey://, valkeys:// or unix://PATH, "
        "redis+sentinel://HOST,HOST/NAME or redis+cluster://HOST,HOST and their like.  "
        "[env: CI_EVENTSTORE_URL; default: embedded, in ~/.local/share/ci-eventstore]",
    )
    url_file = option(
        "--url-file",
        metavar="FILE",
        help="Read the URL from this file, which keeps it out of the list of processes.  [env: CI_EVENTSTORE_URL_FILE]",
    )
    text = "The name of the store on that server.  [env: CI_EVENTSTORE_PREFIX; default: ci]"
    return url(url_file(option("--prefix", metavar="NAME", help=text)(function)))


def head_option(function: Function) -> Function:
    """Give a command that writes logs --max-head-bytes."""
    option = click.option(
        "--max-head-bytes",
        metavar="SIZE",
        expose_value=False,
        callback=_keep,
        help="Keep this much of a log's beginning, such as 1GiB. Of the rest, only the end is kept; a line says what "
        f"is left out.  [env: {HEAD_VARIABLE}; default: {format_size(HEAD_BYTES)}]",
    )
    return option(function)


def uses_store(
    function: Callable[Concatenate[RedisJobRepository, P], Coroutine[Any, Any, int | None]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> Callable[P, int | None]:
    """Make a command of a coroutine function that takes the open repository and returns the exit code."""

    @wraps(function)
    async def work(address: StoreAddress, /, *args: P.args, **kwargs: P.kwargs) -> int | None:
        async with RedisJobRepository.from_url(address.find_url(), **address.settings()) as repository:
            return await function(repository, *args, **kwargs)

    return uses_address(work, loop_factory)


def uses_address(
    function: Callable[Concatenate[StoreAddress, P], Coroutine[Any, Any, int | None]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> Callable[P, int | None]:
    """Make a command of a coroutine function that takes the store's address and returns the exit code."""

    @pass_address
    @wraps(function)
    def call(address: StoreAddress, /, *args: P.args, **kwargs: P.kwargs) -> int | None:
        try:
            with saying_warnings_of("ci_eventstore.connection"), asyncio.Runner(loop_factory=loop_factory) as runner:
                return runner.run(function(address, *args, **kwargs))
        except KeyboardInterrupt:
            return ExitCode.INTERRUPTED
        except BrokenPipeError:
            discard_output()
            return ExitCode.BROKEN_PIPE

    return store_options(call)


async def find_job(repository: RedisJobRepository, beginning: str) -> str:
    """Return the id of the one job whose id begins so; AmbiguousPrefixError.

    An unknown beginning comes back as it is: the call that uses it reports what is missing, the job or its projection.
    """
    try:
        return await repository.resolve_job_id(beginning)
    except JobNotFoundError:
        return beginning


async def find_user(repository: RedisJobRepository, id_or_email: str) -> User:
    """Return the user of that id, else of that email; UserNotFoundError."""
    user = await repository.get_user(id_or_email) or await repository.get_user_by_email(id_or_email)
    if user is None:
        raise UserNotFoundError(id_or_email)
    return user
