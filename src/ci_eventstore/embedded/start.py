"""One attempt to have a data directory's server running: ask whether it answers, decide what to do next, do it."""

import socket
import time
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from ci_eventstore.embedded.file_lock import FileLock
from ci_eventstore.embedded.launch import end_of_log, launch, note_data
from ci_eventstore.embedded.runtime_folder import current_socket
from ci_eventstore.errors import EmbeddedServerError

_ANSWER_SECONDS = 2.0
_LONGEST_REPLY = 512


class Answer(Enum):
    """What became of a PING."""

    #: Nobody listens.
    ABSENT = "absent"
    #: Somebody listens, but gave no answer in time.
    SILENT = "silent"
    #: The server reads its data and takes no commands yet.
    LOADING = "loading"
    READY = "ready"


def probe(socket_path: Path) -> Answer:
    """Send a PING and return what became of it. OSError if the socket is there but can't be used."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_ANSWER_SECONDS)
        try:
            client.connect(str(socket_path))
            client.sendall(b"PING\r\n")
            return answer_of(client.recv(_LONGEST_REPLY))
        except (BlockingIOError, TimeoutError):
            return Answer.SILENT
        except (FileNotFoundError, ConnectionError):
            return Answer.ABSENT


def answer_of(reply: bytes) -> Answer:
    """Read a reply to PING. Even one that isn't PONG comes from a server at work, such as `-BUSY` beside a script."""
    if not reply:
        return Answer.ABSENT
    return Answer.LOADING if reply.startswith(b"-LOADING") else Answer.READY


#: How often a server that died at its start is started again: whatever killed it may be over.
LAUNCHES = 3
#: How long there may be no sign of a server. A server being stopped is given 10 seconds.
SILENCE_SECONDS = 30.0
#: How long a server may read its data.
LOADING_SECONDS = 600.0


class Step(Enum):
    """What to do; all after WAIT mean to give up, each with its own reason."""

    DONE = "done"
    LAUNCH = "launch"
    WAIT = "wait"
    DIED = "it ended each time it was started"
    LOADS_TOO_LONG = "it is still loading its data; the next try finds it further on"
    DOES_NOT_ANSWER = "it accepts connections, but doesn't answer; a long command or a slow disk may hold it up"
    UNREACHABLE = "one is running, but not at this socket; another user or another container may have started it"


@dataclass(frozen=True)
class Progress:
    """What happened since a server was asked for; times are seconds of one clock."""

    started: float
    #: When a server was launched last, or said that it is loading.
    last_sign: float
    launches: int = 0


def next_step(progress: Progress, answer: Answer, now: float, *, is_free: bool) -> Step:
    """Decide by the last answer; `is_free` says that we hold the lock that a server has while it lives."""
    if answer is Answer.READY:
        return Step.DONE
    if answer is Answer.LOADING:
        return Step.LOADS_TOO_LONG if now - progress.started > LOADING_SECONDS else Step.WAIT
    if is_free:
        return Step.LAUNCH if progress.launches < LAUNCHES else Step.DIED
    if now - progress.last_sign <= SILENCE_SECONDS:
        return Step.WAIT
    return Step.DOES_NOT_ANSWER if answer is Answer.SILENT else Step.UNREACHABLE


class Start:
    """Steps towards a server that answers; of several processes that take them at once, one launches it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        now = time.monotonic()
        self._progress = Progress(started=now, last_sign=now)
        self._log_start = 0
        self._lock: FileLock | None = None

    def advance(self) -> bool:
        """Take one step without waiting for its effect; return whether the server takes commands.

        EmbeddedServerError if there is no hope, OSError if a file can't be used.
        """
        answer = probe(current_socket(self._directory))
        try:
            if answer is Answer.ABSENT:
                self._lock = FileLock.take(self._directory / "server.lock", shared=False)
            step = next_step(self._progress, answer, time.monotonic(), is_free=self._lock is not None)
            if step is Step.LAUNCH and self._lock is not None:
                self._log_start = launch(self._directory, self._lock)
        finally:
            self.forget_lock()
        if step not in {Step.DONE, Step.LAUNCH, Step.WAIT}:
            raise self._error(step)
        self._note(step, answer)
        if step is Step.DONE:
            note_data(self._directory)
        return step is Step.DONE

    def forget_lock(self) -> None:
        """Close this process's hold on the server's lock; a watchdog that was launched keeps it."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()

    def _note(self, step: Step, answer: Answer) -> None:
        if step is Step.LAUNCH:
            self._progress = replace(self._progress, launches=self._progress.launches + 1, last_sign=time.monotonic())
        elif answer is Answer.LOADING:
            self._progress = replace(self._progress, last_sign=time.monotonic())

    def _error(self, step: Step) -> EmbeddedServerError:
        where = f"the embedded server of {self._directory} can't be used at {current_socket(self._directory)}"
        return EmbeddedServerError(f"{where}: {step.value}\n{end_of_log(self._directory, self._log_start)}")
