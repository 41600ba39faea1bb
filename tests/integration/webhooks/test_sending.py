"""What receivers get of what happens to jobs: each event, signed, in whatever state they are."""

import asyncio
import json

import pytest

from ci_common.models import Job, User, utc_now
from ci_eventstore.facts.groups import Begins, Groups
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.webhooks import delivery
from ci_eventstore.webhooks.store import GROUP
from tests.integration.webhooks.conftest import Clock, run_job, sending, until
from tests.receivers import Received, Receiver, answering, receiver, status
from tests.waiting import wait_until

LOCAL = "127.0.0.1"


def told(opened: Receiver, secret: str) -> list[tuple[str, str]]:
    """Return the type and the job of each message, all of which the foreign verifier accepts."""
    return [
        (data["type"], data["data"].get("job_id", "")) for data in (one.verified(secret) for one in opened.received)
    ]


async def is_empty(repository: RedisJobRepository, webhook_id: str) -> bool:
    """Tell whether nothing waits for a webhook."""
    return (await repository.engine.webhooks.get(webhook_id)).waiting == 0


async def test_a_receiver_gets_each_event_signed(repository: RedisJobRepository) -> None:
    """With the job as it is, also what happened before somebody sent; the foreign verifier accepts each."""
    async with receiver() as opened:
        hook = await repository.engine.webhooks.add(opened.url)
        await run_job(repository, "a", "ada")
        async with sending(repository, LOCAL):
            await wait_until(lambda: len(opened.received) >= 3)
        [secret] = hook.secrets
        assert sorted(told(opened, secret.text)) == [("job.created", "a"), ("job.ended", "a"), ("job.started", "a")]
        assert len(set(opened.ids)) == 3
        assert {one.line for one in opened.received} == {"POST /hook HTTP/1.1"}
        [ended] = [one.verified(secret.text) for one in opened.received if b"job.ended" in one.body]
        assert ended["data"]["status"] == "completed"
        assert ended["data"]["job"]["name"] == "the job a"
        assert ended["data"]["job"]["status"] == "completed"
        assert not any(b"container" in one.body or b"user_id" in one.body for one in opened.received)


async def test_users_get_what_happens_to_their_jobs(repository: RedisJobRepository) -> None:
    """Of the types that they asked for, and nothing of others."""
    webhooks = repository.engine.webhooks
    async with receiver() as hers, receiver() as his, receiver() as all_of_it:
        for user, opened in (("ada", hers), ("bob", his), (None, all_of_it)):
            await webhooks.add(opened.url, user_id=user, events=["job.ended", "job.deleted"])
        async with sending(repository, LOCAL):
            for job_id, user in (("a", "ada"), ("b", "bob"), ("n", None)):
                await run_job(repository, job_id, user)
            await wait_until(lambda: len(all_of_it.received) == 3 and bool(hers.received and his.received))
            # The job is gone by the time its deletion is read.
            for job_id in ("n", "a", "b"):
                await repository.delete_job(job_id)
            await wait_until(lambda: len(all_of_it.received) == 6 and len(hers.received) + len(his.received) == 4)
        for opened, job_id in ((hers, "a"), (his, "b")):
            told_of = [json.loads(one.body) for one in opened.received]
            assert {one["data"]["job_id"] for one in told_of} == {job_id}
            assert [one["type"] for one in told_of] == ["job.ended", "job.deleted"]
            assert told_of[1]["data"]["job"] is None


async def test_a_dead_a_slow_and_a_failing_receiver_delay_nobody(repository: RedisJobRepository) -> None:
    """Each has a task of its own; a redirect isn't followed, and an endless answer isn't read."""
    never = asyncio.Event()

    async def hang(request: Received) -> bytes:
        await never.wait()
        return b""

    async def talk(request: Received) -> bytes:
        return b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000

    async with receiver() as good, receiver(hang) as slow, receiver(talk) as long, receiver() as secret_place:
        redirect = answering(307, f"location: {secret_place.url}")
        async with receiver(answering(500)) as failing, receiver(redirect) as elsewhere, receiver() as gone:
            hooks = [
                await repository.engine.webhooks.add(one.url, events=["job.ended"])
                for one in (slow, long, failing, elsewhere, gone, good)
            ]
        async with receiver(answering(500)) as failing, receiver(redirect) as elsewhere:
            # Their ports are others now: two addresses are dead, and these two answer.
            hooks += [
                await repository.engine.webhooks.add(one.url, events=["job.ended"]) for one in (failing, elsewhere)
            ]
            async with sending(repository, LOCAL, seconds=20):
                await run_job(repository, "a")
                await wait_until(
                    lambda: bool(good.received and slow.received and failing.received and elsewhere.received)
                )

                async def has_noted() -> bool:
                    found = await repository.engine.webhooks.all()
                    return sum(bool(listed.webhook.last_error) for listed in found) == len(hooks) - 2

                await until(has_noted)
        assert secret_place.connections == 0
        noted = {listed.webhook.id: listed for listed in await repository.engine.webhooks.all()}
        assert noted[hooks[5].id].waiting == 0
        assert [noted[hook.id].waiting for hook in hooks[:5] + hooks[6:]] == [1] * 7
        assert "head is longer" in str(noted[hooks[1].id].webhook.last_error)
        assert noted[hooks[6].id].webhook.last_error == "the receiver answered 500"
        assert noted[hooks[7].id].webhook.last_error == "the receiver answered 307"


