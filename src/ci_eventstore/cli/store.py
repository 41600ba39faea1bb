"""Open the store that a command works on, and find in it what the user means."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import click

from ci_common.errors import JobNotFoundError, UserNotFoundError
from ci_common.models import User
from ci_eventstore.cli.output import discard_output, saying_warnings_of
from ci_eventstore.cli.usage import ExitCode
from ci_eventstore.connection.deployments import Deployment, default_url, from_url, given_url, read_url
from ci_eventstore.errors import ConfigurationError
from ci_eventstore.events.append import HEAD_BYTES
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.settings import Access, GivenSettings

PREFIX_VARIABLE = "CI_EVENTSTORE_PREFIX"
ACCESS_VARIABLE = "CI_EVENTSTORE_ACCESS"
DEFAULT_PREFIX = "ci"
HEAD_VARIABLE = "CI_EVENTSTORE_MAX_HEAD_BYTES"

P = ParamSpec("P")
R = TypeVar("R")
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class StoreAddress:
    """Where the store is, as the command line says; None where it says nothing."""

    url: str | None = None
    url_file: str | None = None
    prefix: str | None = None
    #: Whether this process runs nothing but this call, so that it may start its program again.
    owns_process: bool = False
    #: What the command line doesn't show, as it would be seen there.
    hidden_url: str | None = None
    was_started_again: bool = False

    def find_url(self) -> str | None:
        """Return the store's URL as the command line or the environment say; None: the default. ConfigurationError."""
        if self.hidden_url is not None:
            return self.hidden_url
        if self.url == "":
            raise ConfigurationError("--url is empty: leave it out, or say where the store is")
        if self.url is not None and self.url_file is not None:
            raise ConfigurationError("--url and --url-file can't be used together")
        if self.url_file is not None:
            return read_url(Path(self.url_file))
        return self.url or given_url()

    def deployment(self) -> Deployment:
        """Return where the store is; ConfigurationError."""
        return from_url(self.find_url() or default_url())

    def settings(self) -> GivenSettings:
        """Return how the store is to be opened; ConfigurationError."""
        prefix = self.prefix if self.prefix is not None else os.environ.get(PREFIX_VARIABLE) or DEFAULT_PREFIX
        access = cast(Access, os.environ.get(ACCESS_VARIABLE) or "write")
        return GivenSettings(prefix=prefix, max_head_bytes=_max_head_bytes(), access=access)

    def repository(self) -> RedisJobRepository:
        """Return the repository, not open yet; ConfigurationError."""
        return RedisJobRepository.from_url(self.find_url(), **self.settings())


def _max_head_bytes() -> int:
    text = os.environ.get(HEAD_VARIABLE) or str(HEAD_BYTES)
    if not text.isdecimal():
        raise ConfigurationError(f"{HEAD_VARIABLE}={text!r} must be a number of bytes")
    return int(text)


pass_address = click.make_pass_decorator(StoreAddress, ensure=True)


def _keep(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None and parameter.name is not None:
        address = context.find_object(StoreAddress) or StoreAddress()
        changes: dict[str, Any] = {parameter.name: value}
        context.obj = replace(address, **changes)


_url_option = click.option(
    "--url",
    metavar="URL",
    expose_value=False,
    callback=_keep,
    help="The store's address: embedded://PATH, redis://, rediss://, valkey://, valkeys:// or unix://PATH.  "
    "[env: CI_EVENTSTORE_URL; default: embedded, in ~/.local/share/ci-eventstore]",
)
_url_file_option = click.option(
    "--url-file",
    metavar="FILE",
    expose_value=False,
    callback=_keep,
    help="Read the URL from this file, which keeps it out of the list of processes.  [env: CI_EVENTSTORE_URL_FILE]",
)
_prefix_option = click.option(
    "--prefix",
    metavar="NAME",
    expose_value=False,
    callback=_keep,
    help="The name of the store on that server.  [env: CI_EVENTSTORE_PREFIX; default: ci]",
)


def store_options(function: Function) -> Function:
    """Give a command --url, --url-file and --prefix; they may stand before the command as well as after it."""
    return _url_option(_url_file_option(_prefix_option(function)))


def uses_store(
    function: Callable[Concatenate[RedisJobRepository, P], Coroutine[Any, Any, int | None]],
) -> Callable[P, int | None]:
    """Make a command of a coroutine function that is given the open repository and returns the exit code."""
    return uses_store_on(function, asyncio.new_event_loop)


def uses_store_on(
    function: Callable[Concatenate[RedisJobRepository, P], Coroutine[Any, Any, int | None]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> Callable[P, int | None]:
    """Do what `uses_store` does, on an event loop of a certain kind."""

    @wraps(function)
    async def work(address: StoreAddress, /, *args: P.args, **kwargs: P.kwargs) -> int | None:
        async with address.repository() as repository:
            return await function(repository, *args, **kwargs)

    return uses_address(work, loop_factory)


def uses_address(
    function: Callable[Concatenate[StoreAddress, P], Coroutine[Any, Any, int | None]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> Callable[P, int | None]:
    """Make a command of a coroutine function that is told where the store is, and returns the exit code."""

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
    """Return the id of the one job that begins so; AmbiguousPrefixError.

    What isn't known is returned as it is: whoever uses it says that it is missing, or that its projection is.
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
