"""Each script with something to do, driven through its typed function, and what has to be true when it is done once."""

from collections.abc import Awaitable, Callable
from typing import Any

from ci_common.models import APIKey, Job, JobEvent, JobStatus, User
from ci_eventstore.accounts.store import AccountStore
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.events.append import append
from ci_eventstore.events.caller import Call
from ci_eventstore.events.codec import encode_logs, encode_records
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.following.incarnation import StoreIncarnation
from ci_eventstore.jobs.create import create_waiting, waiting_job
from ci_eventstore.jobs.decide import Cancel, Command, Complete, UpdateStatus, decide, decide_creation
from ci_eventstore.jobs.store import plan_change
from ci_eventstore.keys import NO_QUEUE, Keys, queue_everywhere
from ci_eventstore.members import backlog_member, listing_member
from ci_eventstore.projection.jobs import JobProjections
from ci_eventstore.projection.projections import Projections
from ci_eventstore.queues.claim import Waiting
from ci_eventstore.queues.claim import claim as claim_jobs
from ci_eventstore.queues.claim import peek as ask
from ci_eventstore.queues.claimed import Claimed
from ci_eventstore.queues.claimer import tidy as forget
from ci_eventstore.queues.completions import Completion
from ci_eventstore.queues.completions import complete as complete_jobs
from ci_eventstore.queues.holders import Holders
from ci_eventstore.queues.holders import look as look_once
from ci_eventstore.queues.lease_keeper import renew as renew_leases
from ci_eventstore.queues.offers import Offer
from ci_eventstore.store_format import FORMAT_VERSION, check_format
from tests import claims
from tests.integration.store.scenes import (
    KEYS,
    LEASE,
    NOW,
    OTHERS,
    Operation,
    Scene,
    create,
    log,
    running,
    state_of,
    status_of,
    text_of,
    waiting,
)
from tests.waiting import wait_until

[QUEUE] = queue_everywhere(KEYS, "default")


async def append_logs(scene: Scene) -> bool:
    return await append(scene.server, KEYS.job("a1"), encode_logs([log("x"), log("y"), log("z")]), call=Call("t" * 16))


async def logs_are_there(scene: Scene) -> None:
    assert await text_of(scene, "a1") == ["first", "x", "y", "z"]


async def append_to_ring(scene: Scene) -> bool:
    batch = encode_logs([log("x" * 9)])
    return await append(scene.server, KEYS.job("a1"), batch, call=Call("t" * 16), head_bytes=10)


async def ring_is_there(scene: Scene) -> None:
    await scene.repository.complete_job("a1", True, NOW)
    found = await text_of(scene, "a1")
    assert found == ["first", "x" * 9, "True"]


def commanding(command: Command, job_id: str = "a1") -> Callable[[Scene], Awaitable[bool]]:
    async def act(scene: Scene) -> bool:
        state = await state_of(scene, job_id)
        records, keys = decide(job_id, state, command, NOW), KEYS.job(job_id)
        change = plan_change(keys, state, records)
        call, batch = Call("u" * 16), encode_records(records)
        return await append(scene.server, keys, batch, call=call, change=change, claim="*", head_bytes=10)

    return act


async def claimed_one(scene: Scene) -> None:
    await create(scene, "a1", "a2", "b1")
    scene.claimed = await claims.claim(scene.repository, "default", "c1", 2, LEASE)


async def a1_is_cancelled(scene: Scene) -> None:
    assert (await status_of(scene, "a1"), await text_of(scene, "a1")) == ("cancelled", ["[cancelled]\n", "False"])


async def a1_is_queued(scene: Scene) -> None:
    assert await status_of(scene, "a1") == "queued"
    await claims.claim(scene.repository, "default", "c9", 9, LEASE)
    assert await status_of(scene, "a1") == "running"


async def overfull(scene: Scene) -> None:
    await running(scene)
    await append_to_ring(scene)


async def a1_has_ended(scene: Scene) -> None:
    found = await text_of(scene, "a1")
    assert found == ["first", "x" * 9, "True"]
    assert await status_of(scene, "a1") == "completed"


