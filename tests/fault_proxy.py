"""A proxy between client and server that breaks the connection at chosen or random commands, in a chosen way."""

import asyncio
import contextlib
import random
import tempfile
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.scripts import Script

#: Tests that look at keys, channels or statistics of a server name those of the first partition.
FIRST_PARTITION = "{ci:0}"


class Fault(Enum):
    """What happens to a command and its connection."""

    #: The connection is cut; the server never sees the command.
    CUT_BEFORE = "cut before the request"
    #: The server executes the command; the connection is cut before the reply.
    CUT_AFTER = "cut after the request"
    #: The server executes the command; the connection is cut in the middle of the reply.
    CUT_IN_REPLY = "cut in the middle of the reply"
    #: The server executes the command; the reply doesn't come while the client waits.
    STALL = "stall behind the request"
    #: The command is held until the client has given the connection up, and reaches the server then.
    LATE = "deliver late"
    #: The connection stays open, and nothing goes through any more.
    HALF_OPEN = "half-open"


#: Says what happens to a command, such as [b"EVALSHA", …]; None lets it through.
Plan = Callable[[Sequence[bytes]], Fault | None]


def at(fault: Fault, *names: bytes, times: int = 1) -> Plan:
    """Return a plan that breaks the first commands of some names."""
    left = times

    def plan(command: Sequence[bytes]) -> Fault | None:
        nonlocal left
        if left and command[0].upper() in names:
            left -= 1
            return fault
        return None

    return plan


def at_script(script: Script, fault: Fault) -> Plan:
    """Return a plan that breaks the next call of a script."""
    left = [fault]
    return lambda command: left.pop() if left and is_call(command, script) else None


def is_call(command: Sequence[bytes], script: Script) -> bool:
    """Return whether a command calls a script that the server knows, on a cluster too."""
    return command[0] == b"EVALSHA" and command[1].decode() in (script.sha, script.sharded.sha)


async def load(server: Nodes, *scripts: Script) -> None:
    """Let the server of the first partition know scripts, so that the first call of each is the one that runs."""
    for script in scripts:
        for known in (script, script.sharded):
            await server.node_of(FIRST_PARTITION).read("SCRIPT", "LOAD", known.source)


#: Faults that a client notices at once; the others cost it its timeout.
QUICK_FAULTS = (Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.CUT_IN_REPLY)
#: The commands that run scripts.
SCRIPTS = (b"EVALSHA", b"EVAL")


def always(fault: Fault | None) -> Plan:
    """Return a plan that breaks every command that runs a script, or none."""
    return lambda command: fault if command[0].upper() in SCRIPTS else None


def randomly(
    seed: int, probability: float, faults: Sequence[Fault] = tuple(Fault), names: Sequence[bytes] = SCRIPTS
) -> Plan:
    """Return a plan that breaks each command of some names with a probability; the seed decides which, and how."""
    chance = random.Random(seed)

    def plan(command: Sequence[bytes]) -> Fault | None:
        if command[0].upper() not in names or chance.random() >= probability:
            return None
        return chance.choice(faults)

    return plan


