"""Append records to a job's stream: the typed face of `append.lua`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ci_common.errors import JobAlreadyExistsError, JobNotFoundError
from ci_eventstore.errors import AcknowledgedEventsLostError, ProjectionMissingError
from ci_eventstore.events.batch import Batch
from ci_eventstore.events.log_index import INDEX_BYTES, INDEX_EVENTS
from ci_eventstore.keys import JobKeys
from ci_eventstore.server.client import Server
from ci_eventstore.server.scripts import load_script

APPEND = load_script(
    __package__,
    "append",
    {
        "INDEX_EVENTS": INDEX_EVENTS,
        "INDEX_BYTES": INDEX_BYTES,
        # A writer that was idle for an hour may be forgotten, once there are as many as this.
        "CALLS_KEPT": 64,
        "CALLS_AGE_MS": 3_600_000,
        "CALLS_TTL_MS": 86_400_000,
    },
)


class Call(NamedTuple):
    """What a repeated script is recognised by: a token, and the number of the call under it, from 1 on."""

    token: str
    number: int = 1
    #: Tokens whose calls, should any still be on their way, are to be refused from now on.
    closes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What an append does to the projection beside its counters."""

    #: The version that the records were decided on, or that the job must be new.
    expected: int | Literal["new"]
    #: Which record, counted from 1, is the job's end; 0 for none.
    ends_at: int = 0
    #: A letter for each record, v(isible) or f(act).
    kinds: str = ""
    given: dict[str, str] = field(default_factory=dict)
    lost: Sequence[str] = ()
    #: The job's member in the listings, and the listings that it leaves and joins.
    member: str = ""
    leaves: Sequence[str] = ()
    joins: Sequence[str] = ()


async def append(server: Server, keys: JobKeys, batch: Batch, *, call: Call, change: Change | None = None) -> bool:
    """Append the records in one step; False: the version isn't the expected one any more, nothing was changed.

    Without a change, all records are visible and the job may be in any state. A repeated call is answered as the first
    time. JobNotFoundError, JobAlreadyExistsError, ProjectionMissingError, AcknowledgedEventsLostError, StoreError.
    """
    listings: list[str] = []
    closes, sizes = " ".join(call.closes), (" ".join(batch.sizes), batch.bytes, batch.lines)
    if change is None:
        head: list[str | int] = ["any", closes, 0, "", *sizes, "", 0, 0, 0]
    else:
        given = [text for pair in change.given.items() for text in pair]
        counts: list[str | int] = [change.member, len(change.leaves), len(change.given), len(change.lost)]
        head = [change.expected, closes, change.ends_at, change.kinds, *sizes, *counts, *given, *change.lost]
        listings = [*change.leaves, *change.joins]
    all_keys = [keys.hash, keys.stream, keys.calls, keys.index, keys.ids, *listings]
    reply = await server.run(APPEND, all_keys, [call.token, call.number, *head, *batch.payloads])
    return _is_done(reply[0], keys.job_id)


def _is_done(outcome: bytes, job_id: str) -> bool:
    match outcome:
        case b"ok" | b"repeated":
            return True
        case b"conflict":
            return False
        case b"exists":
            raise JobAlreadyExistsError(job_id)
        case b"missing":
            raise JobNotFoundError(job_id)
        case b"unprojected":
            raise ProjectionMissingError(job_id)
        case b"lost":
            raise AcknowledgedEventsLostError(job_id)
    raise AssertionError(f"append.lua answered {outcome!r}")
