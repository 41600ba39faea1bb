"""Cancel the task that runs a job, and tell that cancellation from everybody else's."""

import asyncio
import signal
import traceback
from enum import Enum, auto


class Cause(Enum):
    """Why the body of a job ended by a cancellation, Ctrl-C or an exit."""

    #: The job was interrupted: it is lost or cancelled, or its controller stops.
    INTERRUPT = auto()
    #: Somebody else cancelled the task, or the process got Ctrl-C.
    OUTSIDE = auto()
    #: The body itself: it awaited something that was cancelled, or called `sys.exit`.
    BODY = auto()


class Interrupt:
    """Cancels the task that is inside a job, once; also one that only comes in later."""

    def __init__(self) -> None:
        #: Whether the job's body is to end.
        self.is_wanted = False
        self._task: asyncio.Task[object] | None = None
        self._is_sent = False
        #: How often others had cancelled the task when it came in.
        self._earlier = 0

    @property
    def is_inside(self) -> bool:
        """Whether there is a task that may be interrupted."""
        return self._task is not None

    def enter(self) -> None:
        """Make the current task the one to interrupt, at once if an interrupt came before it."""
        self._task = asyncio.current_task()
        self._earlier = 0 if self._task is None else self._task.cancelling()
        if self.is_wanted:
            self.send()

    def send(self) -> None:
        """Cancel the task that is inside, or the one that comes in later."""
        self.is_wanted = True
        if self._task is not None and not self._is_sent:
            self._is_sent = True
            self._task.cancel()

    def leave(self, error: BaseException | None) -> Cause | None:
        """Return why the body ended; None if it did by itself, or by an ordinary exception.

        From here on no interrupt is sent; `take_back` takes one that was.
        """
        cause = None if error is None else self._cause_of(error)
        if not self._is_sent:
            self._task = None
        return cause

    def _cause_of(self, error: BaseException) -> Cause | None:
        if isinstance(error, asyncio.CancelledError):
            return self._cause_of_cancellation()
        if isinstance(error, KeyboardInterrupt) and _is_from_signal(error):
            return Cause.OUTSIDE
        return None if isinstance(error, Exception) else Cause.BODY

    async def take_back(self) -> None:
        """Send no interrupt from here on, and take back one that is on its way."""
        task, self._task = self._task, None
        is_own = task is asyncio.current_task()
        if task is None or not is_own or not self._is_sent:
            return
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self._uncancel(task) > self._earlier:
                raise
        else:
            self._uncancel(task)

    def _cause_of_cancellation(self) -> Cause:
        task = self._task
        if task is None:
            return Cause.OUTSIDE
        if self._is_sent:
            self._task = None
            # Someone else's cancellation isn't taken back.
            return Cause.INTERRUPT if self._uncancel(task) <= self._earlier else Cause.OUTSIDE
        return Cause.BODY if task.cancelling() <= self._earlier else Cause.OUTSIDE

    def _uncancel(self, task: asyncio.Task[object]) -> int:
        """Take back the interrupt, and return how many cancellations by others are left."""
        self._is_sent = False
        return task.uncancel()


def _is_from_signal(error: KeyboardInterrupt) -> bool:
    """Return whether Ctrl-C raised this, by Python's handler or, at the second time, by that of `asyncio.run`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].name == "_on_sigint"
