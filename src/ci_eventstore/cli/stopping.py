"""Stop a running command: as it was asked for first, by force when that doesn't help."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ci_eventstore.cli.output import say
from ci_eventstore.processes.command import Command
from ci_eventstore.processes.last_output import STOPPED_SECONDS

#: A command that was asked to stop is killed after this.
GRACE_SECONDS = 10.0
#: The store has this long after a signal to stop.
STORE_SECONDS = 5.0
#: The same at the next signal, after the command's end.
LAST_STORE_SECONDS = 0.5
STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Stop:
    """Why a command was stopped."""

    #: The signal that its process group got.
    signal: signal.Signals
    #: Whether someone cancelled the job in the store.
    from_store: bool


class Stopper:
    """Stops a command's process group when this process gets a signal, or when someone cancels the job.

    The group gets the signal that this process got; after GRACE_SECONDS, or at the next signal, what is left of it is
    killed. Each signal also calls `hurry` with the time that the store has from then on.
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
        """Stop at a signal, unless this process was started to ignore it, as by `nohup`."""
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
        """Whether the command was started and has ended."""
        return self._command is not None and self._command.has_ended

    def attach(self, command: Command) -> None:
        """Stop this command from now on, at once if a signal came before it was started."""
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
        """After the command's end, wait until nothing is left of a group that is being stopped."""
        if self._command is None or self._deadline is None:
            return
        if self.stop is not None and self.stop.signal != signal.SIGTERM:
            # Processes that a shell started in the background ignore SIGINT.
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
            # Then nobody waits for the rest of its output either.
            command.output.stop_waiting()
        if command is not None and self._deadline is not None:
            self._kill(command)
        elif command is None or not command.has_ended:
            self.stop = Stop(number, from_store=False)
            if command is not None:
                say(f"{number.name}: stopping the command; a second signal kills it")
                self._begin(command, number)

    def _begin(self, command: Command, number: signal.Signals) -> None:
        self._deadline = _now() + GRACE_SECONDS
        command.signal(number)
        self._timer = asyncio.get_running_loop().call_later(GRACE_SECONDS, self._kill, command)

    def _kill(self, command: Command) -> None:
        if command.group_is_alive():
            self._deadline = _now()
            command.signal(signal.SIGKILL)

    def _is_late(self) -> bool:
        """Return whether the group was killed so long ago that what is left of it won't end."""
        return self._deadline is None or _now() > self._deadline + STOPPED_SECONDS


def _now() -> float:
    return asyncio.get_running_loop().time()
