"""What a webhook sends next, and what becomes of it: the queue and its retries. Pure.

A message that fails is tried again later, after those that were tried less often; so one that its receiver can't stand
blocks no other. A webhook whose last try failed tries one message at a time, with growing pauses.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ci_eventstore.errors import StoreFormatError
from ci_eventstore.webhooks.webhook import GAP, Webhook, time_text

#: The first pause after a failure; each further one is three times as long, up to the longest.
FIRST_PAUSE_MS = 5_000
LONGEST_PAUSE_MS = 900_000
#: A webhook of which nothing was accepted for so long, in so many tries, is disabled; a message like that is given up.
RETRY_MS = 86_400_000
LEAST_TRIES = 10
#: The most messages of a webhook that may wait.
MAX_WAITING = 10_000
#: Messages that a webhook sends at the same time.
TOGETHER = 4
GONE = 410
#: What a webhook notes of an error.
MAX_ERROR_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Message:
    """A message in a webhook's queue: ids and statuses; what its receiver gets is made when it is sent."""

    #: The same however often it is sent; the receiver's `webhook-id`.
    id: str
    type: str
    time_ms: int
    job_id: str | None = None
    #: The job's, when it happened.
    status: str | None = None
    #: How often it was tried, since when, and when it may be tried again.
    attempts: int = 0
    since_ms: int = 0
    due_ms: int = 0

    def to_text(self) -> str:
        """Return what stands in the store."""
        return json.dumps(list(asdict(self).values())[1:], separators=(",", ":"))

    @classmethod
    def from_text(cls, message_id: str, text: str) -> "Message":
        """Return the message that stands in the store; StoreFormatError."""
        try:
            return cls(message_id, *json.loads(text))
        except (ValueError, TypeError) as error:
            raise StoreFormatError(f"message {message_id!r} of a webhook can't be read: {error}") from error

    def body(self, job: Mapping[str, Any] | None) -> bytes:
        """Return what is sent: JSON with the job as it is now, None of one that is gone."""
        data = {} if self.job_id is None else {"job_id": self.job_id, "status": self.status, "job": job}
        sent = {"type": self.type, "timestamp": time_text(self.time_ms), "data": data}
        return json.dumps(sent, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a try: the status of the answer, or why there was none."""

    status: int | None = None
    error: str = ""
    #: What the receiver asked for.
    retry_after_seconds: float = 0.0

    @property
    def is_accepted(self) -> bool:
        """Whether the receiver has the message."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def text(self) -> str:
        """What is noted of it."""
        return (self.error or f"the receiver answered {self.status}")[:MAX_ERROR_LENGTH]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send now; if it is nothing, for how long to wait, None: until something comes."""

    messages: Sequence[Message] = ()
    wait_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What a webhook is after some tries, which messages are done, and those that wait on as these are now."""

    webhook: Webhook
    done: Sequence[str]
    kept: Sequence[Message]


def signed(message_id: str, body: bytes, keys: Iterable[bytes], seconds: int) -> dict[str, str]:
    """Return the headers of the Standard Webhooks specification; several keys make several signatures."""
    content = b"%s.%d.%s" % (message_id.encode(), seconds, body)
    signatures = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def pause_ms(failures: int, jitter: float) -> int:
    """Return the pause after so many failures; `jitter`, from 0 to 1, takes up to half of it away."""
    whole = min(FIRST_PAUSE_MS * 3 ** min(failures - 1, 20), LONGEST_PAUSE_MS)
    return int(whole * (1 - jitter / 2))


def plan(webhook: Webhook, messages: Collection[Message], now_ms: int) -> Plan:
    """Return what a webhook sends next."""
    if not webhook.is_enabled or not messages:
        return Plan()
    if webhook.failures:
        left = _left(webhook.pause_until_ms, now_ms)
        return Plan(wait_ms=left) if left else Plan([min(messages, key=_turn)])
    due = sorted((message for message in messages if not _left(message.due_ms, now_ms)), key=_turn)[:TOGETHER]
    return Plan(due) if due else Plan(wait_ms=min(_left(message.due_ms, now_ms) for message in messages))


def _turn(message: Message) -> tuple[int, int, str]:
    return message.attempts, message.time_ms, message.id


def _left(until_ms: int, now_ms: int) -> int:
    """Return how long a pause still lasts; a longer one than any is of a clock that was ahead."""
    left = until_ms - now_ms
    return left if 0 < left <= LONGEST_PAUSE_MS else 0


def admit(
    webhook: Webhook, waiting: Collection[Message], new: Iterable[Message], now_ms: int
) -> tuple[Webhook, list[Message]]:
    """Return the webhook, and which messages go into its queue; one too many disables it, with a notice."""
    known, taken = {message.id for message in waiting}, list[Message]()
    has_gap = any(message.type == GAP and not message.attempts for message in waiting)
    for message in new:
        # One gap that nobody was told of yet stands for others.
        if not webhook.is_enabled or message.id in known or (message.type == GAP and has_gap):
            continue
        if len(known) >= MAX_WAITING:
            since = f"{message.type} of {time_text(message.time_ms)} and what comes later isn't sent"
            webhook = webhook.disabled(now_ms, f"{MAX_WAITING} messages wait; {since}")
            continue
        known.add(message.id)
        taken.append(message)
        has_gap = has_gap or message.type == GAP
    return webhook, taken


def settle(webhook: Webhook, tried: Sequence[tuple[Message, Outcome]], now_ms: int, jitter: float) -> Settled:
    """Return what comes of some tries, for the webhook and its messages; `jitter` is random, from 0 to 1."""
    failed = [(message, outcome) for message, outcome in tried if not outcome.is_accepted]
    if len(failed) < len(tried):
        webhook = replace(webhook, failures=0, failing_since_ms=None, pause_until_ms=0)
    elif failed:
        webhook = _failed(webhook, failed[-1][1], now_ms, jitter)
    if failed:
        webhook = replace(webhook, last_error=failed[-1][1].text)
    if any(outcome.status == GONE for _, outcome in failed) and webhook.is_enabled:
        webhook = webhook.disabled(now_ms, "the receiver answered 410: it wants no more")
    done = [message.id for message, outcome in tried if outcome.is_accepted]
    kept = list[Message]()
    for message, outcome in failed:
        attempts, since = message.attempts + 1, min(message.since_ms or now_ms, now_ms)
        if webhook.is_enabled and attempts >= LEAST_TRIES and now_ms - since >= RETRY_MS:
            done.append(message.id)
            webhook = webhook.noticed(now_ms, f"message {message.id} was given up after a day: {outcome.text}")
        else:
            due = now_ms + pause_ms(attempts, jitter)
            kept.append(replace(message, attempts=attempts, since_ms=since, due_ms=due))
    return Settled(webhook, done, kept)


def _failed(webhook: Webhook, outcome: Outcome, now_ms: int, jitter: float) -> Webhook:
    """Return a webhook of which nothing was accepted."""
    failures, since = webhook.failures + 1, min(webhook.failing_since_ms or now_ms, now_ms)
    wanted = min(int(outcome.retry_after_seconds * 1000), LONGEST_PAUSE_MS)
    until = now_ms + max(pause_ms(failures, jitter), wanted)
    webhook = replace(webhook, failures=failures, failing_since_ms=since, pause_until_ms=until)
    if failures >= LEAST_TRIES and now_ms - since >= RETRY_MS:
        return webhook.disabled(now_ms, f"nothing was accepted since {time_text(since)}: {outcome.text}")
    return webhook


def begun_anew(webhook: Webhook, messages: Iterable[Message]) -> list[Message]:
    """Return messages as they are once the webhook has been enabled: earlier tries don't count."""
    return [
        replace(message, attempts=0, since_ms=0, due_ms=0) if message.since_ms < webhook.enabled_ms else message
        for message in messages
    ]
