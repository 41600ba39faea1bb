"""Append lines to logs that are within their budget, as nearly all are: the typed face of `append_logs.lua`."""

from collections.abc import Sequence
from typing import NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.events.appending import CONSTANTS, HEAD_BYTES, check_answer
from ci_eventstore.events.batch import Batch
from ci_eventstore.events.caller import Call, as_argument
from ci_eventstore.keys import JobKeys


class LogsCall(NamedTuple):
    """What `append_logs.lua` is called with."""

    hash: Key
    stream: Key
    calls: Key
    log_index: Key
    #: Of the writer, and the number of its call: 1, 2, 3 ..
    token: str
    number: int
    #: Tokens, joined by spaces: calls under them that are still on their way are refused.
    closed: str
    #: Of all texts together.
    added_bytes: int
    added_lines: int
    #: How many bytes of text the log's head may have.
    head_bytes: int
    #: The claim under which this is written, "*" if it needs none though there is one.
    claim: str
    #: Tokens and numbers of calls that this one comes after, joined by spaces.
    after: str
    payloads: Sequence[bytes]


APPEND_LOGS = load_script(__package__, "append_logs", CONSTANTS, call=LogsCall)


async def append_logs(
    nodes: Nodes, keys: JobKeys, batch: Batch, *, call: Call, claim: str = "", head_bytes: int = HEAD_BYTES
) -> bool:
    """Append lines in one step; False: nothing was changed, as the log is over its budget or has ended.

    JobNotFoundError, ProjectionMissingError, AcknowledgedEventsLostError, JobClaimedError, LeaseLostError, StoreError.
    """
    values = LogsCall(
        keys.hash,
        keys.stream,
        keys.calls,
        keys.log_index,
        call.token,
        call.number,
        " ".join(call.closes),
        batch.bytes,
        batch.lines,
        head_bytes,
        claim,
        as_argument(call.after),
        batch.payloads,
    )
    reply = await nodes.run(APPEND_LOGS, *APPEND_LOGS.order(values))
    return check_answer(reply, keys.job_id, len(batch.payloads), nodes.counters)
