"""A store on a primary that Sentinels watch: who it is reached by, what is refused, and failovers of each kind."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from redis.asyncio.sentinel import Sentinel

from ci_common.models import Job, JobEvent
from ci_eventstore.controllers.claimed_job import ClaimedJob
from ci_eventstore.controllers.controller import Controller, ControllerSettings
from ci_eventstore.errors import (
    AcknowledgedEventsLostError,
    AuthenticationError,
    MissingRightsError,
    OutcomeUnknownError,
    StoreUnavailableError,
    UnsuitableServerError,
)
from ci_eventstore.following.records import Notice, NoticeType
from ci_eventstore.repository import RedisJobRepository
from tests.contract.deployments import new_prefix
from tests.deployments import Watched, running_sentinels
from tests.deployments.members import Member
from tests.deployments.sentinel import NAME
from tests.integration.store.test_rights import DOCUMENT, LINES
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def shared() -> Iterator[Watched]:
    """A primary, two replicas and three Sentinels, all of which are up again after each test.

    A server may be silent for five seconds, as one is on a busy machine: one that was replaced while it lives may get
    acknowledgements from a replica that follows it still.
    """
    with running_sentinels(down_after_ms=5_000) as started:
        yield started


@pytest.fixture
async def watched(shared: Watched) -> AsyncIterator[Watched]:
    """The same, ready."""
    yield shared
    for server in shared.servers:
        if server.is_paused:
            server.resume()
        if not server.is_running:
            await asyncio.to_thread(server.start)
    await shared.wait_ready()


async def refusal(url: str) -> str:
    """Return in one line why the store at a URL can't be opened."""
    with pytest.raises(UnsuitableServerError) as caught:
        await RedisJobRepository.from_url(url).initialize()
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_addresses_that_lead_nowhere(watched: Watched) -> None:
    """A name that Sentinels don't know, a server in their place, and one of them in a server's place."""
    assert "its Sentinels know no server by the name 'other'" in await refusal(
        watched.url.replace(f"/{NAME}", "/other")
    )
    server, sentinel = watched.primary, watched.sentinels[0]
    assert f"{server.address} is no Sentinel" in await refusal(f"redis+sentinel://{server.address}/{NAME}")
    assert "write redis+sentinel://HOST:PORT/NAME" in await refusal(f"redis://{sentinel.address}")
    with pytest.raises(StoreUnavailableError, match=r"too few Sentinels answer.*127.0.0.1:1: .*; 127.0.0.1:2: "):
        await RedisJobRepository.from_url(f"redis+sentinel://127.0.0.1:1,127.0.0.1:2/{NAME}").initialize()


async def test_some_sentinels_may_be_away(watched: Watched) -> None:
    """Those that answer are enough, also if none of the others does."""
    away = f"redis+sentinel://127.0.0.1:1,{watched.sentinels[0].address},127.0.0.1:2/{NAME}"
    async with RedisJobRepository.from_url(away, prefix=new_prefix()) as repository:
        assert await repository.list_jobs() == []


async def test_a_replica_that_sentinels_take_for_the_primary(watched: Watched) -> None:
    """It is asked for its role and left alone, reads included."""
    sentinel, replica = watched.sentinels[0], watched.replicas[0]
    url = f"redis+sentinel://{sentinel.address}/mistaken"
    sentinel.ask("SENTINEL", "MONITOR", "mistaken", "127.0.0.1", replica.port, 1)
    try:
        with pytest.raises(StoreUnavailableError, match=rf"{replica.address} is a replica, and its Sentinels"):
            await RedisJobRepository.from_url(url, access="read").initialize()
    finally:
        sentinel.ask("SENTINEL", "REMOVE", "mistaken")


async def test_a_ready_client_of_sentinels(watched: Watched) -> None:
    """The client that `master_for` returned is used for its addresses; it may have been closed."""
    sentinel = Sentinel([("127.0.0.1", one.port) for one in watched.sentinels])
    client = sentinel.master_for(NAME)
    async with RedisJobRepository(client, prefix=new_prefix()) as repository:
        await client.aclose()
        await sentinel.aclose()
        await repository.create_job(Job(id="j", status="running"))
        assert await repository.verify() == []


