"""A process group that ends when it is told to, and with this program."""

import asyncio
import os
import signal
import threading
from pathlib import Path

import pytest

from ci_eventstore.processes import command
from ci_eventstore.processes.command import Command, CommandPlace, is_alive
from ci_eventstore.processes.guard import GuardedGroup, LeaderGuard
from tests import waiting
from tests.servers import wait_until


def environment_of(process_id: int) -> bytes:
    """Return the variables that a process was started with."""
    return Path(f"/proc/{process_id}/environ").read_bytes()


async def start(group: GuardedGroup, script: str, folder: Path) -> Command:
    """Start a shell script in the group, and wait for its first output."""
    place = CommandPlace(folder=folder, environment=os.environ, group=group.number)
    running = await Command.start(["sh", "-c", script], place=place)
    await running.output.read()
    return running


async def test_a_group_that_ends_when_asked(tmp_path: Path) -> None:
    """The command and its child end by SIGTERM, in the folder that they were given; the guard is still there."""
    # A child that isn't `sleep` yet would take the signal for its parent's trap, and forget it.
    until_sleeping = "until grep -q sleep /proc/$!/comm; do :; done"
    script = f"trap 'pwd > ended; exit 5' TERM; sleep 1000 & {until_sleeping}; echo; wait"
    async with GuardedGroup() as group:
        running = await start(group, script, tmp_path)
        await group.stop(10)
        assert await running.wait() == 5
        assert (tmp_path / "ended").read_text() == f"{tmp_path}\n"
        assert not running.group_is_alive()
        os.killpg(group.number, 0)
    wait_until(lambda: not is_alive(group.number), "the end of all processes of the group")
    running.output.close()


async def test_a_group_that_does_not_want_to_end(tmp_path: Path) -> None:
    """What ignores SIGTERM, or was stopped, is killed when the group is left."""
    async with GuardedGroup() as group:
        running = await start(group, "trap '' TERM; sleep 1000 & echo; kill -STOP $$; wait", tmp_path)
        await group.stop(0.1)
        assert running.group_is_alive()
    assert await running.wait() == -signal.SIGKILL
    wait_until(lambda: not is_alive(group.number), "the end of all processes of the group")
    running.output.close()


async def test_the_guard_ends_the_group_when_its_pipe_ends(tmp_path: Path) -> None:
    """As it does when this program is gone."""
    async with GuardedGroup() as group:
        running = await start(group, "sleep 1000 & echo; wait", tmp_path)
        assert group._process is not None
        assert group._process.stdin is not None
        group._process.stdin.close()
        assert await running.wait() == -signal.SIGKILL
    wait_until(lambda: not is_alive(group.number), "the end of all processes of the group")
    running.output.close()


async def test_others_go_on_while_a_group_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """With thousands of processes each look takes its time, and the event loop has none to give."""
    looking, may_go_on = threading.Event(), threading.Event()

    def look(group: int, besides: int | None) -> bool:
        looking.set()
        assert may_go_on.wait(30)
        return False

    monkeypatch.setattr(command, "is_alive", look)
    async with GuardedGroup() as group:
        stopping = asyncio.create_task(group.stop(30))
        # Only an event loop that isn't stopped by the look can end it.
        await waiting.wait_until(looking.is_set)
        may_go_on.set()
        await stopping


async def test_a_group_is_looked_for_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that takes seconds to end isn't asked for all the time."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(command, "is_alive", lambda group, besides: len(pauses) < 8)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    await command.until_ended(1)
    assert pauses[:3] == [0.02, 0.04, 0.08]
    assert pauses[-2:] == [0.5, 0.5]


async def test_a_guard_shows_no_variables() -> None:
    """Who may read its environment finds nothing there."""
    async with GuardedGroup() as group:
        assert environment_of(group.number) == b""


@pytest.mark.parametrize("pty", [False, True], ids=["pipe", "terminal"])
async def test_a_leader_is_killed_when_this_program_is_gone(pty: bool) -> None:
    """With all that it has started; the guard knows its group before it begins."""
    async with LeaderGuard() as guard:
        leader = await Command.start(["sh", "-c", "sleep 1000 & echo; wait"], pty=pty, announce=guard.announce)
        await leader.output.read()
        assert guard._process is not None
        assert guard._process.stdin is not None
        guard._process.stdin.close()
        assert await leader.wait() == -signal.SIGKILL
        await leader.until_group_ended(lambda: False)
    leader.output.close()


async def test_a_dismissed_guard_kills_nobody() -> None:
    """What a command leaves in the background goes on; a command that can't be started has none."""
    async with LeaderGuard() as guard:
        with pytest.raises(FileNotFoundError):
            await Command.start(["there-is-no-such-command"], announce=guard.announce)
    async with LeaderGuard() as guard:
        leader = await Command.start(["sh", "-c", "sleep 1000 & echo"], announce=guard.announce)
        assert await leader.wait() == 0
        await guard.end()
    assert leader.group_is_alive()
    leader.signal(signal.SIGKILL)
    await leader.until_group_ended(lambda: False)
    leader.output.close()
