"""Send a command until there is an answer, or patience is over: the loop, wherever the command goes."""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from redis import exceptions

from ci_eventstore.connection.failures import outcome_of, partition_of, translate, words_of
from ci_eventstore.connection.outage_log import OutageLog
from ci_eventstore.connection.outcomes import Kind, Outcome, Patience, Tries
from ci_eventstore.connection.replies import Reply
from ci_eventstore.connection.scripts import ClockReading
from ci_eventstore.errors import NotInitializedError

T = TypeVar("T")

logger = logging.getLogger("ci_eventstore.connection")

#: A refusal that lasts this long is mentioned in the log.
MENTIONED_SECONDS = 1.0

#: A command and its arguments.
Command = Sequence[str | int | bytes]


@dataclass(slots=True)
class Counters:
    """Numbers that only grow."""

    #: Events and facts that were appended to jobs' streams.
    appended_records: int = 0
    #: Writes under a claim that was no longer the job's.
    refused_stale_writes: int = 0
    #: Commands that were sent again, because they got no answer or a passing refusal.
    retries: int = 0
    #: Commands that failed for good.
    errors: int = 0


class Target(ABC):
    """A server that one try of a command is sent to; redis-py's errors."""

    #: What is known of the server's clock.
    clock: ClockReading | None = None
    #: The last failure of a server that gave no answer, and until when callers in a hurry take it for theirs.
    away: tuple[exceptions.RedisError, float] | None = None
    #: Sends a command, given part by part, on a connection that nobody else uses meanwhile.
    alone: Callable[..., Awaitable[Reply]]
    #: Sends one together with reads of others.
    with_reads: Callable[..., Awaitable[Reply]]
    #: Sends one together with scripts of others.
    with_scripts: Callable[..., Awaitable[Reply]]

    @abstractmethod
    async def many(self, commands: Sequence[Command], *, alone: bool) -> list[Reply]:
        """Send several commands together and return their replies, errors of the server among them."""

    @abstractmethod
    async def transaction(self, commands: Sequence[Command], *, alone: bool) -> list[Reply]:
        """Send several commands with nothing between them, and return their replies, errors among them."""


#: Sends a command to a server once; gets whether it was sent before.
Send = Callable[[Target, bool], Awaitable[Reply]]
#: Returns how long to try a command that failed so, given whether the server has ever answered.
PatienceOf = Callable[[Outcome, bool], float]


#: How long a command is tried again whose caller can do without this server, and how long it waits for a reply.
HURRIED_PATIENCE_SECONDS = 1.0
HURRIED_REPLY_SECONDS = 5.0
#: For how long such a caller doesn't ask a server that gave no answer.
AWAY_SECONDS = 5.0


@dataclass(slots=True)
class _Hurry:
    """Is over when its block is, also for tasks that were begun there."""

    is_on: bool = True


_hurry: ContextVar[_Hurry | None] = ContextVar("hurry", default=None)


@contextmanager
def in_a_hurry() -> Iterator[None]:
    """Let commands fail soon: their caller asks several servers, and goes on without those that are away."""
    hurry = _Hurry()
    token = _hurry.set(hurry)
    try:
        yield
    finally:
        hurry.is_on = False
        _hurry.reset(token)


def _is_hurried() -> bool:
    hurry = _hurry.get()
    return hurry is not None and hurry.is_on


class _Sent(NamedTuple):
    """A command; one of its words has the hash tag of the partition that it is for."""

    kind: Kind
    what: str
    words: Sequence[str | int | bytes]


