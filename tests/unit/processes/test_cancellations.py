"""Whatever is cancelled while a command starts, runs or ends leaves no process, no descriptor, no folder behind."""

import os
from pathlib import Path

import pytest

from ci_eventstore.processes.command import Command, CommandPlace
from ci_eventstore.processes.guard import GuardedGroup
from ci_eventstore.tasks import finish
from tests.cancelling import cancel_at_each_step
from tests.leftovers import children, descriptors, nothing_is_left

pytestmark = pytest.mark.parametrize("times", [1, 2, 5], ids=["once", "twice", "five times"])


async def test_a_group_that_is_cancelled_leaves_nothing(times: int) -> None:
    """While its guard starts, while it is used, while it is stopped, and while it is left."""

    async def use() -> None:
        async with GuardedGroup() as group:
            await group.stop(5)

    await use()
    before = descriptors(), children()
    runs = await cancel_at_each_step(
        use, lambda number: nothing_is_left(before, f"cancelled at step {number}"), times=times
    )
    assert runs > 3


@pytest.mark.parametrize("pty", [False, True], ids=["pipe", "terminal"])
async def test_a_command_whose_start_is_cancelled_leaves_nothing(times: int, pty: bool) -> None:
    """It may just have been started, and is killed then."""

    async def start() -> None:
        command = await Command.start(["sleep", "1000"], pty=pty)
        command.signal(9)
        command.output.close()
        await finish(command.wait())

    await start()
    before = descriptors(), children()
    runs = await cancel_at_each_step(
        start, lambda number: nothing_is_left(before, f"cancelled at step {number}"), times=times
    )
    assert runs > 2


async def test_a_command_in_a_group_that_is_cancelled_leaves_nothing(times: int, tmp_path: Path) -> None:
    """Also what the command has started itself."""

    async def run() -> None:
        async with GuardedGroup() as group:
            place = CommandPlace(folder=tmp_path, environment=os.environ, group=group.number)
            command = await Command.start(["sh", "-c", "sleep 1000 & echo; wait"], place=place)
            try:
                await command.output.read()
                await group.stop(5)
            finally:
                command.output.close()
                group.kill()
                await finish(command.wait())

    await run()
    before = descriptors(), children()
    runs = await cancel_at_each_step(
        run, lambda number: nothing_is_left(before, f"cancelled at step {number}"), times=times
    )
    assert runs > 3
