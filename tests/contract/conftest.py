"""A fixture per deployment, and the repository that the contract's tests use."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import cache
from zlib import crc32

import fakeredis
import pytest

from ci_common import JobRepository, MemoryJobRepository
from ci_eventstore import RedisJobRepository
from tests.contract.deployments import (
    DEPLOYMENTS,
    FURTHER,
    PAIRS,
    AtHome,
    DefaultsJobRepository,
    MakeRepository,
    SealingRepository,
    new_prefix,
)
from tests.deployments.homes import IS_WHOLE, open_home
from tests.servers import RealServer, find_redis7, find_valkey


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on every deployment, unless it chooses some; make none that `make test` would leave out at once.

    There are four times as many of these as of others, and each worker makes all of them.
    """
    chosen = [mark for mark in metafunc.definition.iter_markers("parametrize") if "deployment" in mark.args[0]]
    if "deployment" in metafunc.fixturenames and not chosen:
        is_quick = metafunc.config.option.markexpr == "not slow"
        wanted = [each for each in DEPLOYMENTS if not (is_quick and _is_slow(each))]
        metafunc.parametrize("deployment", wanted, indirect=True)


def _is_slow(deployment: object) -> bool:
    return any(mark.name == "slow" for mark in getattr(deployment, "marks", ()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave half of the tests to each of a pair of deployments, and all to `make test-deployments`.

    Megabytes are for real servers: a simulated one takes a minute of a CPU for them.
    """
    left_out = {item for item in items if not IS_WHOLE and _is_for_the_other(item)}
    left_out |= {item for item in items if "[fake-full size" in item.name}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def _is_for_the_other(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)
    name = str(call.params.get("deployment")) if call else ""
    pair = next((pair for pair in PAIRS if name in pair), None)
    return pair is not None and crc32(item.name.replace(name, "").encode()) % len(pair) != pair.index(name)


@pytest.fixture
def memory() -> MakeRepository:
    return lambda prefix, **settings: MemoryJobRepository()


@pytest.fixture
def defaults() -> MakeRepository:
    return lambda prefix, **settings: DefaultsJobRepository()


@pytest.fixture
def fake() -> MakeRepository:
    server = fakeredis.FakeServer(version=(7, 0))
    return lambda prefix, **settings: RedisJobRepository(
        fakeredis.FakeAsyncRedis(server=server), prefix=prefix, **settings
    )


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeRepository]:
    url = f"embedded://{tmp_path_factory.mktemp('embedded')}"
    # As long as somebody has it open, the server runs; without this it would be started for every test.
    keeper = RedisJobRepository.from_url(url, prefix=new_prefix())
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(keeper.initialize())
        yield lambda prefix, **settings: RedisJobRepository.from_url(url, prefix=prefix, **settings)
        runner.run(keeper.close())


@pytest.fixture(scope="session")
def sealing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeRepository]:
    SealingRepository.archive_url = tmp_path_factory.mktemp("archive").as_uri()
    with RealServer(find_valkey(), "appendonly no") as server:
        yield lambda prefix, **settings: SealingRepository.from_url(server.url, prefix=prefix, **settings)


@pytest.fixture(scope="session")
def redis7() -> Iterator[MakeRepository]:
    with RealServer(find_redis7(), tcp=True) as server:
        yield lambda prefix, **settings: RedisJobRepository.from_url(server.url, prefix=prefix, **settings)


@pytest.fixture(scope="module")
def homes() -> Iterator[Callable[[str], AtHome]]:
    """Deployments by their names, each started when it is first asked for, and ended with the module.

    Idle servers watch each other: those of four workers took a tenth of a processor.
    """
    with ExitStack() as stack:
        yield cache(lambda name: AtHome(stack.enter_context(open_home(name))))


@pytest.fixture
def deployment(request: pytest.FixtureRequest, homes: Callable[[str], AtHome]) -> MakeRepository:
    if request.param in FURTHER:
        return homes(request.param)
    made: MakeRepository = request.getfixturevalue(request.param)
    return made


@pytest.fixture
async def repository(deployment: MakeRepository) -> AsyncIterator[JobRepository]:
    """An open repository; what the test leaves in a Redis one must be in agreement with its streams."""
    prefix = new_prefix()
    async with deployment(prefix) as opened:
        yield opened
        if isinstance(opened, RedisJobRepository):
            # What is open already stays as it is; a test may have closed it.
            await opened.initialize()
            assert await opened.verify() == []
            # The next test's verification needn't walk these keys.
            if isinstance(deployment, AtHome):
                deployment.empty()
            else:
                await opened.engine.nodes.read("FLUSHALL")
