"""A script's deadline is in the time of the server that each try of it is sent to, and waited for at all of them."""

import asyncio
import time
from collections.abc import Sequence

import pytest
from redis import exceptions

from ci_eventstore.connection import node
from ci_eventstore.connection.node import Sender, patience_of
from ci_eventstore.connection.outcomes import Outcome
from ci_eventstore.connection.replies import Reply
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.connection.way import Command, Counters, Target, Way
from ci_eventstore.errors import OutcomeUnknownError, StoreUnavailableError

SCRIPT = load_script("ci_eventstore.facts", "drop_group")
HOUR_MS = 3_600_000


class Server(Target):
    """A server whose clock is ahead by some milliseconds; a script fails there as often as it is told."""

    def __init__(self, ahead_ms: int, *failures: Exception | None) -> None:
        self.ahead_ms = ahead_ms
        self.failures = list(failures)
        #: The deadlines that scripts came with, counted from now on the server's clock.
        self.left_ms = list[int]()
        self.alone = self.with_reads = self.with_scripts = self._answer

    def now_ms(self) -> int:
        return int(time.time() * 1000) + self.ahead_ms

    async def _answer(self, *command: str | int | bytes) -> Reply:
        if command[0] == "TIME":
            now_ms = self.now_ms()
            return [b"%d" % (now_ms // 1000), b"%d" % (now_ms % 1000 * 1000)]
        self.left_ms.append(int(command[-1]) - self.now_ms())
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        return "done"

    async def many(self, commands: Sequence[Command], *, alone: bool) -> list[Reply]:
        return [await self._answer(*command) for command in commands]

    transaction = many


class Along(Way):
    """Leads to one server after the other; each failure leads on to the next."""

    def __init__(self, *servers: Target) -> None:
        super().__init__("servers", patience_of, Counters())
        self.servers = list(servers)
        self.target = self.servers.pop(0)

    def after(
        self, error: exceptions.RedisError, outcome: Outcome, target: Target, sent_at: float
    ) -> tuple[Outcome, Target | None]:
        if self.servers:
            self.target = self.servers.pop(0)
        return outcome, None


def lost() -> Exception:
    return exceptions.ConnectionError("Connection lost")


def refused() -> Exception:
    return exceptions.ResponseError("READONLY You can't write against a read only replica.")


@pytest.mark.parametrize("failure", [lost, refused])
async def test_each_server_gets_a_deadline_in_its_own_time(failure: object) -> None:
    """One whose clock is an hour ahead doesn't refuse, and one that is behind doesn't execute it an hour later."""
    assert callable(failure)
    first, second, third = Server(0, failure()), Server(HOUR_MS, failure()), Server(-HOUR_MS)
    reply = await Sender(Along(first, second, third)).run(SCRIPT, ["{ci:0}:groups"], ["name"])
    assert reply == "done"
    for server in (first, second, third):
        assert len(server.left_ms) == 1
        assert 0 < server.left_ms[0] < 30_000


async def test_a_try_that_may_have_arrived_elsewhere_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last server refused, but an earlier one may have executed it: that is unknown."""
    monkeypatch.setattr(node, "PATIENCE_SECONDS", 0.2)
    way = Along(Server(0, lost()), Server(HOUR_MS, *(refused() for _ in range(100))))
    way.was_reached = True
    with pytest.raises(OutcomeUnknownError):
        await Sender(way).run(SCRIPT, ["{ci:0}:groups"], ["name"])


async def test_what_every_server_refused_was_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there were."""
    monkeypatch.setattr(node, "PATIENCE_SECONDS", 0.2)
    way = Along(Server(0, refused()), Server(HOUR_MS, *(refused() for _ in range(100))))
    way.was_reached = True
    with pytest.raises(StoreUnavailableError):
        await Sender(way).run(SCRIPT, ["{ci:0}:groups"], ["name"])


async def test_an_unknown_outcome_is_told_after_the_last_of_all_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a server that isn't asked any more."""
    monkeypatch.setattr(node, "PATIENCE_SECONDS", 0.3)
    first, second = Server(0, lost()), Server(HOUR_MS, *(lost() for _ in range(100)))
    way = Along(first, second)
    way.was_reached = True
    began = time.time()
    async with asyncio.timeout(30):
        with pytest.raises(OutcomeUnknownError):
            await Sender(way).run(SCRIPT, ["{ci:0}:groups"], ["name"])
    assert (time.time() - began) * 1000 > first.left_ms[0]
