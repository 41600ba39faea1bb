"""One attempt to have a data directory's server running."""

import time
from dataclasses import replace
from pathlib import Path

from ci_eventstore.embedded.data_files import note_data
from ci_eventstore.embedded.file_lock import FileLock
from ci_eventstore.embedded.launch import launch
from ci_eventstore.embedded.patience import Progress, Step, next_step
from ci_eventstore.embedded.probe import Answer, probe
from ci_eventstore.embedded.runtime_folder import current_socket
from ci_eventstore.embedded.server_log import end_of_log
from ci_eventstore.errors import EmbeddedServerError


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
