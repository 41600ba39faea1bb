"""How a process ended: its exit code, or the signal that killed it. Pure."""

import signal
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: one of the two is known."""

    exit_code: int | None = None
    #: As `SIGKILL`; one without a name of its own as `SIG40`.
    signal: str | None = None

    @classmethod
    def of(cls, returncode: int) -> Self:
        """Return what Python's return code says: -N if signal N killed the process."""
        if returncode >= 0:
            return cls(exit_code=returncode)
        number = -returncode
        return cls(signal=signal.Signals(number).name if number in set(signal.Signals) else f"SIG{number}")

    @property
    def is_success(self) -> bool:
        """Whether the command succeeded."""
        return self.exit_code == 0

    def __str__(self) -> str:
        """Say how it ended, as a job's log does."""
        return f"killed by {self.signal}" if self.signal else f"exit code {self.exit_code}"
