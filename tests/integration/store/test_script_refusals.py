"""Every script with each of its commands refused in turn: nothing is done by half, or what is gets named and mended.

Servers refuse a script's first write (out of memory, rights) or nothing, as scripts look first at all that may fail. To
refuse later ones as well shows what a stop in the middle would leave.
"""

import logging
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest

from ci_common.errors import RepositoryError
from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.connection.replies import Reply, as_text
from ci_eventstore.errors import ProjectionDamagedError, StoreFormatError
from ci_eventstore.facts.facts import facts_in
from ci_eventstore.keys import facts_key
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.integration.store.fact_readers import story_in_stream
from tests.integration.store.operations import MENDING, OPERATIONS
from tests.integration.store.refusing_server import RefusingServer, dump
from tests.integration.store.scenes import Operation, Scene
from tests.servers import RealServer

logger = logging.getLogger("tests.refusals")


@pytest.fixture
async def scene(valkey: RealServer) -> AsyncIterator[Scene]:
    server = RefusingServer(valkey.url)
    await server.read("FLUSHALL")
    async with RedisJobRepository.from_url(valkey.url) as repository:
        yield Scene(repository=repository, server=server)
    await server.close()


async def prepare(scene: Scene, operation: Operation) -> None:
    """Begin again."""
    scene.server.script_name, scene.server.turn, scene.server.last = "", 0, None
    await scene.server.read("FLUSHALL")
    # As if a group read facts.
    await scene.server.read("XADD", facts_key("{ci:0}"), "1-1", "f", "b-")
    await scene.repository.engine.incarnation.renew()
    await operation.prepare(scene)
    scene.server.script_name = operation.script


async def act(scene: Scene, operation: Operation, turn: int = 0) -> RepositoryError | None:
    """Do it with one command refused; return the error."""
    scene.server.turn = turn
    try:
        await operation.act(scene)
    except RepositoryError as error:
        return error
    finally:
        scene.server.turn = 0
    return None


async def no_fact_is_lost(scene: Scene) -> None:
    """All that jobs' streams say is told, in order; more may be, as a fact may be told of what was then refused."""
    told = defaultdict[str, list[tuple[str, str]]](list)
    for entry, fields in await scene.server.read("XRANGE", facts_key("{ci:0}"), "-", "+"):
        for fact in facts_in(0, as_text(entry), as_text(fields[1])):
            told[fact.job_id].append((fact.kind.name, str(fact.status)))
    for job in await scene.repository.list_jobs():
        left = iter(told[job.id])
        assert all(part in left for part in await story_in_stream(scene.repository, job.id))


async def somebody_else(repository: RedisJobRepository) -> None:
    """A whole life of another user's job, beside what was refused."""
    await repository.create_job(Job(id="z1", status="queued", user_id="z"))
    claimed = []
    while found := await claims.claim(repository, "default", "c9", 9, 30):
        claimed += found
    [mine] = [one for one in claimed if one.job.id == "z1"]
    await repository.writer("z1", mine.claim).append([JobEvent("log", "mine")])
    await repository.writer("z1", mine.claim).complete(True, utc_now())
    events = await repository.get_events_since("z1", 0)
    assert [event.data for event in events] == ["mine", None]


#: A stop before one of these may leave something that `verify` names and `rebuild` mends: commands and kinds of keys.
#: No server refuses them there, as it has let earlier writes of the same script through. XADD: a later one.
IN_THE_MIDDLE = {
    *("XADD events", "HSET job", "HDEL job", "HSET ring", "DEL ring"),
    *("ZREM unsealed", "UNLINK events", "UNLINK segment", "UNLINK job", "ZREM ids"),
    *("ZADD ids", "ZADD jobs", "ZREM jobs", "ZADD owned", "ZREM owned"),
    *("ZADD ended", "ZREM ended", "ZADD unsealed", "RPUSH index", "XADD dispatch"),
    *("SREM keys", "DEL key", "DEL user-keys", "SREM users", "DEL user"),
    *("ZADD leases", "ZREM leases", "ZADD backlog", "ZREM backlog", "HSET tickets", "HDEL tickets"),
    *("EXISTS dispatch", "XACK dispatch", "XDEL dispatch", "XREADGROUP"),
}
#: What is taken back, or has one write only.
WHOLE = set(OPERATIONS) & {
    *("creation", "creation for an offer", "question", "offer", "renewal", "signing off", "initialize", "user"),
    *("API key", "change of a user"),
}