class Way(ABC):
    """Leads to a server, perhaps to another one at each try."""

    #: Where the next try of a command goes, unless its last one was told otherwise.
    target: Target

    def __init__(self, name: str, patience_of: PatienceOf, counters: Counters) -> None:
        #: For messages.
        self.name = name
        self.counters = counters
        self.is_closed = False
        #: Whether it has ever led to an answer.
        self.was_reached = False
        #: Whether errors name the partition that a command is for, since other servers have others.
        self.names_partitions = False
        self._patience_of = patience_of
        self._refusals = OutageLog(logger, "%s")

    async def persist(
        self,
        kind: Kind,
        what: str,
        send: Send,
        *,
        started: float | None = None,
        patience_seconds: float | None = None,
        words: Sequence[str | int | bytes] = (),
    ) -> Reply:
        """Send until there is an answer, or patience is over.

        With `patience_seconds`, no answer is waited for longer than that. One of the `words` has the hash tag of the
        partition that the command is for.
        """
        tries = Tries(time.monotonic() if started is None else started)
        ends_at = None if patience_seconds is None else tries.started + patience_seconds
        if _is_hurried() and (kind is Kind.READ or patience_seconds is not None):
            ends_at = self._hurry(_Sent(kind, what, words), ends_at)
        told: Target | None = None
        while True:
            if self.is_closed:
                raise NotInitializedError
            sent_at, target = time.monotonic(), told or self.target
            try:
                reply = await _within(ends_at, send(target, tries.failed > 0))
            except exceptions.RedisError as error:
                outcome, told = self.after(error, outcome_of(error, kind), target, sent_at)
                pause = self._pause_after(error, outcome, _Sent(kind, what, words), tries, patience_seconds)
            else:
                self.was_reached, target.away = True, None
                return reply
            await asyncio.sleep(pause)

    async def try_once(self, send: Callable[[Target], Awaitable[T]], words: Sequence[str | int | bytes]) -> T:
        """Send reads once, and wait for the replies as long as there is time; redis-py's errors."""
        ends_at = self._hurry(_Sent(Kind.READ, "pipeline", words), None) if _is_hurried() else None
        return await _within(ends_at, send(self.target))

    @abstractmethod
    def after(
        self, error: exceptions.RedisError, outcome: Outcome, target: Target, sent_at: float
    ) -> tuple[Outcome, Target | None]:
        """Take notice of a failed try; return what it means here, and where the next try goes if not to `target`."""

    def _hurry(self, sent: _Sent, ends_at: float | None) -> float:
        """Return until when a caller in a hurry waits for an answer; raise if the server gave none a moment ago.

        Nothing of the command was sent so far.
        """
        now = time.monotonic()
        if self.target.away is not None:
            error, until = self.target.away
            if now < until:
                raise self._failure(error, outcome_of(error, Kind.READ), sent) from error
            # Of those who come next, one finds out for all.
            self.target.away = error, now + AWAY_SECONDS
        return now + HURRIED_REPLY_SECONDS if ends_at is None else ends_at

    def _failure(self, error: Exception, outcome: Outcome, sent: _Sent, *, is_unknown: bool = False) -> Exception:
        """Return our error for one of redis-py's."""
        partition = partition_of(sent.words) if self.names_partitions else None
        return translate(error, outcome, sent.what, self.name, is_unknown=is_unknown, partition=partition)

    def _pause_after(
        self,
        error: exceptions.RedisError,
        outcome: Outcome,
        sent: _Sent,
        tries: Tries,
        patience_seconds: float | None,
    ) -> float:
        """Return how long to pause after a failed try; raise our error if there is no other one."""
        now = time.monotonic()
        patience = self._patience_of(outcome, self.was_reached)
        if patience_seconds is not None:
            patience = min(patience, patience_seconds)
        if _is_hurried():
            patience = min(patience, HURRIED_PATIENCE_SECONDS)
        pause = tries.pause_after(outcome, now, patience)
        if pause is None:
            self.counters.errors += 1
            if outcome.patience is Patience.OUTAGE:
                # Of a cluster, all partitions that it has are away with it.
                self.target.away = error, now + AWAY_SECONDS
            is_unknown = sent.kind is not Kind.READ and tries.may_have_arrived
            raise self._failure(error, outcome, sent, is_unknown=is_unknown) from error
        self.counters.retries += 1
        logger.debug("sending again", extra={"command": sent.what, "error": words_of(error)})
        if outcome.patience in _SAID and now - tries.started > MENTIONED_SECONDS:
            self._refusals.failed(f"{self.name} refuses for the moment, trying again: {words_of(error)}")
        return pause


#: Refusals are mentioned; outages are by those whose calls fail.
_SAID = (Patience.REFUSAL, Patience.FULL, Patience.LOADING)


async def _within(ends_at: float | None, sending: Awaitable[T]) -> T:
    if ends_at is None:
        return await sending
    try:
        async with asyncio.timeout(max(0.0, ends_at - time.monotonic())):
            return await sending
    except TimeoutError:
        raise exceptions.TimeoutError("no answer in the time that there was") from None
