"""Where a script is driven: a store, and what is asked of it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from ci_common.errors import JobGoneError, LogDeletedError
from ci_common.models import APIKey, Job, JobEvent, JobStatus, User
from ci_eventstore.accounts.erasure import delete_account
from ci_eventstore.archive import Archive
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.facts.groups import Groups
from ci_eventstore.history.archiving import Moved, archive_job, unarchive_job
from ci_eventstore.history.erasing import REWRITE_TICKETS, RewriteTicketsCall
from ci_eventstore.history.seal import Sealed, seal
from ci_eventstore.jobs.delete import delete_job, delete_log
from ci_eventstore.jobs.state import JobState
from ci_eventstore.jobs.tombstones import Reason
from ci_eventstore.keys import Keys, account_key
from ci_eventstore.queues.claimed import Claimed
from ci_eventstore.queues.watch import share
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.webhooks.delivery import Message
from ci_eventstore.webhooks.outbox import Outbox
from ci_eventstore.webhooks.store import WebhookStore
from ci_eventstore.webhooks.webhook import Secret, Webhook
from tests import claims
from tests.integration.store.refusing_server import RefusingServer, dump

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEYS = Keys("ci")
LEASE = 30.0


def log(data: str) -> JobEvent:
    return JobEvent("log", data, timestamp=NOW)


@dataclass(kw_only=True)
class Scene:
    """A store in which something is about to happen."""

    repository: RedisJobRepository
    server: RefusingServer
    #: What `prepare` has left for `act`.
    claimed: Sequence[Claimed] = ()


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One call of a script's typed function."""

    script: str
    prepare: Callable[[Scene], Awaitable[None]]
    act: Callable[[Scene], Awaitable[Any]]
    #: What is true once it has been done, and done once.
    check: Callable[[Scene], Awaitable[None]]


async def text_of(scene: Scene, job_id: str) -> list[str]:
    """Return what a job's log has, and its `complete` events as their results."""
    events = await scene.repository.get_events_since(job_id, 0)
    return [event.data or "" if event.type == "log" else str(event.success) for event in events]


async def status_of(scene: Scene, job_id: str) -> str:
    job = await scene.repository.get_job(job_id)
    assert job is not None
    return str(job.status)


async def state_of(scene: Scene, job_id: str) -> JobState:
    state = await scene.repository.engine.jobs.state(job_id)
    assert state is not None
    return state


async def create(scene: Scene, *jobs: str, status: str = "queued", **more: Any) -> None:
    for job_id in jobs:
        await scene.repository.create_job(
            Job(id=job_id, status=JobStatus(status), user_id=job_id[0], created_at=NOW, **more)
        )


async def running(scene: Scene) -> None:
    await create(scene, "a1", status="running", events=[log("first")])


async def waiting(scene: Scene) -> None:
    await create(scene, "a1", "a2")


async def ended_and_late(scene: Scene) -> None:
    """Have an ended job whose log is in a segment, and late output after it."""
    await running(scene)
    await scene.repository.complete_job("a1", True, NOW)
    await seal_a1(scene)
    await scene.repository.add_event("a1", log("late"))


async def seal_a1(scene: Scene) -> Sealed:
    return await seal(scene.server, LogSource(scene.server), KEYS, "a1")


async def sealed(scene: Scene) -> None:
    """Have a sealed job of one small segment, and an archive."""
    await ended_and_late(scene)
    await seal_a1(scene)
    await _archive_of(LogSource(scene.server))


async def archived(scene: Scene) -> None:
    """Have its segment in an archive."""
    await sealed(scene)
    await archive_a1(scene)


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory()


async def _archive_of(source: LogSource) -> Archive:
    return await source.sealed.archived.remember(KEYS, Path(_folder().name).as_uri(), takes_over=True)


async def archive_a1(scene: Scene) -> Moved:
    source = LogSource(scene.server)
    return await archive_job(scene.server, source, await _archive_of(source), KEYS.job("a1"))


async def unarchive_a1(scene: Scene) -> Moved:
    return await unarchive_job(scene.server, LogSource(scene.server), KEYS.job("a1"))