async def nothing(scene: Scene) -> None:
    await create(scene, "b1")
    await claims.claim(scene.repository, "default", "c1", 1, LEASE)


async def create_ended(scene: Scene) -> bool:
    job = Job(id="a1", status=JobStatus.RUNNING, user_id="a", created_at=NOW)
    records = decide_creation(job, [log("x"), log("y")], NOW)
    change, keys = plan_change(KEYS.job("a1"), None, records), KEYS.job("a1")
    return await append(scene.server, keys, encode_records(records), call=Call("t" * 16), change=change)


async def a1_is_created(scene: Scene) -> None:
    assert (await status_of(scene, "a1"), await text_of(scene, "a1")) == ("running", ["x", "y"])


async def create_queued(scene: Scene) -> None:
    job = Job(id="a1", status=JobStatus.QUEUED, user_id="a", created_at=NOW)
    created = waiting_job(decide_creation(job, [], NOW, "t" * 16))
    assert created is not None
    await create_waiting(scene.server, KEYS.job("a1"), created)


async def offering(scene: Scene) -> None:
    """A controller has nothing to do, offers to take a job, and listens."""
    await nothing(scene)
    offer = Offer("c2", 10_000)
    [partition] = queue_everywhere(scene.repository.engine.keys, "default")
    await ask(scene.repository.engine.nodes, partition, 1, 30_000, offer.ask(partition, makes_offer=True))
    listening = list[str]()
    subscription = scene.repository.engine.nodes.subscription(lambda *_: None, listening.extend)
    subscription.listen(partition.controllers_channel + offer.session)
    await wait_until(lambda: bool(listening))


async def a1_is_given_or_waits(scene: Scene) -> None:
    if await status_of(scene, "a1") == "queued":
        await a1_is_queued(scene)
    assert await scene.server.read("XLEN", "{ci:0}:dispatch:default") == 2
    state = await state_of(scene, "a1")
    assert await scene.server.read("ZSCORE", "{ci:0}:leases:default", "a1") is not None
    assert (state.epoch, state.attempts) == (1, 1)


async def peek(scene: Scene) -> Any:
    return await ask(scene.server, QUEUE, 2, 30_000, Offer("c2", 10_000).ask(QUEUE, makes_offer=True))


async def lapsed(scene: Scene) -> None:
    """One job has a controller that is gone, another one waits with the next of its user."""
    await claimed_one(scene)
    await scene.repository.writer("b1", scene.claimed[1].claim).complete(True, NOW)
    await create(scene, "a3")
    await scene.server.read("HINCRBY", "{ci:0}:clock", "now", 31_000)


async def claim(scene: Scene) -> list[Claimed]:
    waiting = [Waiting.of(backlog_member("a", NOW, job_id)) for job_id in ("a2", "a3")]
    call = "abcd-1"
    return await claim_jobs(scene.server, QUEUE, "c2", 30_000, call=call, expired=["a1"], waiting=waiting)


async def both_are_claimed(scene: Scene) -> None:
    await scene.server.read("HINCRBY", "{ci:0}:clock", "now", 31_000)
    await claims.claim(scene.repository, "default", "c3", 9, LEASE)
    for job_id in ("a1", "a2"):
        state = await state_of(scene, job_id)
        assert (state.controller, state.epoch) == ("c3", state.attempts)
        assert state.epoch in ((2, 3) if job_id == "a1" else (1, 2))


async def complete(scene: Scene) -> None:
    end = JobEvent("complete", success=True, timestamp=NOW)
    batch = [Completion(one, end, "") for one in scene.claimed]
    await complete_jobs(scene.server, QUEUE, Call("e" * 16), batch)


async def both_are_completed(scene: Scene) -> None:
    for one in scene.claimed:
        if await status_of(scene, one.job.id) == "running":
            # Told "n", a controller goes the way of all appends.
            await scene.repository.writer(one.job.id, one.claim).complete(True, NOW)
        assert (await status_of(scene, one.job.id), await text_of(scene, one.job.id)) == ("completed", ["True"])


async def renew(scene: Scene) -> Any:
    return await renew_leases(scene.server, KEYS, "default", [one.claim for one in scene.claimed], LEASE)


