"""How much is measured of live following."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Audience:
    """Who follows what, and how much happens there."""

    name: str
    followers: int
    #: How many jobs are followed, and how many there are.
    followed: int
    jobs: int
    #: Of all jobs together.
    events_per_second: int
    seconds: float
    #: Whether design §12 says what is to be reached.
    has_target: bool = False

    @property
    def events(self) -> int:
        """How many events happen, the same number in each job."""
        return max(1, round(self.events_per_second * self.seconds / self.jobs)) * self.jobs


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a run; the defaults are those of a full one."""

    #: How often each measurement is repeated.
    rounds: int = 3
    #: One follower each: where latency counts.
    alone: tuple[Audience, ...] = (
        Audience("100 events/s", 1, 1, 1, 100, 5, has_target=True),
        Audience("1,000 events/s", 1, 1, 1, 1_000, 3, has_target=True),
    )
    #: Many followers: where the CPU counts.
    audiences: tuple[Audience, ...] = (
        Audience("1,000 of one job, 10 events/s", 1_000, 1, 1, 10, 5, has_target=True),
        Audience("1,000 of one job, 100 events/s", 1_000, 1, 1, 100, 2),
        Audience("1,000 of 1,000 jobs, 1,000 events/s", 1_000, 1_000, 1_000, 1_000, 6),
        Audience("50 of 1,000 busy jobs, 1,000 events/s", 50, 50, 1_000, 1_000, 6),
    )
    crowd: Audience = Audience("10,000 followers of 2,000 jobs", 10_000, 2_000, 2_000, 2_000, 10)
    #: Clients of one HTTP server.
    streams: tuple[Audience, ...] = (
        Audience("100 events/s", 200, 1, 1, 100, 4),
        Audience("1,000 events/s", 200, 1, 1, 1_000, 1.5, has_target=True),
    )


FULL = Scale()
#: Shows that everything runs; its figures say nothing.
QUICK = Scale(
    rounds=1,
    alone=(Audience("200 events/s", 1, 1, 1, 200, 0.1),),
    audiences=(Audience("20 of 4 jobs", 20, 4, 5, 200, 0.1),),
    crowd=Audience("100 followers of 20 jobs", 100, 20, 20, 400, 0.1),
    streams=(Audience("200 events/s", 5, 1, 1, 200, 0.1),),
)

#: Bytes of text in an event.
EVENT_BYTES = 80