async def a1_is_whole(scene: Scene) -> None:
    assert await text_of(scene, "a1") == ["first", "True", "late"]
    assert await status_of(scene, "a1") == "completed"
    assert await seal_a1(scene) in (Sealed.SEALED, Sealed.ALREADY)
    assert await scene.repository.verify("a1", deep=True) == []


async def delete_a1(scene: Scene) -> bool:
    return await delete_job(scene.server, LogSource(scene.server), KEYS.job("a1"), Reason.ASKED)


async def delete_log_of_a1(scene: Scene) -> bool:
    return await delete_log(scene.server, LogSource(scene.server), KEYS.job("a1"))


async def a1_has_no_log(scene: Scene) -> None:
    """Nothing of its log is left but where it ended, and no repeated deletion finds anything."""
    await delete_log_of_a1(scene)
    assert not await delete_log_of_a1(scene)
    with pytest.raises(LogDeletedError):
        await text_of(scene, "a1")
    assert await status_of(scene, "a1") == "completed"
    left = await dump(scene.server)
    assert not any(":segment:" in key for key in left)
    assert b"first" not in repr(left).encode()
    assert await scene.repository.verify("a1", deep=True) == []


async def a1_is_gone(scene: Scene) -> None:
    """Nothing of it is left but the tombstone, and no repeated deletion finds anything."""
    assert not await delete_a1(scene)
    with pytest.raises(JobGoneError):
        await scene.repository.create_job(Job(id="a1", status="queued"))
    left = [key for key in await dump(scene.server) if key.endswith(":a1") or ":a1:" in key]
    assert left == []


async def with_an_account(scene: Scene) -> None:
    await scene.repository.create_user(User(id="u1", name="Ada", email="ada@example.org", created_at=NOW))
    await scene.repository.create_api_key(APIKey(id="k1", user_id="u1", name="ci", key_hash="f" * 64, created_at=NOW))


async def delete_the_account(scene: Scene) -> int:
    return await delete_account(scene.server, KEYS, "u1")


async def the_account_is_gone(scene: Scene) -> None:
    """A repeated deletion finds nothing, and removes what another one has left."""
    await delete_the_account(scene)
    assert [await scene.repository.list_users(), await scene.repository.list_api_keys()] == [[], []]
    left = {key for key in await dump(scene.server) if ":accounts}:" in key}
    assert left <= {KEYS.store}


async def write_tickets_anew(scene: Scene) -> None:
    await scene.server.run(REWRITE_TICKETS, *REWRITE_TICKETS.order(RewriteTicketsCall("{ci:0}:dispatch:default")))


async def a1_is_next(scene: Scene) -> None:
    """Its ticket is there once, or will be when the queue is mended, and it is taken before others."""
    await scene.repository.rebuild()
    [claimed] = await claims.claim(scene.repository, "default", "c1", 1, LEASE)
    assert claimed.job.id == "a1"
    await scene.repository.writer("a1", claimed.claim, claimed).complete(True, NOW)


async def share_partitions(scene: Scene) -> int:
    await share(scene.server, KEYS, "default", "2", 60_000)
    return await share(scene.server, KEYS, "default", "1", 60_000)


async def one_shares_partitions(scene: Scene) -> None:
    assert await share(scene.server, KEYS, "default", "2", 0) <= 1
    assert await share_partitions(scene) == 2


WEBHOOK = Webhook(
    id="w1",
    url="https://a.example/",
    user_id="u1",
    events=("job.ended",),
    created_ms=1,
    enabled_ms=1,
    secrets=(Secret("whsec_AAAA"),),
)
SENDER = "t" * 16
WAITING = Message("msg_w1_x", "job.ended", 1, "a1", "completed")


def webhooks_of(scene: Scene) -> WebhookStore:
    return WebhookStore(scene.server, KEYS, Groups(scene.server, KEYS))