class FaultProxy:
    """Listens on a Unix socket and passes on to another one; every connection has one of its own at the server."""

    def __init__(self, upstream: Path) -> None:
        self.plan: Plan = lambda command: None
        #: Whether messages to those who listen to channels get lost.
        self.loses_messages = False
        self._silenced = 0
        #: How many faults happened.
        self.faults = 0
        #: Commands that are held until `release` is set, because their fault is LATE.
        self.release = asyncio.Event()
        self.held = 0
        #: Where new connections lead.
        self.upstream = upstream
        self._folder = tempfile.TemporaryDirectory(prefix="ci-proxy-", dir="/tmp")
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The proxy's address, for `from_url`."""
        return f"unix://{self._folder.name}/socket"

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._accept, f"{self._folder.name}/socket")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cut everything off."""
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._folder.cleanup()

    def cut_all(self) -> None:
        """Cut every connection that is open now."""
        for task in list(self._connections):
            task.cancel()

    def silence(self) -> None:
        """Let nothing come any more over the connections that listen to channels now; they stay open."""
        self._silenced += 1

    async def delivered(self) -> None:
        """Let the held commands go to the server, and wait until it has executed them."""
        self.release.set()
        async with asyncio.timeout(30):
            while self.held:  # noqa: ASYNC110 - as `waiting.wait_until`
                await asyncio.sleep(0)

    def translated(self, command: bytes, reply: bytes) -> bytes:
        """Return what the client gets of a reply; a subclass may have it find other servers behind proxies, too."""
        return reply

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream_path: Path | None = None
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            upstream = await asyncio.open_unix_connection(upstream_path or self.upstream)
            with contextlib.closing(upstream[1]):
                await self._pass_on(reader, writer, *upstream)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        while True:
            raw, command = await read_command(reader)
            fault = self.plan(command)
            if fault is not None:
                self.faults += 1
            if fault in (Fault.CUT_BEFORE, Fault.HALF_OPEN):
                if fault is Fault.HALF_OPEN:
                    await reader.read()
                return
            if fault is Fault.LATE:
                await self._deliver_late(raw, reader, server_reader, server_writer)
                return
            server_writer.write(raw)
            if command[0].upper() in (b"SUBSCRIBE", b"SSUBSCRIBE"):
                await self._pass_messages_on(reader, writer, server_reader, server_writer)
                return
            reply = self.translated(command[0].upper(), await read_reply(server_reader))
            if fault is Fault.CUT_AFTER:
                return
            if fault is Fault.STALL:
                await reader.read()
                return
            writer.write(reply[: len(reply) // 2] if fault is Fault.CUT_IN_REPLY else reply)
            await writer.drain()
            if fault is Fault.CUT_IN_REPLY:
                writer.close()
                await writer.wait_closed()
                return

    async def _pass_messages_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        """Serve a connection that listens to channels, where replies come unasked."""

        async def pass_commands_on() -> None:
            try:
                while True:
                    raw, _ = await read_command(reader)
                    server_writer.write(raw)
            except (OSError, EOFError):
                server_writer.close()

        silenced = self._silenced
        commands = asyncio.create_task(pass_commands_on())
        try:
            while True:
                reply = await read_reply(server_reader)
                if self.loses_messages and b"message\r\n" in reply[:20]:
                    self.faults += 1
                    continue
                if self._silenced > silenced:
                    self.faults += 1
                    continue
                writer.write(reply)
                await writer.drain()
        finally:
            commands.cancel()

    async def _deliver_late(
        self,
        raw: bytes,
        reader: asyncio.StreamReader,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        self.held += 1
        try:
            await reader.read()
            await self.release.wait()
            server_writer.write(raw)
            await read_reply(server_reader)
        finally:
            self.held -= 1


async def read_command(reader: asyncio.StreamReader) -> tuple[bytes, list[bytes]]:
    """Read one command; return its bytes, and its parts. EOFError when there are no more."""
    head = await _line(reader)
    raw, parts = head, []
    for _ in range(int(head[1:])):
        length = await _line(reader)
        part = await reader.readexactly(int(length[1:]) + 2)
        raw += length + part
        parts.append(part[:-2])
    return raw, parts


async def read_reply(reader: asyncio.StreamReader) -> bytes:
    """Read one reply of RESP2, whatever is nested in it; return its bytes."""
    head = await _line(reader)
    kind, size = head[:1], head[1:-2]
    if kind == b"$" and size != b"-1":
        return head + await reader.readexactly(int(size) + 2)
    if kind == b"*" and size != b"-1":
        return head + b"".join([await read_reply(reader) for _ in range(int(size))])
    return head


async def _line(reader: asyncio.StreamReader) -> bytes:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return line
