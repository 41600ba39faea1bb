"""Who makes calls to a job: how a repeated one is known, and how a writer hears that acknowledged ones were lost. Pure.

Redis keeps the order of writes, so a failover or a restore loses the last ones: where a call is there, all that came
before it is there, too. So each call says which acknowledged ones it comes after, and is refused if these are gone.
"""

import asyncio
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from ci_eventstore.errors import AcknowledgedEventsLostError, OutcomeUnknownError

#: How long a writer's token is used, and its last call asked for, when nothing comes: well below the hour that the
#: server keeps it for.
TOKEN_SECONDS = 1200.0
#: Of how many jobs the last calls are remembered, those written to last.
JOBS_KEPT = 10_000


class Call(NamedTuple):
    """What a repeated script is recognised by: a token, and the number of the call under it, from 1 on."""

    token: str
    number: int = 1
    #: Tokens whose calls, should any still be on their way, are to be refused from now on.
    closes: tuple[str, ...] = ()
    #: Tokens and numbers of acknowledged calls that this one comes after, but for that of its own token.
    after: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        """Both as one text, for scripts that keep one call of each of their callers."""
        return f"{self.token}-{self.number}"


def as_argument(calls: Iterable[tuple[str, int]]) -> str:
    """Return calls as scripts read them."""
    return " ".join([f"{token} {number}" for token, number in calls]) if calls else ""


def new_token() -> str:
    """Return a writer's token, which no other has."""
    return os.urandom(8).hex()


#: Returns how long the machine has been up, as far as it says so including the time that it slept.
seconds_since_start: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic
)


class Ledger:
    """The last acknowledged calls of this process to each job: those that no later one comes after."""

    def __init__(self) -> None:
        #: By job, the one written to last at the end: numbers by token, and when they were acknowledged.
        self._last: dict[str, dict[str, tuple[int, float]]] = {}

    def last(self, job_id: str, now: float, but: str = "") -> list[tuple[str, int]]:
        """Return a job's last calls; not those of one token, nor those that the server may have let go by now."""
        calls = self._last.get(job_id)
        if calls is None or (but in calls and len(calls) == 1):
            # As for nearly every append.
            return []
        since = now - TOKEN_SECONDS
        return [(token, number) for token, (number, at) in calls.items() if token != but and at >= since]

    def argument(self, job_id: str) -> str:
        """Return a job's last calls as scripts read them; most jobs have none, so that is asked first."""
        return as_argument(self.last(job_id, seconds_since_start())) if job_id in self._last else ""

    def note(self, job_id: str, call: Call, now: float) -> None:
        """Remember an acknowledged call instead of those that it comes after."""
        calls = self._last.pop(job_id, None) or {}
        if call.after:
            _drop(calls, call.after)
        calls[call.token] = (call.number, now)
        self._last[job_id] = calls
        if len(self._last) > JOBS_KEPT:
            del self._last[next(iter(self._last))]

    def forget(self, job_id: str, lost: Iterable[tuple[str, int]]) -> None:
        """Forget calls that the store has lost: that was told, and isn't told again."""
        _drop(self._last.get(job_id, {}), lost)

    def close(self, job_id: str) -> None:
        """Forget a job that this process is done with."""
        self._last.pop(job_id, None)


def _drop(calls: dict[str, tuple[int, float]], dropped: Iterable[tuple[str, int]]) -> None:
    for token, number in dropped:
        if token in calls and calls[token][0] <= number:
            del calls[token]


class Caller:
    """Whoever makes one call after the other: each has a token and a number, so that a repeated one is known.

    The token lasts as long as the caller, for the server keeps the last number, and what that was answered.
    """

    __slots__ = ("number", "token")

    def __init__(self) -> None:
        self.token = new_token()
        self.number = 0

    def next_call(self) -> Call:
        """Return the next call."""
        self.number += 1
        return Call(self.token, self.number)


class JobCaller(Caller):
    """One writer of one job.

    Ask for the next call, make it, as often as it takes, and say what became of it: `note_done`, `note_error`, or
    `note_unmade` if the store can't know of it. A token lasts as long as its calls succeed; after anything else the
    next call has a new one, and says which call of the old one it comes after. The token of an unknown outcome is
    closed by the next call that succeeds, so that the unknown one can't take effect after that.
    """

    __slots__ = (
        "_acknowledged_at",
        "_clock",
        "_job_id",
        "_last",
        "_ledger",
        "_unknown",
        "used_at",
    )

    def __init__(self, job_id: str, ledger: Ledger, clock: Callable[[], float] = seconds_since_start) -> None:
        self._job_id = job_id
        self._ledger = ledger
        self._clock = clock
        #: "" until the next call.
        self.token = ""
        self.number = 0
        #: Token and number of this writer's last acknowledged call.
        self._last: tuple[str, int] | None = None
        self._unknown: tuple[str, ...] = ()
        self._acknowledged_at = -math.inf
        #: When it made a call last; by that an unknown outcome grows old.
        self.used_at = -math.inf

    @property
    def is_new(self) -> bool:
        """Whether it has nothing to remember."""
        return not (self.token or self._unknown or self._last)

    @property
    def has_unknown(self) -> bool:
        """Whether a call may have taken effect, and none has succeeded since."""
        return bool(self._unknown)

    def begin(self) -> None:
        """Come after nothing: the job is created, perhaps after the store has lost one of that id."""
        self.token, self._last = "", None
        self._ledger.close(self._job_id)

    def next_call(self) -> Call:
        """Return the next call, under a new token if the old one was long unused."""
        self.used_at = now = self._clock()
        if now - self._acknowledged_at > TOKEN_SECONDS:
            self.token, self._last = "", None
        if not self.token:
            self.token, self.number = new_token(), 0
        self.number += 1
        before = self._ledger.last(self._job_id, now, self.token)
        if self._last is not None and self._last[0] != self.token and self._last not in before:
            before.append(self._last)
        return Call(self.token, self.number, self._unknown, tuple(before))

    def last_call(self) -> tuple[str, int] | None:
        """Return token and number of this writer's last acknowledged call, None if the store may have let it go."""
        return self._last if self._clock() - self._acknowledged_at <= TOKEN_SECONDS else None

    def note_done(self, call: Call) -> None:
        """Remember a call that was acknowledged."""
        self.used_at = self._acknowledged_at = self._clock()
        self._last, self._unknown = (call.token, call.number), ()
        self._ledger.note(self._job_id, call, self.used_at)

    def note_unmade(self) -> None:
        """Begin anew after a call that the store knows nothing of."""
        self.token = ""

    def note_error(self, call: Call, error: BaseException) -> None:
        """Begin anew after a call that failed; remember it if it may still take effect."""
        self.token = ""
        if isinstance(error, AcknowledgedEventsLostError):
            self._forget(call.after)
        elif isinstance(error, OutcomeUnknownError | asyncio.CancelledError):
            self._unknown = (*self._unknown, call.token)

    def note_unknown(self) -> None:
        """Begin anew after a call of which nobody will hear, should there be one on its way."""
        if self.token:
            self.token, self._unknown = "", (*self._unknown, self.token)

    def _forget(self, calls: tuple[tuple[str, int], ...]) -> None:
        """Come no longer after these calls, nor after this writer's last one."""
        own = () if self._last is None else (self._last,)
        self._last = None
        self._ledger.forget(self._job_id, (*calls, *own))