async def test_each_side_has_users_of_its_own(watched: Watched) -> None:
    """The least users of the document, of the server and of Sentinels, are enough; what is missing is said by whom."""
    for server in watched.servers:
        for name, rules in LINES.items():
            server.ask("ACL", "SETUSER", name, *rules.replace("PASSWORD", "sesame").split())
        server.ask("ACL", "LOG", "RESET")
    [theirs] = re.findall(r"^    ACL SETUSER sentinel-client (.*)$", DOCUMENT.read_text(), re.MULTILINE)
    for sentinel in watched.sentinels:
        sentinel.ask("ACL", "SETUSER", "sentinel-client", *theirs.replace("PASSWORD", "simsim").split())
        sentinel.ask("ACL", "SETUSER", "nobody", "on", "nopass", "-@all")
    whole = "&sentinel_username=sentinel-client&sentinel_password=simsim"
    nobody = "&sentinel_username=nobody&sentinel_password=any"

    def url(user: str, credentials: str = whole) -> str:
        return watched.url.replace("://", f"://{user}:sesame@") + "?socket_timeout=5" + credentials

    for user in ("ci-server", "ci-controller"):
        async with RedisJobRepository.from_url(url(user)) as repository:
            await repository.create_job(Job(id=user, status="running"))
    async with RedisJobRepository.from_url(url("ci-reader"), access="read") as reader:
        assert {job.id for job in await reader.list_jobs()} == {"ci-server", "ci-controller"}
    log = [entry for entry in watched.primary.ask("ACL", "LOG") if entry["object"] != "client|setinfo"]
    assert log == []
    with pytest.raises(AuthenticationError, match=r"WRONGPASS.*sentinel_password") as wrong:
        await RedisJobRepository.from_url(url("ci-server", whole.replace("simsim", "tahini"))).initialize()
    assert "tahini" not in str(wrong.value)
    with pytest.raises(MissingRightsError, match=r"NOPERM.*sentinel_username"):
        await RedisJobRepository.from_url(url("ci-server", nobody)).initialize()


@dataclass
class Writing:
    """Numbered lines of one job, one after another, as often as the store lets them."""

    job_id: str
    acknowledged: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    losses: int = 0
    is_over: bool = False

    async def run(self, repository: RedisJobRepository) -> None:
        """Write until it is over; a line that was refused is written again."""
        await repository.create_job(Job(id=self.job_id, status="running"))
        number = 0
        while not self.is_over:
            line, number = f"{number}\n", number + 1
            while True:
                try:
                    await repository.add_event(self.job_id, JobEvent("log", line))
                except AcknowledgedEventsLostError:
                    self.losses += 1
                except OutcomeUnknownError:
                    self.unknown.append(line)
                    break
                except StoreUnavailableError:
                    pass
                else:
                    self.acknowledged.append(line)
                    break
            await asyncio.sleep(0.01)
        await repository.update_job_status(self.job_id, "failed")


@asynccontextmanager
async def in_use(repository: RedisJobRepository) -> AsyncIterator[tuple[Writing, list[str], list[int]]]:
    """Write, follow and run a job meanwhile; yield the writer, what the follower got, and the runs of the job."""
    writing, followed, runs, is_over = Writing("written"), list[str](), list[int](), asyncio.Event()

    async def follow() -> None:
        await wait_until(lambda: bool(writing.acknowledged))
        async for event in repository.follow_events("written"):
            if event.type == "log":
                followed.append(event.data or "")

    async def build(job: ClaimedJob) -> bool:
        runs.append(job.attempts)
        while not is_over.is_set():
            await job.log.write("line\n")
            await asyncio.sleep(0.05)
        return True

    await repository.create_job(Job(id="built", status="queued"))
    settings = ControllerSettings(lease_seconds=3, poll_seconds=0.5)
    async with Controller(repository, settings=settings) as controller, asyncio.TaskGroup() as tasks:
        controlling = tasks.create_task(controller.run(build))
        others = [tasks.create_task(writing.run(repository)), tasks.create_task(follow())]
        await wait_until(lambda: bool(runs and followed))
        yield writing, followed, runs
        writing.is_over = True
        is_over.set()
        await asyncio.wait(others)
        async with asyncio.timeout(60):
            while not await repository.page_jobs(status="completed"):
                pass
        controller.stop()
        await controlling


async def lines_of(repository: RedisJobRepository) -> list[str]:
    return [event.data or "" for event in await repository.get_events_since("written", 0) if event.type == "log"]