@pytest.mark.slow  # Looks and pauses add up.
async def test_a_receiver_that_was_away_for_an_hour_gets_everything(
    repository: RedisJobRepository, clock: Clock
) -> None:
    """After tries whose pauses grow; nothing came twice, and the ids say which is which."""
    is_away = True

    async def answer(request: Received) -> bytes:
        return status(503) if is_away else status(200)

    async with receiver(answer) as opened, sending(repository, LOCAL):
        hook = await repository.engine.webhooks.add(opened.url, events=["job.created"])
        jobs = [f"job-{number}" for number in range(20)]
        for job_id in jobs:
            await repository.create_job(Job(id=job_id, status="queued"))
        for failures, minutes in enumerate((0.1, 0.5, 1, 3, 7, 15, 15, 15, 15), start=1):

            async def has_failed(failures: int = failures) -> bool:
                return (await repository.engine.webhooks.get(hook.id)).webhook.failures >= failures

            await until(has_failed)
            clock.turn(minutes / 60)
        found = await repository.engine.webhooks.get(hook.id)
        assert found.webhook.failures >= 9
        assert found.webhook.is_enabled
        # While it was away one message was tried at a time.
        assert len(opened.received) <= delivery.TOGETHER + found.webhook.failures
        is_away = False
        opened.received.clear()
        clock.turn(0.25)
        await wait_until(lambda: len(set(opened.ids)) == 20)
        await until(lambda: is_empty(repository, hook.id))
        assert sorted(opened.ids) == sorted(set(opened.ids))
        assert sorted(job for _, job in told(opened, hook.secrets[0].text)) == sorted(jobs)
        assert (await repository.engine.webhooks.get(hook.id)).webhook.failures == 0


async def test_410_disables_at_once(repository: RedisJobRepository, caplog: pytest.LogCaptureFixture) -> None:
    """With a notice; once it is enabled, what waited is sent, and what happened since."""
    async with receiver(answering(410)) as opened, sending(repository, LOCAL):
        webhooks = repository.engine.webhooks
        hook = await webhooks.add(opened.url, events=["job.created"])
        await repository.create_job(Job(id="a", status="queued"))

        async def is_disabled() -> bool:
            return not (await webhooks.get(hook.id)).webhook.is_enabled

        await until(is_disabled)
        assert "410" in caplog.text
        await repository.create_job(Job(id="meanwhile", status="queued"))
        async with receiver() as other:
            # Somebody else is told of it, so it has been read.
            await webhooks.add(other.url, events=["job.created"])
            await repository.create_job(Job(id="b", status="queued"))
            await wait_until(lambda: bool(other.received))
        assert len(opened.received) == 1
        opened.answer = None
        opened.received.clear()
        await webhooks.enable(hook.id)
        await wait_until(lambda: len(opened.received) == 1)
        await repository.create_job(Job(id="c", status="queued"))
        await wait_until(lambda: len(opened.received) == 2)
        assert [job for _, job in told(opened, hook.secrets[0].text)] == ["a", "c"]


async def test_test_messages_and_new_secrets(repository: RedisJobRepository) -> None:
    """A test is sent once, and signed with both secrets after a rotation; deleting ends it all."""
    webhooks = repository.engine.webhooks
    async with receiver() as opened, sending(repository, LOCAL):
        hook = await webhooks.add(opened.url)
        await webhooks.test(hook.id)
        await wait_until(lambda: len(opened.received) == 1)
        rotated = await webhooks.rotate(hook.id)
        await webhooks.test(hook.id)
        await wait_until(lambda: len(opened.received) == 2)
        assert [one.verified(hook.secrets[0].text)["type"] for one in opened.received] == ["webhook.test"] * 2
        assert opened.received[1].verified(rotated.secrets[0].text)["data"] == {}
        await webhooks.delete(hook.id)

        async def is_dropped() -> bool:
            return not any(group.name == GROUP for group in await repository.engine.facts.all())

        await until(is_dropped)
        await run_job(repository, "a")
    assert len(opened.received) == 2
    assert [key async for page in repository.engine.nodes.scan("*webhook-queue*") for key in page] == []
    assert await repository.engine.nodes.read("HLEN", "{ci:accounts}:webhook-sender") <= 1


