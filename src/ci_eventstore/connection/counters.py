"""What a process has done with its server, counted since it began; for monitoring."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Numbers that only grow."""

    #: Events and facts that were appended to jobs' streams.
    appended_records: int = 0
    #: Writes under a claim that was no longer the job's.
    refused_stale_writes: int = 0
    #: Commands that were sent again, because they got no answer or a passing refusal.
    retries: int = 0
    #: Commands that failed for good.
    errors: int = 0