async def until_more(writing: Writing, count: int = 20) -> None:
    """Wait until more lines are acknowledged."""
    wanted = len(writing.acknowledged) + count
    await wait_until(lambda: len(writing.acknowledged) >= wanted, 60)


async def listens_at(server: Member, prefix: str) -> bool:
    """Tell whether anybody listens there to what the store says; Sentinels listen to each other everywhere."""
    return bool(await asyncio.to_thread(server.ask, "PUBSUB", "CHANNELS", f"{{{prefix}:*"))


@pytest.mark.parametrize("skew_ms", [5_000, -5_000], ids=["its clock 5 s behind", "its clock 5 s ahead"])
async def test_a_primary_is_killed(watched: Watched, skew_ms: int) -> None:
    """What a replica had is there; the writer, the follower and the job go on at the new primary, each once.

    The new primary's clock differs from the old one's, whose time the partition's clock and the process's reading have.
    """
    prefix = new_prefix()
    async with RedisJobRepository.from_url(watched.url, prefix=prefix, durability="replicated") as repository:
        async with in_use(repository) as (writing, followed, runs):
            before = watched.primary
            before.ask("HINCRBY", f"{{{prefix}:0}}:clock", "seen", skew_ms)
            before.kill()
            await watched.fail_over()
            await until_more(writing)
        assert runs == [1]
        lines = await lines_of(repository)
        assert [line for line in lines if line not in writing.unknown] == writing.acknowledged
        assert followed == lines
        assert writing.losses == 0
        assert await repository.verify() == []


async def test_a_coordinated_failover_loses_nothing(watched: Watched) -> None:
    """The old primary waits for its replica, and sends those who write there on: that suffices without WAIT, too."""
    async with RedisJobRepository.from_url(watched.url, prefix=new_prefix()) as repository:
        async with in_use(repository) as (writing, followed, runs):
            before = watched.primary
            watched.sentinels[0].ask("SENTINEL", "FAILOVER", NAME, "COORDINATED")
            await wait_until(lambda: watched.primary is not before, 60)
            await watched.wait_ready()
            await until_more(writing)
        assert runs == [1]
        assert followed == await lines_of(repository) == writing.acknowledged
        assert writing.losses == 0
        assert await repository.verify() == []


async def test_a_primary_stands_still_and_comes_back(watched: Watched) -> None:
    """Its connections are given up; when it comes back it is a replica, and nobody listens there any more."""
    prefix = new_prefix()
    async with RedisJobRepository.from_url(watched.url, prefix=prefix, durability="replicated") as repository:
        async with in_use(repository) as (writing, followed, runs):
            before = watched.primary
            before.pause()
            await watched.fail_over()
            await until_more(writing)
            before.resume()
            await watched.wait_ready()
            await until_more(writing)
            async with asyncio.timeout(60):
                while await listens_at(before, prefix):
                    pass
            assert await listens_at(watched.primary, prefix)
        assert runs == [1]
        assert followed == await lines_of(repository)
        assert [line for line in followed if line not in writing.unknown] == writing.acknowledged
        assert await repository.verify() == []


async def test_writes_that_the_new_primary_doesnt_have_are_told(watched: Watched) -> None:
    """A failover by hand leaves the old primary as one for seconds: who wrote or read there meanwhile is told.

    Whether it is still written to in that time is a race; then a loss is told, else none is.
    """
    async with RedisJobRepository.from_url(watched.url, prefix=new_prefix()) as repository:
        writing, kept, resets = Writing("written"), list[str](), list[Notice]()

        async def follow() -> None:
            follower, is_last = await repository.follow("written", 0), False
            while not is_last:
                page = await follower.read()
                for record in page.records:
                    if isinstance(record, Notice):
                        assert record.type is NoticeType.RESET
                        resets.append(record)
                        kept.clear()
                    elif isinstance(record, JobEvent) and record.type == "log":
                        kept.append(record.data or "")
                is_last = page.is_last
            follower.close()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(writing.run(repository))
            await wait_until(lambda: bool(writing.acknowledged))
            tasks.create_task(follow())
            await until_more(writing)
            await watched.fail_over()
            await watched.wait_ready()
            await until_more(writing)
            writing.is_over = True
        lines = await lines_of(repository)
        lost = [line for line in writing.acknowledged if line not in lines]
        assert (writing.losses == 1) == bool(lost)
        assert len(set(lines)) == len(lines)
        assert kept == lines
        assert len(resets) <= 1
        assert await repository.verify() == []
