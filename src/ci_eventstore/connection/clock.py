"""The server's clock as seen from here: between which bounds it stands. Pure.

Every script carries a deadline in the server's time and refuses to run after it. So a command that was held up
somewhere in the network can't take effect after its caller was told that its outcome is unknown.
"""

from dataclasses import dataclass

#: Clocks that nobody sets run apart by less than this in a second (500 ppm is what NTP corrects at most).
DRIFT = 0.0005
#: How old a reading may be, in seconds, before the clock is read again.
READING_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class ClockReading:
    """One reading of the server's clock, and the local monotonic times, in seconds, between which it was taken."""

    server_ms: int
    asked_at: float
    answered_at: float

    def is_fresh(self, now: float) -> bool:
        """Tell whether the reading is still good enough."""
        return now - self.answered_at <= READING_SECONDS

    def deadline_ms(self, now: float, seconds: float) -> int:
        """Return the server's time at which `seconds` have passed here for certain."""
        return self.server_ms + int((now - self.asked_at + seconds) * (1 + DRIFT) * 1000)

    def seconds_until_past(self, deadline_ms: int, now: float) -> float:
        """Return how long to wait until the server's clock is past a deadline for certain."""
        wanted = (deadline_ms + 1 - self.server_ms) / 1000 / (1 - DRIFT)
        return max(0.0, wanted - (now - self.answered_at))
