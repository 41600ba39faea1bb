"""A command as a process."""

from ci_eventstore.processes.command import Command
from tests.servers import wait_until


async def test_an_end_is_seen_before_the_event_loop_knows_of_it() -> None:
    """A signal that comes just then is told from one that stopped the command."""
    command = await Command.start(["true"])
    wait_until(lambda: command.has_ended, "the end of the command, nothing awaited")
    assert await command.wait() == 0
    assert command.has_ended
    command.output.close()
