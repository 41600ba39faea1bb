"""Send what happens to jobs to all webhooks: one process at a time, each webhook by a task of its own.

Facts are acknowledged when the messages that they make stand in the queues, and a message leaves its queue when its
receiver has it. So whoever is stopped in between leaves nothing out, and may send something twice under the same id.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol

from ci_common.errors import RepositoryError
from ci_eventstore.accounts.records import encode_flag
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_text
from ci_eventstore.connection.way import in_a_hurry
from ci_eventstore.errors import GroupDroppedError, ReadOnlyAccessError, StoreUnavailableError
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.facts.facts import JobFact
from ci_eventstore.facts.groups import Groups
from ci_eventstore.facts.reader import FactBatch, FactReader
from ci_eventstore.job_fields import job_json
from ci_eventstore.jobs.records import read_records
from ci_eventstore.jobs.state import JobState, to_job
from ci_eventstore.keys import Keys
from ci_eventstore.webhooks.delivery import Message, Outcome, admit, begun_anew, plan, settle, signed
from ci_eventstore.webhooks.outbox import Outbox, SenderReplacedError
from ci_eventstore.webhooks.store import GROUP
from ci_eventstore.webhooks.webhook import GAP, TEST, Webhook

logger = logging.getLogger("ci_eventstore.webhooks")

#: How often the lease is renewed, owners' changes are looked for, and pauses are measured anew; and how often another
#: process tries to take over.
LOOK_SECONDS = 2.0
#: The lease of the reader of facts, within which it looks three times.
READ_SECONDS = 15.0
#: Entries of facts that are read at a time.
FACT_ENTRIES = 100
#: How soon a message whose job can't be read is looked at again.
AWAY_MS = 2_000
MISSED = "events may be missing: the store was restored, or nobody has sent for a day"


class Post(Protocol):
    """What posts a message; `Poster.post` does."""

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Awaitable[Outcome]:
        """Post once, and return what came of it."""


class Endpoint:
    """A webhook, what waits for it, and the task that sends it."""

    def __init__(self, webhook: Webhook, messages: dict[str, Message]) -> None:
        self.webhook = webhook
        self.messages = messages
        self.is_stirred = asyncio.Event()
        self.task: asyncio.Task[NoReturn] | None = None

    def take_up(self, webhook: Webhook) -> None:
        """Go on with the webhook as its owner has changed it."""
        was_enabled = webhook.enabled_ms != self.webhook.enabled_ms
        self.webhook = webhook
        if was_enabled:
            self.messages = {message.id: message for message in begun_anew(webhook, self.messages.values())}
        self.is_stirred.set()


@dataclass(frozen=True)
class Means:
    """What sending takes: the parts of a store, and how a message is posted."""

    nodes: Nodes
    keys: Keys
    source: LogSource
    groups: Groups
    post: Post


class Sender:
    """Sends for one store, while no other process does."""

    def __init__(self, means: Means) -> None:
        self._means = means

    async def run(self) -> None:
        """Send until cancelled; whatever goes wrong is logged, and then it begins anew.

        In a store that was opened for reading, nothing is sent.
        """
        outage = self._means.nodes.outages.of(logger, "sending webhooks: %s", "webhooks are sent again")
        may_write = True
        while may_write:
            outbox, is_mine = Outbox(self._means.nodes, self._means.keys), False
            try:
                is_mine = await outbox.hold() is not None
                outage.worked()
                if is_mine:
                    await Shift(self._means, outbox).work()
            except* SenderReplacedError:
                logger.info("another process sends webhooks now")
            except* ReadOnlyAccessError:
                may_write = False
                logger.warning("no webhooks are sent: the store was opened for reading")
            except* RepositoryError as errors:
                outage.failed(errors.exceptions[0])
            except* Exception as errors:  # noqa: BLE001 - it is logged, and the next shift begins anew
                self._means.nodes.outages.fault(logger, "sending webhooks", errors)
            finally:
                if is_mine:
                    # If that fails, the lease ends by itself.
                    with contextlib.suppress(RepositoryError), in_a_hurry():
                        await outbox.release()
            await asyncio.sleep(LOOK_SECONDS)


class Shift:
    """The time for which one process sends."""

    def __init__(self, means: Means, outbox: Outbox) -> None:
        self._means = means
        self._outbox = outbox
        self._endpoints: dict[str, Endpoint] = {}
        self._changes = -1
        self._reader: asyncio.Task[NoReturn] | None = None
        #: Held from a decision until it stands in the store.
        self._deciding = asyncio.Lock()

    async def work(self) -> NoReturn:
        """Send until this process is no longer the one; SenderReplacedError, StoreError."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                async with self._deciding:
                    await self._refresh(tasks)
                for endpoint in self._endpoints.values():
                    endpoint.is_stirred.set()
                await asyncio.sleep(LOOK_SECONDS)

    async def _refresh(self, tasks: asyncio.TaskGroup) -> None:
        """Renew the lease, and take up all that owners have changed until now; SenderReplacedError, StoreError."""
        changes = await self._outbox.hold()
        if changes is None:
            raise SenderReplacedError
        if changes != self._changes:
            await self._load(tasks)
            self._changes = changes

    async def _load(self, tasks: asyncio.TaskGroup) -> None:
        webhooks = await self._outbox.webhooks()
        for webhook_id in self._endpoints.keys() - webhooks.keys():
            gone = self._endpoints.pop(webhook_id)
            assert gone.task is not None
            gone.task.cancel()
        for webhook in webhooks.values():
            known = self._endpoints.get(webhook.id)
            if known is None:
                messages = begun_anew(webhook, (await self._outbox.messages(webhook.id)).values())
                known = Endpoint(webhook, {message.id: message for message in messages})
                known.task = tasks.create_task(self._deliver(known, tasks))
                self._endpoints[webhook.id] = known
            known.take_up(webhook)
            await self._queue_tests(known)
        if self._endpoints and self._reader is None:
            self._reader = tasks.create_task(self._read(tasks))
        elif not self._endpoints and self._reader is not None:
            self._reader.cancel()
            self._reader = None
            # Without a group, the store keeps no facts.
            await self._means.groups.drop_where_possible(GROUP)

    async def _queue_tests(self, endpoint: Endpoint) -> None:
        """Queue the test messages that the owner has asked for since."""
        webhook, now = endpoint.webhook, self._outbox.now_ms
        numbers = range(webhook.tests_queued + 1, webhook.tests + 1)
        if numbers and webhook.is_enabled:
            tests = [Message(_message_id(webhook, f"test-{number}"), TEST, now) for number in numbers]
            await self._queue(endpoint, tests, replace(webhook, tests_queued=webhook.tests))

    async def _queue(self, endpoint: Endpoint, new: Sequence[Message], webhook: Webhook) -> bool:
        """Put messages into a queue, and change the webhook; False if it isn't as it was known."""
        webhook, taken = admit(webhook, endpoint.messages.values(), new, self._outbox.now_ms)
        if not taken and webhook == endpoint.webhook:
            return True
        if not await self._outbox.write(webhook, taken):
            return False
        if endpoint.webhook.is_enabled and not webhook.is_enabled:
            _log_notice(webhook)
        endpoint.webhook = webhook
        endpoint.messages |= {message.id: message for message in taken}
        endpoint.is_stirred.set()
        return True

    async def _read(self, tasks: asyncio.TaskGroup) -> NoReturn:
        """Put into the queues what happens; a store that is away disturbs nothing that waits there already."""
        nodes, groups = self._means.nodes, self._means.groups
        outage = nodes.outages.of(logger, "reading what webhooks have to be sent: %s")
        while True:
            # Whoever has the sender's lease reads.
            reader = FactReader(nodes, groups, GROUP, READ_SECONDS, FACT_ENTRIES, takes_over=True)
            try:
                async with aclosing(reader.batches()) as batches:
                    async for batch in batches:
                        await self._take(batch, tasks)
                        with contextlib.suppress(StoreUnavailableError):
                            await batch.acknowledge()
                        outage.worked()
            except GroupDroppedError:
                # It begins anew, with a gap, if there are webhooks still.
                logger.info("the group %s was dropped", GROUP)
            except RepositoryError as error:
                outage.failed(error)
            await asyncio.sleep(LOOK_SECONDS)

    async def _take(self, batch: FactBatch, tasks: asyncio.TaskGroup) -> None:
        """Queue what a batch of facts has for each webhook, those that were added until now."""
        async with self._deciding:
            await self._refresh(tasks)
            owners = await self._owners(batch.facts)
            waiting = set(self._endpoints)
            while waiting:
                for endpoint in [self._endpoints[webhook_id] for webhook_id in waiting]:
                    if await self._queue_batch(endpoint, batch, owners):
                        waiting.remove(endpoint.webhook.id)
                if waiting:
                    await self._refresh(tasks)
                    waiting &= self._endpoints.keys()

    async def _queue_batch(self, endpoint: Endpoint, batch: FactBatch, owners: Mapping[str, str | None]) -> bool:
        webhook, now = endpoint.webhook, self._outbox.now_ms
        new = _messages(webhook, batch.facts, owners)
        if batch.has_gap and webhook.is_enabled:
            place = batch.facts[-1].id if batch.facts else f"{batch.partition}-{now}"
            new.insert(0, Message(_message_id(webhook, f"gap-{place}"), GAP, now))
            webhook = webhook.noticed(now, MISSED)
        return await self._queue(endpoint, new, webhook)

    async def _owners(self, facts: Sequence[JobFact]) -> dict[str, str | None]:
        """Return whose jobs they are, as far as they are there."""
        if all(endpoint.webhook.user_id is None for endpoint in self._endpoints.values()):
            return {}
        job_ids = list(dict.fromkeys(fact.job_id for fact in facts))
        keys = [self._means.keys.job(job_id) for job_id in job_ids]
        records = await read_records(self._means.nodes, self._means.source, keys)
        owners = {}
        for job_id, record in zip(job_ids, records, strict=True):
            if isinstance(record, JobState):
                owners[job_id] = record.user_id
            elif record is not None:
                logger.warning("a job that can't be read is kept from users' webhooks: %s", record)
        return owners

    async def _deliver(self, endpoint: Endpoint, tasks: asyncio.TaskGroup) -> NoReturn:
        """Send what waits for a webhook."""
        while True:
            endpoint.is_stirred.clear()
            planned = plan(endpoint.webhook, endpoint.messages.values(), self._outbox.now_ms)
            if not planned.messages or not self._outbox.is_mine:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if planned.wait_ms is None else planned.wait_ms / 1000):
                        await endpoint.is_stirred.wait()
                continue
            webhook = endpoint.webhook
            outcomes = await asyncio.gather(*(self._try(webhook, message) for message in planned.messages))
            tried = list(zip(planned.messages, outcomes, strict=True))
            async with self._deciding:
                await self._settle(endpoint, tried, tasks)

    async def _settle(
        self, endpoint: Endpoint, tried: Sequence[tuple[Message, Outcome | None]], tasks: asyncio.TaskGroup
    ) -> None:
        """Note what has come of some tries; what wasn't tried at all, as its job can't be read now, waits a while."""
        now, jitter = self._outbox.now_ms, random.random()
        for message, outcome in tried:
            if outcome is None:
                endpoint.messages[message.id] = replace(message, due_ms=now + AWAY_MS)
        results = [(message, outcome) for message, outcome in tried if outcome is not None]
        if not results:
            return
        while True:
            before, settled = endpoint.webhook, settle(endpoint.webhook, results, now, jitter)
            if await self._outbox.write(settled.webhook, settled.kept, settled.done):
                break
            # Its owner has changed it meanwhile.
            await self._refresh(tasks)
            if self._endpoints.get(before.id) is not endpoint:
                return
        if settled.webhook.notices != before.notices:
            _log_notice(settled.webhook)
        endpoint.webhook = settled.webhook
        for message_id in settled.done:
            endpoint.messages.pop(message_id, None)
        endpoint.messages |= {message.id: message for message in settled.kept}

    async def _try(self, webhook: Webhook, message: Message) -> Outcome | None:
        """Post a message with its job as it is now; None if that can't be read at the moment."""
        try:
            if await self._is_shut_out(webhook.user_id):
                return Outcome(error="its user is inactive")
            body, now = message.body(await self._job(webhook, message)), self._outbox.now_ms
            headers = signed(message.id, body, webhook.keys_at(now), now // 1000)
            return await self._means.post(webhook.url, headers, body)
        except RepositoryError:
            return None
        except Exception as error:  # noqa: BLE001 - it is logged, and other webhooks go on
            self._means.nodes.outages.fault(logger, "sending a message", error)
            return Outcome(error="it can't be sent")

    async def _is_shut_out(self, user_id: str | None) -> bool:
        """Tell whether a user may see nothing now; an application's own users aren't in the store."""
        if user_id is None:
            return False
        found = await self._means.nodes.read("HGET", self._means.keys.user(user_id), "is_active")
        return found is not None and as_text(found) == encode_flag(False)

    async def _job(self, webhook: Webhook, message: Message) -> dict[str, Any] | None:
        """Return a message's job as it is now, None if it is gone, can't be read, or isn't the owner's."""
        if message.job_id is None:
            return None
        [record] = await read_records(self._means.nodes, self._means.source, [self._means.keys.job(message.job_id)])
        if not isinstance(record, JobState) or webhook.user_id not in (None, record.user_id):
            return None
        return job_json(to_job(message.job_id, record), is_public=True)


def _messages(webhook: Webhook, facts: Sequence[JobFact], owners: Mapping[str, str | None]) -> list[Message]:
    """Return what a webhook is sent of some facts. Pure."""
    found, user_id = [], webhook.user_id
    # A job that is gone tells whose it was only by its deletion.
    gone = {fact.job_id for fact in facts if user_id is not None and fact.is_of(user_id)}
    for fact in facts:
        event = f"job.{fact.kind.name.lower()}"
        is_theirs = user_id is None or owners.get(fact.job_id) == user_id or fact.job_id in gone
        if is_theirs and webhook.wants(event):
            time_ms = int(fact.time.timestamp() * 1000)
            found.append(Message(_message_id(webhook, fact.id), event, time_ms, fact.job_id, fact.status.value))
    return found


def _message_id(webhook: Webhook, place: str) -> str:
    return f"msg_{webhook.id}_{place}"


def _log_notice(webhook: Webhook) -> None:
    logger.warning("webhook %s: %s", webhook.id, webhook.notices[-1].text, extra={"webhook_id": webhook.id})
