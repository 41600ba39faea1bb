"""A process group that ends when it is told to, and with this program."""

import os
import signal
from pathlib import Path

from ci_eventstore.processes.command import Command, Place, is_alive
from ci_eventstore.processes.guard import GuardedGroup
from tests.servers import wait_until


async def start(group: GuardedGroup, script: str, folder: Path) -> Command:
    """Start a shell script in the group, and wait for its first output."""
    place = Place(folder=folder, environment=os.environ, group=group.number)
    command = await Command.start(["sh", "-c", script], place=place)
    await command.output.read()
    return command


async def test_a_group_that_ends_when_asked(tmp_path: Path) -> None:
    """The command and its child end by SIGTERM, in the folder that they were given; the guard is still there."""
    # A child that isn't `sleep` yet would take the signal for its parent's trap, and forget it.
    until_sleeping = "until grep -q sleep /proc/$!/comm; do :; done"
    script = f"trap 'pwd > ended; exit 5' TERM; sleep 1000 & {until_sleeping}; echo; wait"
    async with GuardedGroup() as group:
        command = await start(group, script, tmp_path)
        await group.stop(10)
        assert await command.wait() == 5
        assert (tmp_path / "ended").read_text() == f"{tmp_path}\n"
        assert not command.group_is_alive()
        os.killpg(group.number, 0)
    wait_until(lambda: not is_alive(group.number), "the end of all processes of the group")
    command.output.close()


async def test_a_group_that_does_not_want_to_end(tmp_path: Path) -> None:
    """What ignores SIGTERM, or was stopped, is killed when the group is left."""
    async with GuardedGroup() as group:
        command = await start(group, "trap '' TERM; sleep 1000 & echo; kill -STOP $$; wait", tmp_path)
        await group.stop(0.1)
        assert command.group_is_alive()
    assert await command.wait() == -signal.SIGKILL
    wait_until(lambda: not is_alive(group.number), "the end of all processes of the group")
    command.output.close()


async def test_the_guard_ends_the_group_when_its_pipe_ends(tmp_path: Path) -> None:
    """As it does when this program is gone."""
    async with GuardedGroup() as group:
        command = await start(group, "sleep 1000 & echo; wait", tmp_path)
        assert group._guard is not None
        assert group._guard.stdin is not None
        group._guard.stdin.close()
        assert await command.wait() == -signal.SIGKILL
    wait_until(lambda: not is_alive(group.number), "the end of all processes of the group")
    command.output.close()
