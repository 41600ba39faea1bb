"""What a node says to one that listens to sharded channels: each reply is about one of the commands, in any order."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from redis import exceptions

from ci_eventstore.connection.failures import note_reply
from ci_eventstore.connection.subscription import Subscription
from ci_eventstore.connection.topology import slot_of

A, A_TOO, B = "{ci:0}:a", "{ci:0}:b", "{ci:1}:a"


class Connection:
    """Takes commands, and answers nothing."""

    def __init__(self) -> None:
        self.sent = list[tuple[str, ...]]()

    async def send_command(self, *command: str) -> None:
        self.sent.append(command)


class Listener:
    """A subscription without a server, and what it told."""

    def __init__(self) -> None:
        self.confirmed = list[list[str]]()
        self.refused = list[tuple[list[str], str]]()
        self.heard = list[tuple[str, bytes]]()
        self.connection = Connection()
        self.subscription = Subscription(
            cast(Any, None),
            lambda channel, message: self.heard.append((channel, message)),
            self.confirmed.append,
            lambda channels, words: self.refused.append((channels, words)),
        )
        self.subscription._connection = self.connection

    async def change(self, **wanted: bool) -> None:
        """Send a command for each slot of some channels, to listen or to ignore."""
        for channel, is_wanted in wanted.items():
            self.subscription._changes[channel] = is_wanted
            if is_wanted:
                self.subscription._channels[channel] = None
            else:
                self.subscription._channels.pop(channel, None)
        await self.subscription._send()

    def reply(self, kind: bytes, channel: str) -> None:
        self.subscription._take([kind, channel.encode(), 1])

    def refuse(self, words: str) -> None:
        error = exceptions.ResponseError(words)
        note_reply(error, words)
        self.subscription._take_error(error)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    opened = Listener()
    await opened.change(**{A: True, B: True, A_TOO: True})
    assert opened.connection.sent == [("SSUBSCRIBE", A, A_TOO), ("SSUBSCRIBE", B)]
    yield opened
    assert not opened.subscription._unconfirmed


async def test_channels_of_a_slot_are_confirmed_together(listener: Listener) -> None:
    """With the last of them; what is said on one is heard."""
    listener.reply(b"ssubscribe", A)
    assert listener.confirmed == []
    listener.reply(b"ssubscribe", A_TOO)
    listener.reply(b"ssubscribe", B)
    listener.subscription._take([b"smessage", B.encode(), b"said"])
    assert listener.confirmed == [[A, A_TOO], [B]]
    assert listener.heard == [(B, b"said")]


async def test_a_refusal_that_names_a_slot_is_of_its_command(listener: Listener) -> None:
    """Whatever else isn't confirmed yet."""
    moved = f"MOVED {slot_of(B)} 127.0.0.1:7001"
    listener.refuse(moved)
    listener.reply(b"ssubscribe", A_TOO)
    assert (listener.confirmed, listener.refused) == ([[A, A_TOO]], [([B], moved)])


async def test_another_refusal_is_of_the_first_command(listener: Listener) -> None:
    """The other one is confirmed all the same."""
    listener.refuse("CLUSTERDOWN Hash slot not served")
    listener.reply(b"ssubscribe", B)
    assert (listener.confirmed, listener.refused) == ([[B]], [([A, A_TOO], "CLUSTERDOWN Hash slot not served")])


async def test_channels_of_a_slot_that_goes_are_given_up(listener: Listener) -> None:
    """Those that are still wanted."""
    for channel in (A_TOO, B):
        listener.reply(b"ssubscribe", channel)
    await listener.change(**{A: False})
    listener.reply(b"sunsubscribe", A)
    for channel in (A, A_TOO):
        listener.reply(b"sunsubscribe", channel)
    assert [channels for channels, _ in listener.refused] == [[A_TOO]]


async def test_a_slot_that_goes_while_a_channel_is_ignored_disturbs_no_other(listener: Listener) -> None:
    """The node says first that it dropped it, then that it can't be ignored there; each might be taken for another."""
    for channel in (A_TOO, B):
        listener.reply(b"ssubscribe", channel)
    await listener.change(**{A: False})
    await listener.change(**{"{ci:1}:b": True})
    listener.reply(b"sunsubscribe", A)
    listener.reply(b"sunsubscribe", A_TOO)
    listener.refuse(f"MOVED {slot_of(A)} 127.0.0.1:7001")
    listener.reply(b"ssubscribe", "{ci:1}:b")
    assert listener.confirmed[2:] == [["{ci:1}:b"]]
    assert [channels for channels, _ in listener.refused] == [[A_TOO]]


async def test_an_error_nobody_asked_for_ends_the_connection() -> None:
    """As on one server, where no command may be refused."""
    with pytest.raises(exceptions.ResponseError):
        Listener().refuse("ERR what?")