async def with_a_webhook(scene: Scene) -> None:
    """Have one beside another, a message that waits for it, and somebody who sends."""
    other = replace(WEBHOOK, id="w2").to_text()
    await scene.server.read("HSET", account_key(KEYS, "webhooks"), "w1", WEBHOOK.to_text(), "w2", other)
    await scene.server.read("HSET", account_key(KEYS, "webhook-queue", "w1"), WAITING.id, WAITING.to_text())
    await scene.server.read("HSET", account_key(KEYS, "webhook-sender"), "holder", SENDER, "until", 1)


def outbox_of(scene: Scene) -> Outbox:
    outbox = Outbox(scene.server, KEYS)
    outbox._token = SENDER
    outbox._texts = {"w1": WEBHOOK.to_text()}
    return outbox


async def settle_the_webhook(scene: Scene) -> bool:
    """Have one message take another's place, and something noticed."""
    other = replace(WAITING, id="msg_w1_y", attempts=1)
    return await outbox_of(scene).write(WEBHOOK.noticed(7, "something"), [other], [WAITING.id])


async def the_webhook_is_settled(scene: Scene) -> None:
    """Repeated, it is the same; nothing that waited has gone before what took its place was there."""
    assert set(await outbox_of(scene).messages("w1")) & {WAITING.id, "msg_w1_y"}
    assert await settle_the_webhook(scene)
    assert set(await outbox_of(scene).messages("w1")) == {"msg_w1_y"}


async def take_the_turn(scene: Scene) -> int | None:
    return await outbox_of(scene).hold()


async def it_has_the_turn(scene: Scene) -> None:
    assert await Outbox(scene.server, KEYS).hold() is None or await take_the_turn(scene) is None
    assert await scene.server.read("HLEN", account_key(KEYS, "webhook-sender")) == 2


async def change_the_webhook(scene: Scene) -> None:
    await webhooks_of(scene).test("w1")


async def the_webhook_is_changed(scene: Scene) -> None:
    """Once, or once more if it had been refused; the sender looks again in any case."""
    found = (await webhooks_of(scene).get("w1")).webhook
    assert found.tests <= 1
    assert found.tests == 0 or await scene.server.read("HGET", account_key(KEYS, "webhook-sender"), "changes")
    await webhooks_of(scene).delete("w1")


async def delete_the_webhook(scene: Scene) -> None:
    await webhooks_of(scene).delete("w1")


async def the_webhook_is_gone(scene: Scene) -> None:
    """Its queue has gone with it, or before it."""
    if await scene.server.read("HEXISTS", account_key(KEYS, "webhooks"), "w1"):
        await delete_the_webhook(scene)
    assert not any("webhook-queue" in key for key in await dump(scene.server))
    assert [listed.webhook.id for listed in await webhooks_of(scene).all()] == ["w2"]


OTHERS = {
    "webhook": Operation(
        script="change_webhook", prepare=with_a_webhook, act=change_the_webhook, check=the_webhook_is_changed
    ),
    "end of a webhook": Operation(
        script="change_webhook", prepare=with_a_webhook, act=delete_the_webhook, check=the_webhook_is_gone
    ),
    "sending": Operation(
        script="write_outbox", prepare=with_a_webhook, act=settle_the_webhook, check=the_webhook_is_settled
    ),
    "turn to send": Operation(script="hold_sender", prepare=with_a_webhook, act=take_the_turn, check=it_has_the_turn),
    "share": Operation(script="share", prepare=waiting, act=share_partitions, check=one_shares_partitions),
    "delete": Operation(script="delete", prepare=ended_and_late, act=delete_a1, check=a1_is_gone),
    "delete_log": Operation(script="delete_log", prepare=ended_and_late, act=delete_log_of_a1, check=a1_has_no_log),
    "account": Operation(
        script="delete_account", prepare=with_an_account, act=delete_the_account, check=the_account_is_gone
    ),
    "tickets": Operation(script="rewrite_tickets", prepare=waiting, act=write_tickets_anew, check=a1_is_next),
    "seal": Operation(script="seal", prepare=ended_and_late, act=seal_a1, check=a1_is_whole),
    "archive": Operation(script="archive", prepare=sealed, act=archive_a1, check=a1_is_whole),
    "unarchive": Operation(script="archive", prepare=archived, act=unarchive_a1, check=a1_is_whole),
}
