"""A command that doesn't want to end is killed after a grace."""

import os
import signal
import sys

import pytest

from ci_eventstore.cli import stopping
from ci_eventstore.cli.stopping import Stopper
from ci_eventstore.processes.command import Command
from tests.waiting import wait_until

#: Ignores what can be ignored, starts a child that does the same, tells its id, and ends at SIGUSR1.
STUBBORN = """
import os, signal, subprocess
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
child = subprocess.Popen(["sleep", "1000"])
os.write(1, b"%d" % os.getpid())
signal.sigwait([signal.SIGUSR1])
"""


def ignore(seconds: float) -> None:
    """Take a limit that nothing here is held to."""


async def start() -> tuple[Command, int]:
    """Start a stubborn command, and return it with its process id when it is."""
    command = await Command.start([sys.executable, "-c", STUBBORN], pty=False)
    return command, int(await command.output.read())


async def test_the_group_is_killed_after_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command and its child, both of which ignored the signal."""
    monkeypatch.setattr(stopping, "GRACE_SECONDS", 0.2)
    command, _ = await start()
    stopper = Stopper(ignore)
    stopper.attach(command)
    with stopper.on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        assert await command.wait() == -signal.SIGKILL
    await stopper.finish()
    assert not command.group_is_alive()
    command.output.close()


async def test_what_is_left_of_the_group_is_killed_after_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command itself ended in time, its child didn't."""
    monkeypatch.setattr(stopping, "GRACE_SECONDS", 1.0)
    command, process_id = await start()
    stopper = Stopper(ignore)
    stopper.attach(command)
    stopper.stop_for_store()
    os.kill(process_id, signal.SIGUSR1)
    assert await command.wait() == 0
    assert command.group_is_alive()
    await stopper.finish()
    assert not command.group_is_alive()
    command.output.close()


async def test_a_signal_before_the_start_stops_the_command_at_once() -> None:
    """A command attached after a signal came is sent that signal."""
    stopper = Stopper(ignore)
    with stopper.on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        await wait_until(lambda: stopper.stop is not None)
        command = await Command.start(["sleep", "1000"], pty=False)
        stopper.attach(command)
        assert await command.wait() == -signal.SIGTERM
    command.output.close()


async def test_a_command_that_has_ended_is_not_stopped() -> None:
    """A cancel that comes too late changes nothing, and a signal only ends the wait for more output."""
    command = await Command.start(["sh", "-c", "sleep 1000 & echo $!"], pty=False)
    stopper = Stopper(ignore)
    stopper.attach(command)
    child = int(await command.output.read())
    assert await command.wait() == 0
    with stopper.on_signals():
        stopper.stop_for_store()
        os.kill(os.getpid(), signal.SIGINT)
        assert await command.output.read() == b""
    assert (stopper.stop, command.output.was_cut_off, command.group_is_alive()) == (None, True, True)
    os.kill(child, signal.SIGKILL)
    command.output.close()


async def test_after_a_signal_the_store_is_waited_for_a_bounded_time() -> None:
    """At the first signal it is given seconds; at the next less than one, if only the store is waited for by then."""
    limits: list[float] = []
    stopper = Stopper(limits.append)
    command, _ = await start()
    stopper.attach(command)
    with stopper.on_signals():
        for number in (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)
            await wait_until(lambda number=number: len(limits) == number)  # type: ignore[misc]
        assert await command.wait() == -signal.SIGKILL
        os.kill(os.getpid(), signal.SIGTERM)
        await wait_until(lambda: len(limits) == 3)
    assert limits == [stopping.STORE_SECONDS, stopping.STORE_SECONDS, stopping.LAST_STORE_SECONDS]
    await stopper.finish()
    command.output.close()


async def test_a_cancel_from_elsewhere_bounds_the_wait_for_the_store() -> None:
    """As a signal does."""
    limits: list[float] = []
    stopper = Stopper(limits.append)
    command = await Command.start(["sleep", "1000"], pty=False)
    stopper.attach(command)
    stopper.stop_for_store()
    assert await command.wait() == -signal.SIGTERM
    await stopper.finish()
    assert limits == [stopping.STORE_SECONDS]
    command.output.close()