async def leases_are_held(scene: Scene) -> None:
    for job_id in ("a1", "b1"):
        assert await scene.server.read("ZSCORE", "{ci:0}:leases:default", job_id) is not None


async def idle(scene: Scene) -> None:
    await nothing(scene)
    await claims.claim(scene.repository, "default", "c2", 1, LEASE)
    await ask(scene.server, QUEUE, 1, 30_000, Offer("c2", 10_000).ask(QUEUE, makes_offer=True))


async def tidy(scene: Scene) -> None:
    await forget(scene.server, QUEUE, "c2")


async def c2_is_forgotten(scene: Scene) -> None:
    assert await scene.server.read("HEXISTS", "{ci:0}:offered:default", "c2") == 0


async def damaged(scene: Scene) -> None:
    await claimed_one(scene)
    await scene.server.read("HSET", "{ci:0}:job:a1", "status", "completed")
    await scene.server.read("ZREM", "{ci:0}:leases:default", "a1")


async def rebuild(scene: Scene) -> bool:
    return await JobProjections(scene.server, LogSource(scene.server)).rebuild(KEYS.job("a1"))


async def a1_is_running(scene: Scene) -> None:
    assert await status_of(scene, "a1") == "running"


async def initialize(scene: Scene) -> None:
    await check_format(scene.server, Keys("other"))


async def is_initialized(scene: Scene) -> None:
    found = await scene.server.read("HMGET", "{other:accounts}:store", "format", "partitions")
    assert found == [str(FORMAT_VERSION).encode(), b"1"]


USER = User(id="u1", name="Ada", email="ada@example.org", created_at=NOW)


API_KEY = APIKey(id="k1", user_id="u1", key_hash="f" * 64, created_at=NOW)


def accounts(scene: Scene) -> AccountStore:
    class Refused(AccountStore):
        _keys = KEYS

        @property
        def _nodes(self) -> Nodes:
            return scene.server

    return Refused()


async def no_user(scene: Scene) -> None:
    """Nobody is there."""


async def create_user(scene: Scene) -> None:
    await accounts(scene).create_user(USER)


async def user_is_there(scene: Scene) -> None:
    found = [await scene.repository.get_user("u1"), await scene.repository.get_user_by_email("ADA@example.org")]
    assert found == [USER, USER]
    assert await scene.repository.list_users() == [USER]


async def create_api_key(scene: Scene) -> None:
    await accounts(scene).create_api_key(API_KEY)


async def api_key_is_there(scene: Scene) -> None:
    assert await scene.repository.get_api_key_by_hash("f" * 64) == API_KEY
    assert await scene.repository.list_api_keys("u1") == await scene.repository.list_api_keys() == [API_KEY]


async def update_user(scene: Scene) -> None:
    await accounts(scene).update_user_active("u1", False)


async def user_is_inactive(scene: Scene) -> None:
    user = await scene.repository.get_user("u1")
    assert user is not None
    assert not user.is_active


def nameless_queue() -> list[str]:
    queue = KEYS.job("a1").queue(NO_QUEUE)
    return [queue.clock, queue.leases]


async def held_one(scene: Scene) -> None:
    await scene.repository.engine.holders.create(Job(id="a1", status="running"), "run-1", LEASE)


async def look(scene: Scene) -> None:
    await look_once(scene.server, KEYS.job("a1").queue(NO_QUEUE))


async def a1_is_held(scene: Scene) -> None:
    assert (await state_of(scene, "a1")).controller == "run-1"


async def hold(scene: Scene) -> None:
    parts = scene.repository.engine
    holders = Holders(scene.server, KEYS, parts.jobs, parts.lost_jobs)
    await holders.create(Job(id="a1", status="running"), "run-1", LEASE)


async def a1_is_held_at_last(scene: Scene) -> None:
    if await scene.repository.get_job("a1") is None:
        await hold(scene)
    await a1_is_held(scene)
    assert await scene.server.read("ZSCORE", nameless_queue()[1], "a1") is not None


async def renew_incarnation(scene: Scene) -> None:
    await StoreIncarnation(scene.server, KEYS).renew()