async def test_an_address_that_is_not_public_is_refused(repository: RedisJobRepository) -> None:
    """Whatever name it has, and whatever the address that it is written as; nobody connects."""
    webhooks = repository.engine.webhooks
    async with receiver() as opened, sending(repository, "10.0.0.0/8"):
        port = opened.port
        urls = [opened.url, f"http://localhost:{port}/", f"https://127.1:{port}/", f"https://2130706433:{port}/"]
        urls += [f"https://0x7f000001:{port}/", f"https://0:{port}/"]
        for url in urls:
            await webhooks.test((await webhooks.add(url)).id)

        async def are_refused() -> bool:
            return all(listed.webhook.failures for listed in await webhooks.all())

        await until(are_refused)
        said = [str(listed.webhook.last_error) for listed in await webhooks.all()]
        assert all("may not be reached" in text for text in said), said
    assert opened.connections == 0


@pytest.mark.slow  # Looks and pauses add up.
async def test_a_user_who_was_shut_out_gets_nothing(repository: RedisJobRepository) -> None:
    """Until the account is active again, nothing leaves the store; then what waited does."""
    webhooks = repository.engine.webhooks
    await repository.create_user(User(id="ada", name="Ada", email="ada@example.org", created_at=utc_now()))
    await repository.update_user_active("ada", False)
    async with receiver() as opened, sending(repository, LOCAL):
        hook = await webhooks.add(opened.url, user_id="ada")
        await repository.create_job(Job(id="a", status="queued", user_id="ada"))

        async def is_held_back() -> bool:
            return (await webhooks.get(hook.id)).webhook.last_error == "its user is inactive"

        await until(is_held_back)
        assert opened.connections == 0
        await repository.update_user_active("ada", True)
        await webhooks.enable(hook.id)
        await wait_until(lambda: bool(opened.received))


@pytest.mark.slow  # Looks and pauses add up.
async def test_a_gap_is_told_to_owner_and_receiver(repository: RedisJobRepository) -> None:
    """After a restore nobody knows what has been missed: one message and one notice say so."""
    webhooks = repository.engine.webhooks
    async with receiver() as opened, sending(repository, LOCAL):
        hook = await webhooks.add(opened.url, events=["job.created"])
        await repository.create_job(Job(id="a", status="queued"))
        await wait_until(lambda: len(opened.received) == 1)
        await repository.restored()
        await wait_until(lambda: len(opened.received) == 2)
        await repository.create_job(Job(id="b", status="queued"))
        await wait_until(lambda: len(opened.received) == 3)
        assert told(opened, hook.secrets[0].text) == [("job.created", "a"), ("webhook.gap", ""), ("job.created", "b")]
        [notice] = (await webhooks.get(hook.id)).webhook.notices
        assert "may be missing" in notice.text


@pytest.mark.slow  # Looks and pauses add up.
async def test_a_full_queue_disables_and_loses_nothing_of_it(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits stays, and a notice says from when on nothing was queued."""
    monkeypatch.setattr(delivery, "MAX_WAITING", 5)
    webhooks = repository.engine.webhooks
    async with receiver(answering(500)) as opened, sending(repository, LOCAL):
        hook = await webhooks.add(opened.url, events=["job.created"])
        for number in range(8):
            await repository.create_job(Job(id=f"job-{number}", status="queued"))

        async def is_disabled() -> bool:
            return not (await webhooks.get(hook.id)).webhook.is_enabled

        await until(is_disabled)
        found = await webhooks.get(hook.id)
        assert found.waiting == 5
        assert "5 messages wait; job.created of" in found.webhook.notices[-1].text
        opened.answer = None
        opened.received.clear()
        await webhooks.enable(hook.id)
        await wait_until(lambda: len(set(opened.ids)) == 5)
        assert {job for _, job in told(opened, hook.secrets[0].text)} == {f"job-{number}" for number in range(5)}


async def test_a_reader_that_was_killed_keeps_nobody_waiting(repository: RedisJobRepository) -> None:
    """Its lease counts for nothing once its sender's is over."""
    async with receiver() as opened:
        await repository.engine.webhooks.add(opened.url, events=["job.created"])
        for tag in repository.engine.keys.tags:
            await repository.engine.facts.read(tag, GROUP, "killed", 600, limit=0)
        await repository.create_job(Job(id="a", status="queued"))
        async with sending(repository, LOCAL):
            await wait_until(lambda: bool(opened.received))


async def test_facts_are_owed_from_the_first_webhook_on(repository: RedisJobRepository) -> None:
    """Also if nobody sends yet and another group has older facts to read; the group begins without a gap."""
    groups: Groups = repository.engine.facts
    await groups.read("{ci:0}", "others", "token", 1.0, limit=0, begins=Begins.IF_FREE)
    await repository.create_job(Job(id="before", status="queued"))
    async with receiver() as opened:
        hook = await repository.engine.webhooks.add(opened.url, events=["job.created"])
        await repository.create_job(Job(id="after", status="queued"))
        async with sending(repository, LOCAL):
            await wait_until(lambda: bool(opened.received))
        assert told(opened, hook.secrets[0].text) == [("job.created", "after")]
        assert (await repository.engine.webhooks.get(hook.id)).webhook.notices == ()
