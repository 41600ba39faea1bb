"""One embedded server for all tests here, and a store of its own on it for each."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ci_eventstore import Difference, RedisJobRepository
from ci_eventstore.cli import program
from tests.acceptance.command_line import CommandLine, Ended
from tests.acceptance.warm_start import WarmProgram
from tests.contract.deployments import new_prefix
from tests.examples import is_thorough
from tests.servers import RealServer, find_valkey

HIDDEN = frozenset({"CI_EVENTSTORE_URL", "CI_EVENTSTORE_PREFIX", "COLUMNS", "PYTHONUNBUFFERED", "PYTHONWARNINGS"})


@pytest.fixture(scope="session")
def embedded_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An embedded server that runs until all tests are done."""
    url = f"embedded://{tmp_path_factory.mktemp('acceptance')}"
    keeper = RedisJobRepository.from_url(url, prefix=new_prefix())
    with asyncio.Runner() as runner:
        runner.run(keeper.initialize())
        yield url
        runner.run(keeper.close())


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in HIDDEN}


def make_command_line(url: str, warm: WarmProgram | None = None) -> CommandLine:
    """Return the program with an empty store on a server."""
    store = {"CI_EVENTSTORE_URL": url, "CI_EVENTSTORE_PREFIX": new_prefix()}
    return CommandLine({**_inherited(), **store}, warm)


@pytest.fixture(scope="session")
def warm_program() -> Iterator[WarmProgram | None]:
    """A process that forks where others would be started; in CI there is none, so that all of it is tested there."""
    if is_thorough() or sys.platform != "linux":
        yield None
    else:
        with WarmProgram(_inherited()) as program:
            yield program


@pytest.fixture
def cli(embedded_url: str, warm_program: WarmProgram | None) -> Iterator[CommandLine]:
    """The program; what it did to its store must agree with the streams."""
    command_line = make_command_line(embedded_url, warm_program)
    try:
        yield command_line
    finally:
        command_line.kill_all()
    assert asyncio.run(_verify(command_line)) == []


@pytest.fixture
def server() -> Iterator[RealServer]:
    """A server that may be killed, or brought into any state in which it refuses writes."""
    with RealServer(find_valkey(), "appendfsync always", "enable-debug-command yes") as running:
        yield running


@pytest.fixture
def own_cli(
    server: RealServer, warm_program: WarmProgram | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CommandLine]:
    """The program with a store on that server, and a temporary folder of its own."""
    command_line = make_command_line(server.url, warm_program)
    command_line.environment = {**command_line.environment, "TMPDIR": str(tmp_path_factory.mktemp("temporary"))}
    try:
        yield command_line
    finally:
        command_line.kill_all()


@pytest.fixture
def here(cli: CommandLine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """The program, called in this process: where much is asked of it and the process itself doesn't matter."""
    for name in ("CI_EVENTSTORE_URL", "CI_EVENTSTORE_PREFIX"):
        monkeypatch.setenv(name, cli.environment[name])

    def call_program(*arguments: str) -> Ended:
        if _is_in_event_loop():
            with ThreadPoolExecutor() as pool:
                code = pool.submit(program.call, list(arguments)).result()
        else:
            code = program.call(list(arguments))
        captured = capfd.readouterr()
        return Ended(code, captured.out.encode(), captured.err)

    return call_program


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _verify(command_line: CommandLine) -> list[Difference]:
    async with command_line.repository() as repository:
        return await repository.verify()
