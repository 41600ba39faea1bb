"""Callers: how the server knows a repeated call, and how a writer hears that acknowledged ones were lost. Pure.

Redis keeps the order of writes, so a failover or a restore loses the last ones: where a call is there, all calls before
it are there, too. So each call names the acknowledged ones that it comes after, and is refused if these are gone.
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

#: How long an idle writer keeps its token and its last call: well below the hour for which the server keeps them.
TOKEN_SECONDS = 1200.0
#: How many jobs' last calls are remembered: those of the jobs written to last.
JOBS_KEPT = 10_000


class Call(NamedTuple):
    """What identifies a call that is repeated: a token, and the number of the call under it, from 1."""

    token: str
    number: int = 1
    #: Tokens to close: calls under them that are still on their way are refused from now on.
    closes: tuple[str, ...] = ()
    #: Tokens and numbers of acknowledged calls before this one, except for its own token's.
    after: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        """Token and number as one text, for scripts that keep one call of each caller."""
        return f"{self.token}-{self.number}"


def as_argument(calls: Iterable[tuple[str, int]]) -> str:
    """Return calls as scripts read them: tokens and numbers, joined by spaces."""
    return " ".join([f"{token} {number}" for token, number in calls]) if calls else ""


#: Of a writer's token, in base 32: 60 bits. A job's incarnation is one, so each small job that is kept has it.
TOKEN_DIGITS = 12
#: A digit for each byte, eight times each.
_BASE_32 = b"abcdefghijklmnopqrstuvwxyz234567" * 8


def new_token() -> str:
    """Return a writer's token, which no other has."""
    return os.urandom(TOKEN_DIGITS).translate(_BASE_32).decode()


#: Returns how long the machine has been up; on Linux, including the time that it slept.
seconds_since_start: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic
)


class Ledger:
    """The last acknowledged calls of this process to each job, one for each token that no later call covers."""

    def __init__(self) -> None:
        #: By job, the one written to last at the end: by token, the number and when it was acknowledged.
        self._last: dict[str, dict[str, tuple[int, float]]] = {}

    def last(self, job_id: str, now: float, but: str = "") -> list[tuple[str, int]]:
        """Return a job's last calls but those of one token, and those that the server may have forgotten by now."""
        calls = self._last.get(job_id)
        if calls is None or (but in calls and len(calls) == 1):
            # As for nearly every append.
            return []
        since = now - TOKEN_SECONDS
        return [(token, number) for token, (number, at) in calls.items() if token != but and at >= since]

    def argument(self, job_id: str) -> str:
        """Return a job's last calls as scripts read them."""
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
        """Forget calls that the store has lost, so that the loss is reported once."""
        _drop(self._last.get(job_id, {}), lost)

    def close(self, job_id: str) -> None:
        """Forget a job that this process is done with."""
        self._last.pop(job_id, None)


def _drop(calls: dict[str, tuple[int, float]], dropped: Iterable[tuple[str, int]]) -> None:
    for token, number in dropped:
        if token in calls and calls[token][0] <= number:
            del calls[token]


class Caller:
    """Makes one call after the other, each with a token and a number, so that the server knows a repeated one.

    The token lasts as long as the caller: the server keeps its last number and the answer to that.
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

    Ask for the next call, make it, as often as it takes, and note its outcome: `note_done`, `note_error`, or
    `note_unmade` if the store can't know of it. A token lasts as long as its calls succeed; after anything else the
    next call has a new token, and names the call of the old one that it comes after. The next call that succeeds
    closes the token of an unknown outcome, so that the unknown call can't take effect later.
    """

    __slots__ = ("_acknowledged_at", "_clock", "_job_id", "_last", "_ledger", "_unknown", "used_at")

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
        #: When it last made a call: the age of an unknown outcome.
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
        """Come after no call: the job is created, perhaps after the store has lost one with that id."""
        self.token, self._last = "", None
        self._ledger.close(self._job_id)

    def next_call(self) -> Call:
        """Return the next call, under a new token if the old one was unused for long."""
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
        """Return token and number of the last acknowledged call, None if the store may have forgotten it."""
        return self._last if self._clock() - self._acknowledged_at <= TOKEN_SECONDS else None

    def note_done(self, call: Call) -> None:
        """Remember a call that was acknowledged."""
        self.used_at = self._acknowledged_at = self._clock()
        self._last, self._unknown = (call.token, call.number), ()
        self._ledger.note(self._job_id, call, self.used_at)

    def note_unmade(self) -> None:
        """Take a new token after a call that the store can't know of."""
        self.token = ""

    def note_error(self, call: Call, error: BaseException) -> None:
        """Take a new token after a call that failed; remember the old one if the call may still take effect."""
        self.token = ""
        if isinstance(error, AcknowledgedEventsLostError):
            self._forget(call.after)
        elif isinstance(error, OutcomeUnknownError | asyncio.CancelledError):
            self._unknown = (*self._unknown, call.token)

    def note_unknown(self) -> None:
        """Take a new token in case a call is on its way whose outcome nobody will hear."""
        if self.token:
            self.token, self._unknown = "", (*self._unknown, self.token)

    def _forget(self, calls: tuple[tuple[str, int], ...]) -> None:
        """Let later calls come neither after these calls nor after this writer's last one."""
        own = () if self._last is None else (self._last,)
        self._last = None
        self._ledger.forget(self._job_id, (*calls, *own))
