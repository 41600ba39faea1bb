"""One embedded server for all tests here, and a store of its own on it for each."""

import asyncio
import os
from collections.abc import Iterator, Mapping

import pytest

from ci_eventstore import Difference, RedisJobRepository
from tests.acceptance.command_line import CommandLine
from tests.contract.deployments import new_prefix

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


def make_command_line(url: str) -> CommandLine:
    """Return the program with an empty store on a server."""
    inherited = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    return CommandLine({**inherited, "CI_EVENTSTORE_URL": url, "CI_EVENTSTORE_PREFIX": new_prefix()})


@pytest.fixture
def cli(embedded_url: str) -> Iterator[CommandLine]:
    """The program; what it did to its store must agree with the streams."""
    command_line = make_command_line(embedded_url)
    try:
        yield command_line
    finally:
        command_line.kill_all()
    assert asyncio.run(_verify(command_line.environment)) == []


async def _verify(environment: Mapping[str, str]) -> list[Difference]:
    url, prefix = environment["CI_EVENTSTORE_URL"], environment["CI_EVENTSTORE_PREFIX"]
    async with RedisJobRepository.from_url(url, prefix=prefix) as repository:
        return await repository.verify()