async def there_is_an_incarnation(scene: Scene) -> None:
    assert await scene.server.read("HGET", KEYS.store, "incarnation")


async def mend(scene: Scene) -> None:
    await Projections(scene.server, KEYS, LogSource(scene.server)).rebuild()


async def with_a_wrong_ticket(scene: Scene) -> None:
    await waiting(scene)
    await scene.server.read("HSET", "{ci:0}:tickets:default", "a", "1-1")


async def with_a_stray(scene: Scene) -> None:
    await waiting(scene)
    await scene.server.read("ZADD", "{ci:0}:jobs:running", 0, listing_member(NOW, "a1"))


async def a1_has_no_stray(scene: Scene) -> None:
    assert await scene.server.read("ZSCORE", "{ci:0}:jobs:running", listing_member(NOW, "a1")) is None
    await a1_is_queued(scene)


async def without_an_index(scene: Scene) -> None:
    await create_user(scene)
    await scene.server.read("DEL", KEYS.users)


#: These find something wrong, and are there to mend it.
MENDING = {"rebuild", "mended ticket", "mended listing", "mended index"}

CANCEL = Cancel("[cancelled]\n")
COMPLETE_COMMAND = Complete(JobEvent("complete", success=True, timestamp=NOW), True)


OPERATIONS: dict[str, Operation] = {
    **OTHERS,
    "logs": Operation(script="append_logs", prepare=running, act=append_logs, check=logs_are_there),
    "ring": Operation(script="append", prepare=running, act=append_to_ring, check=ring_is_there),
    "end of a ring": Operation(script="append", prepare=overfull, act=commanding(COMPLETE_COMMAND), check=a1_has_ended),
    "cancel": Operation(script="append", prepare=waiting, act=commanding(CANCEL), check=a1_is_cancelled),
    "hand back": Operation(
        script="append", prepare=claimed_one, act=commanding(UpdateStatus(JobStatus.QUEUED)), check=a1_is_queued
    ),
    "creation with events": Operation(script="append", prepare=nothing, act=create_ended, check=a1_is_created),
    "creation": Operation(script="create", prepare=nothing, act=create_queued, check=a1_is_queued),
    "creation for an offer": Operation(
        script="create", prepare=offering, act=create_queued, check=a1_is_given_or_waits
    ),
    "question": Operation(script="peek", prepare=waiting, act=peek, check=a1_is_queued),
    "offer": Operation(script="peek", prepare=nothing, act=peek, check=no_user),
    "claim": Operation(script="claim", prepare=lapsed, act=claim, check=both_are_claimed),
    "completion": Operation(script="complete", prepare=claimed_one, act=complete, check=both_are_completed),
    "renewal": Operation(script="renew", prepare=claimed_one, act=renew, check=leases_are_held),
    "look": Operation(script="look", prepare=held_one, act=look, check=a1_is_held),
    "signing off": Operation(script="tidy", prepare=idle, act=tidy, check=c2_is_forgotten),
    "rebuild": Operation(script="rebuild", prepare=damaged, act=rebuild, check=a1_is_running),
    "mended ticket": Operation(script="mend_ticket", prepare=with_a_wrong_ticket, act=mend, check=a1_is_queued),
    "mended listing": Operation(script="mend_stray", prepare=with_a_stray, act=mend, check=a1_has_no_stray),
    "mended index": Operation(script="mend_index", prepare=without_an_index, act=mend, check=user_is_there),
    "hold": Operation(script="hold", prepare=no_user, act=hold, check=a1_is_held_at_last),
    "incarnation": Operation(
        script="renew_incarnation", prepare=no_user, act=renew_incarnation, check=there_is_an_incarnation
    ),
    "initialize": Operation(script="initialize", prepare=no_user, act=initialize, check=is_initialized),
    "user": Operation(script="create_record", prepare=no_user, act=create_user, check=user_is_there),
    "API key": Operation(script="create_record", prepare=create_user, act=create_api_key, check=api_key_is_there),
    "change of a user": Operation(script="update_record", prepare=create_user, act=update_user, check=user_is_inactive),
}
