"""Store new jobs that wait in their queues, as most do: the typed face of `create.lua`."""

from collections.abc import Sequence
from functools import lru_cache

from ci_common.errors import JobAlreadyExistsError
from ci_common.models import JobStatus
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.events.codec import encode, encode_time
from ci_eventstore.events.records import Fact, Record
from ci_eventstore.jobs.state import created_fields, encode_field
from ci_eventstore.keys import JobKeys, QueueKeys, jobs_key, sort_key

CREATE = load_script(__package__, "create")
#: What the script itself gives to each job that waits.
_SAME_FIELDS = {
    "status": JobStatus.QUEUED.value,
    "version": "1",
    "epoch": "0",
    "attempts": "0",
    "has_complete": "0",
    "end_time_from_event": "0",
}


def waiting_job(records: Sequence[Record]) -> Fact | None:
    """Return the only record of a new job that waits in its queue and has no events; None for other jobs."""
    [first, *others] = records
    if isinstance(first, Fact) and not others and first.fields["status"] == JobStatus.QUEUED:
        return first
    return None


async def create_waiting(nodes: Nodes, keys: JobKeys, created: Fact) -> None:
    """Store a job that waits, under the fact's token, which no other call has; JobAlreadyExistsError, StoreError.

    If a controller is given the job at once, that is the token of its claim, too.
    """
    known, time = created.fields, created.time
    user_id = known.get("user_id")
    shared_keys, channel, controllers_channel = _shared_keys(keys.tag, known["queue"], user_id)
    arguments: list[str | bytes] = [
        encode(created),
        sort_key(known["created_at"]),
        user_id or "",
        channel,
        created.token or "",
        encode_field(time) or "",
        encode_time(time),
        controllers_channel,
        keys.job_id,
    ]
    for name, value in created_fields({**known, "incarnation": created.token}).items():
        if _SAME_FIELDS.get(name) != value:
            arguments += (name, value)
    all_keys = [keys.hash, keys.stream, *shared_keys]
    if await nodes.run(CREATE, all_keys, arguments) != b"ok":
        raise JobAlreadyExistsError(keys.job_id)
    nodes.counters.appended_records += 1


@lru_cache(maxsize=1000)
def _shared_keys(tag: str, queue_name: str, user_id: str | None) -> tuple[list[str], str, str]:
    """Return the keys that jobs of a partition, queue and owner have in common, and the queue's channels."""
    queue = QueueKeys(queue_name, tag)
    keys = [JobKeys("", tag).ids, queue.dispatch, queue.backlog, queue.tickets, queue.leases]
    keys += [queue.clock, queue.offers, queue.offered]
    for owner in (None,) if user_id is None else (None, user_id):
        keys += [jobs_key(tag, owner, status) for status in (None, JobStatus.QUEUED, JobStatus.RUNNING)]
    return keys, queue.channel, queue.controllers_channel
