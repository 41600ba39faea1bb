"""Stop a running command: as it was asked for first, by force when that doesn't help."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ci_eventstore.cli.output import say
from ci_eventstore.processes.command import Command
from ci_eventstore.processes.last_output import STOPPED_SECONDS

#: How long a command that was asked to stop may take.
GRACE_SECONDS = 10.0
#: How long the store is waited for once someone wants this program to end.
STORE_SECONDS = 5.0
#: The same once they say so again and the command itself has ended.
LAST_STORE_SECONDS = 0.5
STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Stop:
    """Why a command was stopped."""

    #: What its process group was sent.
    signal: signal.Signals
    #: Whether someone has asked for that in the store.
    from_store: bool


class Stopper:
    """Stops a command's process group when this process is told to end, or when it is asked to.

    The group is sent the signal that this process got; what is left of it after GRACE_SECONDS, or at the next signal,
    is killed. From the first signal on the store isn't waited for as long as before: `hurry` is told how long at most.
    """

    def __init__(self, hurry: Callable[[float], None]) -> None:
        #: None as long as the command may run.
        self.stop: Stop | None = None
        self._hurry = hurry
        self._command: Command | None = None
        self._was_told = False
        #: When what is left of the group is killed; None as long as nothing is being stopped.
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Stop when a signal says so, but for those that this process was started to ignore, as by `nohup`."""
        loop = asyncio.get_running_loop()
        handled = [number for number in STOPPING_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        for number in handled:
            loop.add_signal_handler(number, self._receive, number)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    @property
    def has_command_ended(self) -> bool:
        """Whether the command that it has charge of has ended."""
        return self._command is not None and self._command.has_ended

    def attach(self, command: Command) -> None:
        """Take charge of a command that was just started."""
        self._command = command
        if self.stop is not None:
            self._begin(command, self.stop.signal)

    def stop_for_store(self) -> None:
        """Stop because someone wants the job cancelled."""
        if self._command is not None and self._command.has_ended:
            self._command.output.stop_waiting()
        elif self.stop is None and self._command is not None:
            say("the job is to be cancelled: stopping the command")
            self.stop = Stop(signal.SIGTERM, from_store=True)
            self._hurry(STORE_SECONDS)
            self._begin(self._command, signal.SIGTERM)

    async def finish(self) -> None:
        """Once the command itself has ended: return when nothing is left of a group that is being stopped."""
        if self._command is None or self._deadline is None:
            return
        if self.stop is not None and self.stop.signal != signal.SIGTERM:
            # What a shell starts in the background ignores SIGINT.
            self._command.signal(signal.SIGTERM)
        await self._command.until_group_ended(self._is_late)
        if self._timer is not None:
            self._timer.cancel()

    def _receive(self, number: signal.Signals) -> None:
        command = self._command
        is_only_waiting = self._was_told and self.has_command_ended
        self._hurry(LAST_STORE_SECONDS if is_only_waiting else STORE_SECONDS)
        self._was_told = True
        if command is not None and command.has_ended:
            # The rest of its output isn't waited for either.
            command.output.stop_waiting()
        if command is not None and self._deadline is not None:
            self._kill(command)
        elif command is None or not command.has_ended:
            self.stop = Stop(number, from_store=False)
            if command is not None:
                say(f"{number.name}: stopping the command; a second signal kills it")
                self._begin(command, number)

    def _begin(self, command: Command, number: signal.Signals) -> None:
        self._deadline = self._now() + GRACE_SECONDS
        command.signal(number)
        self._timer = asyncio.get_running_loop().call_later(GRACE_SECONDS, self._kill, command)

    def _kill(self, command: Command) -> None:
        if command.group_is_alive():
            self._deadline = self._now()
            command.signal(signal.SIGKILL)

    def _is_late(self) -> bool:
        """Whether what is left of the group should have ended long ago, killed as it was."""
        return self._deadline is None or self._now() > self._deadline + STOPPED_SECONDS

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
