"""When a command is sent again. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from ci_eventstore.connection.outcomes import Effect, Outcome, Patience

#: The pause before each further try; the last one repeats.
PAUSES_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0)


def pauses() -> Iterator[float]:
    """Yield the pauses between tries, in seconds, without end."""
    yield from PAUSES_SECONDS
    while True:
        yield PAUSES_SECONDS[-1]


@dataclass(slots=True)
class Tries:
    """The tries of one command so far."""

    #: The local monotonic time, in seconds, from which patience counts.
    started: float
    failed: int = 0
    #: Whether one of them may have taken effect.
    may_have_arrived: bool = False
    _last: Patience = Patience.NONE

    def pause_after(self, outcome: Outcome, now: float, patience_seconds: float) -> float | None:
        """Note a failed try, and return how long to pause before the next one; None if there is none."""
        self.may_have_arrived = self.may_have_arrived or outcome.effect is not Effect.NONE
        if self._last is Patience.LOADING and outcome.patience is not Patience.LOADING:
            # It took as long as it took; what comes then has its own time.
            self.started = now
        self._last = outcome.patience
        pause = PAUSES_SECONDS[min(self.failed, len(PAUSES_SECONDS) - 1)]
        self.failed += 1
        if not outcome.is_passing or now - self.started + pause > patience_seconds:
            return None
        return pause
