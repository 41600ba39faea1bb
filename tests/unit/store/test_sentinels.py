"""What is made of the answers of Sentinels, which may differ, fail, or not come at all."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from redis import exceptions

from ci_eventstore.connection import sentinels
from ci_eventstore.connection.addresses import HostPort
from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.failures import MisledError, note_reply, note_unreached, outcome_of, words_of
from ci_eventstore.connection.outcomes import Cause, Kind, Patience
from ci_eventstore.connection.sentinels import Answer, Sentinels, newest, why_unknown

ONE, TWO, THREE = ("s1", 1), ("s2", 2), ("s3", 3)
OLD, NEW = ("old", 6379), ("new", 6379)
SILENT = exceptions.TimeoutError("no answer")


def replied(reply: str) -> exceptions.RedisError:
    error = exceptions.ResponseError(reply)
    note_reply(error, reply)
    return error


@pytest.mark.parametrize(
    ("answers", "server"),
    [
        ([], None),
        ([Answer(ONE, OLD, 3)], OLD),
        ([Answer(ONE, OLD, 3), Answer(TWO, NEW, 4)], NEW),
        ([Answer(ONE, NEW, 4), Answer(TWO, OLD, 3), Answer(THREE, OLD, 3)], NEW),
        ([Answer(ONE, failure=SILENT), Answer(TWO), Answer(THREE, OLD, 3)], OLD),
        ([Answer(ONE, failure=SILENT), Answer(TWO)], None),
    ],
)
def test_the_newest_answer_counts(answers: list[Answer], server: tuple[str, int] | None) -> None:
    """One Sentinel that was cut off, or two, go on naming the primary that the others have replaced."""
    assert newest(answers) == server


@pytest.mark.parametrize(
    ("answers", "cause", "patience", "says"),
    [
        ([Answer(ONE), Answer(TWO)], Cause.UNSUITABLE, Patience.NONE, "know no server by the name 'ci'"),
        ([Answer(ONE), Answer(TWO), Answer(THREE)], Cause.UNSUITABLE, Patience.NONE, "know no server"),
        (
            [Answer(ONE), Answer(TWO, failure=SILENT), Answer(THREE, failure=SILENT)],
            Cause.UNAVAILABLE,
            Patience.OUTAGE,
            "too few Sentinels answer .* s2:2: no answer; s3:3: no answer",
        ),
        ([Answer(ONE, failure=SILENT)], Cause.UNAVAILABLE, Patience.OUTAGE, "s1:1: no answer"),
        (
            [Answer(ONE, failure=replied("ERR unknown command 'SENTINEL', with args beginning with: 'ci'"))],
            Cause.UNSUITABLE,
            Patience.NONE,
            "s1:1 is no Sentinel",
        ),
        (
            [Answer(ONE, failure=SILENT), Answer(TWO, failure=replied("NOAUTH Authentication required."))],
            Cause.ACCESS,
            Patience.NONE,
            "NOAUTH Authentication required.*sentinel_password",
        ),
        (
            [Answer(ONE, failure=replied("NOPERM this user has no permissions to run the 'sentinel' command"))],
            Cause.RIGHTS,
            Patience.NONE,
            "NOPERM.*sentinel_username",
        ),
    ],
)
def test_why_nobody_knows_the_server(answers: list[Answer], cause: Cause, patience: Patience, says: str) -> None:
    """An unknown name, a wrong address and missing credentials are reported at once; silence may pass."""
    error = why_unknown(answers, "ci", 3)
    note_unreached(error)
    outcome = outcome_of(error, Kind.SCRIPT)
    assert (outcome.cause, outcome.patience) == (cause, patience)
    assert re.search(says, words_of(error))
    assert isinstance(error, MisledError) == (cause is Cause.UNSUITABLE)


class Played:
    """Three Sentinels and the servers that they name, as connections see them."""

    def __init__(self) -> None:
        #: What each Sentinel says: where the server is, and since which epoch; None: nothing.
        self.says: dict[HostPort, tuple[HostPort, int] | None] = dict.fromkeys((ONE, TWO, THREE), (OLD, 1))
        self.roles = {OLD: "master", NEW: "master"}
        self.asked = 0
        self.moves = 0
        deployment = from_url("redis+sentinel://s1:1,s2:2,s3:3/ci")
        self.sentinels = Sentinels(deployment, lambda host, port: Line(self, host, port), self._note_move)

    def _note_move(self) -> None:
        self.moves += 1

    async def lead(self) -> "Line":
        """Return a connection that leads to the primary."""
        line = Line(self, "unknown", 0)
        await self.sentinels.lead(line, line.connect)
        return line


class Line:
    """A connection to one of them."""

    def __init__(self, played: Played, host: str, port: int) -> None:
        self.host, self.port, self.is_connected = host, port, False
        self._played = played
        self._command: tuple[str, ...] = ()
        #: Called when it is connected.
        self.on_connect: Callable[[], None] = lambda: None

    async def connect(self) -> None:
        self.is_connected = True
        self.on_connect()

    async def disconnect(self, *, nowait: bool) -> None:
        self.is_connected = False

    async def send_command(self, *command: str) -> None:
        self._command = command

    async def read_response(self) -> Any:
        place = (self.host, self.port)
        if self._command == ("HELLO",):
            return [b"role", self._played.roles[place].encode()]
        assert self._command[2] == "ci"
        said = self._played.says[place]
        if said is None:
            await asyncio.Event().wait()
            raise AssertionError
        (host, port), epoch = said
        if self._command[1] == "MASTER":
            return [b"name", b"ci", b"config-epoch", str(epoch).encode()]
        self._played.asked += 1
        return [host.encode(), str(port).encode()]


async def test_connections_lead_to_the_server_that_sentinels_name() -> None:
    """Each one asks again: when they name another server, the others are told to leave the old one, once."""
    played = Played()
    lines = [await played.lead() for _ in range(3)]
    assert {(line.host, line.port) for line in lines} == {OLD}
    played.says[TWO] = played.says[THREE] = (NEW, 2)
    lines = [await played.lead() for _ in range(3)]
    assert {(line.host, line.port) for line in lines} == {NEW}
    assert all(line.is_connected for line in lines)
    assert played.moves == 1


async def test_many_connections_at_once_ask_together() -> None:
    """After a failover all are made anew: the Sentinels aren't asked by each of them."""
    played = Played()
    lines = await asyncio.gather(*(played.lead() for _ in range(50)))
    assert all(line.is_connected for line in lines)
    assert played.asked <= 2 * 3


