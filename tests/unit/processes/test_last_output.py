"""What comes after a command's end is waited for as long as it comes; what is cut is named."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ci_eventstore.processes import last_output
from ci_eventstore.processes.command import Command
from ci_eventstore.processes.last_output import Cut, Holder, cut_line, find_holders, wait_for_rest


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second of silence is enough, and three of output."""
    monkeypatch.setattr(last_output, "QUIET_SECONDS", 0.5)
    monkeypatch.setattr(last_output, "ALL_SECONDS", 2.5)
    monkeypatch.setattr(last_output, "STOPPED_SECONDS", 0.2)


class Pump:
    """Reads a command's output, as slowly as is wanted."""

    def __init__(self, command: Command, pause: float = 0.0) -> None:
        self.printed = b""
        self._command = command
        self._pause = pause
        self.task = asyncio.create_task(self._carry())

    async def _carry(self) -> None:
        while piece := await self._command.output.read():
            self.printed += piece
            await asyncio.sleep(self._pause)


@asynccontextmanager
async def ended(script: str, *, pty: bool = False, pause: float = 0.0) -> AsyncIterator[tuple[Command, Pump]]:
    """Run a script until it has ended; what it has left behind is killed at last."""
    command = await Command.start(["sh", "-c", script], pty=pty)
    pump = Pump(command, pause)
    try:
        await command.wait()
        yield command, pump
    finally:
        command.signal(signal.SIGKILL)
        command.output.stop_waiting()
        await pump.task
        command.output.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seconds of silence are enough: on a busy machine, a short sleep takes long."""
    monkeypatch.setattr(last_output, "QUIET_SECONDS", 3.0)
    monkeypatch.setattr(last_output, "ALL_SECONDS", 60.0)


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
async def test_output_is_waited_for_as_long_as_it_comes() -> None:
    """Longer than the silence that ends it. A terminal lets nobody print after the end of its session's leader."""
    async with ended("(for i in 1 2 3 4 5 6 7 8; do sleep 0.4; echo $i; done) &") as (command, pump):
        assert await wait_for_rest(command.output, pump.task) is None
        assert pump.printed.split() == [b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8"]


@pytest.mark.parametrize("pty", [False, True])
async def test_silence_ends_it_and_holders_are_named(pty: bool) -> None:
    """Those that have the other end open, and no others."""
    async with ended("trap '' HUP; sleep 1000 & sleep 1000 >/dev/null 2>&1 & echo $!", pty=pty) as (command, pump):
        assert await wait_for_rest(command.output, pump.task) is Cut.QUIET
        silent = int(pump.printed)
        [holder] = find_holders(command.output)
        assert (holder.name, holder.group) == ("sleep", os.getpgid(silent))
        assert holder.process_id != silent


@pytest.mark.slow
async def test_a_flood_ends() -> None:
    """It is waited for some time in all."""
    async with ended("while :; do echo y; sleep 0.1; done &") as (command, pump):
        assert await wait_for_rest(command.output, pump.task) is Cut.LATE


async def test_what_was_stopped_is_waited_for_shortly() -> None:
    """However much comes."""
    async with ended("while :; do echo y; sleep 0.05; done &") as (command, pump):
        assert await wait_for_rest(command.output, pump.task, was_stopped=True) is Cut.STOPPED


async def test_whoever_is_in_a_hurry_ends_the_wait() -> None:
    """At once."""
    async with ended("sleep 1000 &") as (command, pump):
        waiting = asyncio.create_task(wait_for_rest(command.output, pump.task))
        await asyncio.sleep(0)
        command.output.stop_waiting()
        assert await waiting is Cut.STOPPED


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
async def test_a_slow_reader_is_no_silence() -> None:
    """What waits to be read has been printed."""
    async with ended("(for i in 1 2 3; do echo $i; sleep 0.2; done) &", pause=4.0) as (command, pump):
        assert await wait_for_rest(command.output, pump.task) is None
        assert pump.printed == b"1\n2\n3\n"


HOLDERS = [Holder(number, f"p{number}", 1) for number in range(1, 8)]


@pytest.mark.parametrize(
    ("killed", "left", "expected"),
    [
        ([], [], "which processes could still print isn't known"),
        (HOLDERS[:2], [], "killed, as they could still print: p1 (1), p2 (2)"),
        ([], HOLDERS[:1], "what these print from here on isn't stored: p1 (1)"),
        (
            HOLDERS[:1],
            HOLDERS[1:],
            "killed, as they could still print: p1 (1); "
            "what these print from here on isn't stored: p2 (2), p3 (3), p4 (4), p5 (5), p6 (6), 1 more",
        ),
    ],
)
def test_the_line_names_who_could_still_print(killed: list[Holder], left: list[Holder], expected: str) -> None:
    """Some of them, if they are many."""
    line = cut_line(Cut.QUIET, killed, left)
    assert line == f"[the command has ended, and nothing came for 2s: its output is cut off here; {expected}]\n"
