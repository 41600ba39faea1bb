"""How much is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a log is written whose memory is measured."""

    #: None: as fast as it goes.
    lines_per_second: int | None
    lines: int
    #: How much faster than real time it is done.
    factor: int = 1
    #: Whether design §12 says what is to be reached.
    has_target: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a run; the defaults are those of a full one."""

    #: How often each measurement is repeated.
    rounds: int = 15
    #: How often both sides of appending take turns in a round. Each begins its turn with cold caches, which costs
    #: up to half a millisecond, so a lap mustn't be short.
    laps: int = 4
    #: Batches of BATCH_EVENTS events in a lap.
    batches: int = 10
    #: Tasks that append to one job at the same time, and how many events each of them appends.
    tasks: int = 100
    events_per_task: int = 50
    #: Events that one task appends in a lap, each awaited.
    awaited: int = 600
    #: Events of the job that is read.
    long_job: int = 100_000
    #: Events of the job whose memory is measured.
    measured_job: int = 10_000
    #: Jobs of the store that is verified.
    verified_jobs: int = 4_000
    #: Partitions of the store that is measured beside one of a single partition.
    partitions: int = 64
    #: Jobs that are appended to, are listed or run through a controller there, in a lap.
    partition_jobs: int = 1_000
    #: Controllers whose commands are counted while there is nothing to do, and for how long.
    idle_controllers: int = 8
    idle_seconds: float = 10.0
    #: Jobs whose starts are timed in a round, with either number of partitions.
    timed_starts: int = 200
    #: Lines that a `LogWriter` writes in a lap.
    written_lines: int = 200_000
    #: How many secrets are masked.
    secrets: int = 1_000
    #: Lines of the logs whose memory is measured, and how fast they are written.
    measured_lines: int = 5_000
    paces: tuple[Pace, ...] = (
        Pace(1, 500, factor=100),
        Pace(100, 2_000, factor=20),
        Pace(1_000, 5_000, factor=4, has_target=True),
        Pace(None, 5_000),
    )
    #: Sizes in bytes of the texts that are compressed.
    text_bytes: tuple[int, ...] = (256, 512, 1024, 2048, 4096, 16_384, 65_536)
    #: How many texts of each size.
    texts: int = 40


FULL = Scale()
#: Shows that everything runs; its figures say nothing.
QUICK = Scale(
    rounds=1,
    laps=2,
    batches=1,
    tasks=10,
    events_per_task=2,
    awaited=20,
    long_job=2_000,
    measured_job=1_000,
    verified_jobs=50,
    partitions=4,
    partition_jobs=20,
    idle_controllers=2,
    idle_seconds=0.5,
    timed_starts=3,
    written_lines=2_000,
    secrets=20,
    measured_lines=100,
    paces=(Pace(1_000, 100, factor=4), Pace(None, 100)),
    text_bytes=(1024,),
    texts=2,
)

#: Events in one call of `add_events`, or in one pipeline.
BATCH_EVENTS = 500
#: Bytes of text in an event.
EVENT_BYTES = 80
#: The same of an event with many lines, which is compressed.
LARGE_EVENT_BYTES = 4096