async def test_a_connection_to_a_server_that_was_replaced_meanwhile_is_given_up() -> None:
    """So is one to a replica: redis-py's errors, and nothing is left open."""
    played = Played()
    late = Line(played, "unknown", 0)

    async def connect_late() -> None:
        await late.connect()
        played.says[TWO] = played.says[THREE] = (NEW, 2)
        assert (await played.lead()).host == "new"

    with pytest.raises(exceptions.ConnectionError, match="old:6379 isn't the primary any more"):
        await played.sentinels.lead(late, connect_late)
    assert not late.is_connected
    played.roles[NEW] = "replica"
    with pytest.raises(exceptions.ConnectionError, match="new:6379 is a replica"):
        await played.lead()


async def test_silent_sentinels_and_servers_are_waited_for_in_vain_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two answers of three are enough; one that counts alone comes when the time of the others is over."""
    played = Played()
    played.says[ONE] = None
    monkeypatch.setattr(sentinels, "ANSWER_SECONDS", 3600)
    async with asyncio.timeout(20):
        assert (await played.lead()).host == "old"
    monkeypatch.setattr(sentinels, "ANSWER_SECONDS", 0.05)
    played.says[TWO] = None
    assert (await played.lead()).host == "old"
    played.says[THREE] = None
    with pytest.raises(exceptions.ConnectionError, match="s1:1: no answer; s2:2: no answer; s3:3: no answer"):
        await played.lead()
    played.says[ONE] = played.says[TWO] = (OLD, 1)
    monkeypatch.setattr(sentinels, "CONNECT_SECONDS", 0.05)

    async def connect_never() -> None:
        await asyncio.Event().wait()

    with pytest.raises(exceptions.TimeoutError, match="old:6379 doesn't answer"):
        await played.sentinels.lead(Line(played, "unknown", 0), connect_never)