QUICK = {"logs", "creation", "user"}
each_operation = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in OPERATIONS]
)


def kind_of(refused: str) -> str:
    """Return a refused command with the kind of its key."""
    command, _, key = refused.partition(" ")
    return f"{command} {key.partition('}:')[2].partition(':')[0]}".strip() if "}" in key else command


@each_operation
async def test_any_command_may_be_refused(scene: Scene, name: str) -> None:
    """The store agrees with itself, or says what doesn't and is mended; a repeated call has its effect once."""
    operation, in_the_middle = OPERATIONS[name], set[str]()
    for turn in range(1, 1000):
        await prepare(scene, operation)
        error = await act(scene, operation, turn)
        refused = await scene.server.refused()
        differences = await scene.repository.verify()
        logger.info("%d %s | %s | %s", turn, refused, error, [str(one) for one in differences])
        if differences:
            assert refused is not None
            in_the_middle.add(kind_of(refused))
            await scene.repository.rebuild()
        await no_fact_is_lost(scene)
        lasting = await scene.repository.verify()
        if kind_of(refused or "") in ("XADD events", "HSET ring"):
            # Half a call is there, which has found the head full; what it has for the ring isn't.
            lasting = [one for one in lasting if one.place != "ring"]
        assert lasting == []
        reply = await scene.server.again()
        if reply == [b"lost"]:
            # Half a batch is there: the writer is told so, and nothing is doubled.
            assert kind_of(refused or "") == "XADD events"
            continue
        await operation.check(scene)
        await somebody_else(scene.repository)
        await no_fact_is_lost(scene)
        assert await scene.repository.verify() == []
        if refused is None:
            assert error is None
            break
    if name in WHOLE:
        assert in_the_middle == set()
    elif name not in MENDING:
        assert in_the_middle <= IN_THE_MIDDLE


#: Keys that change without a job: the clock, questions and offers, who shares partitions; facts that were taken back,
#: which leave a trace; segments that nothing refers to, which expire.
HARMLESS = ("clock", "offered", "offers", "sharing", "claims", "facts", "segment")
WRONG = (("SET", "text"), ("RPUSH", "text"), ("SADD", "text"))


@each_operation
async def test_any_key_may_hold_something_else(scene: Scene, name: str) -> None:
    """The error names the key and nothing was changed; or it is one job's, and the others go on."""
    operation = OPERATIONS[name]
    await prepare(scene, operation)
    assert await act(scene, operation) is None
    for key in scene.server.last_keys():
        for command, value in WRONG:
            await prepare(scene, operation)
            await set_aside(scene, key)
            await scene.server.read(command, key, value)
            before, facts_before = await dump(scene.server, HARMLESS), await facts_there(scene)
            error = await act(scene, operation)
            logger.info("%s %s | %s", key, command, error)
            if isinstance(error, StoreFormatError):
                named = key if not isinstance(error, ProjectionDamagedError) else error.job_id
                assert named in str(error)
            if error is not None:
                assert await dump(scene.server, HARMLESS) == before
                assert await facts_there(scene) == facts_before
            await put_back(scene, key)
            if error is None:
                await scene.repository.rebuild()
            elif name not in MENDING:
                assert await scene.repository.verify() == []
            if scene.server.last is None:
                assert await act(scene, operation) is None
            if scene.server.last is not None or name not in MENDING:
                await scene.server.again()
            await operation.check(scene)
            await somebody_else(scene.repository)
            assert await scene.repository.verify() == []


async def facts_there(scene: Scene) -> Reply:
    [reply] = await scene.server.read_many([("XRANGE", facts_key("{ci:0}"), "-", "+")])
    return reply


async def set_aside(scene: Scene, key: str) -> None:
    if await scene.server.read("EXISTS", key):
        await scene.server.read("RENAME", key, "aside")


async def put_back(scene: Scene, key: str) -> None:
    await scene.server.read("DEL", key)
    if await scene.server.read("EXISTS", "aside"):
        await scene.server.read("RENAME", "aside", key)
