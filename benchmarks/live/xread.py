"""How one follows a job without the store's help: a connection for each follower, and a blocking `XREAD` on it."""

from collections.abc import AsyncGenerator
from typing import Any

from redis.asyncio import Redis

from ci_common.models import JobEvent
from ci_eventstore.events.codec import decode_event
from ci_eventstore.keys import Keys

BLOCK_MILLISECONDS = 5_000
#: Of a follower that has fallen behind.
PAGE_ENTRIES = 1_000
MOST_CONNECTIONS = 20_000


def open_client(url: str) -> Redis:
    """Return a client that opens a connection for each `XREAD` that blocks."""
    return Redis.from_url(url, max_connections=MOST_CONNECTIONS, socket_timeout=None, protocol=2)


async def follow(client: Redis, job_id: str) -> AsyncGenerator[JobEvent, None]:
    """Yield a job's events from the first one on; end with the job."""
    stream, last = Keys("ci", 1).job(job_id).stream, b"0-0"
    while True:
        # redis-py's types don't know which protocol a client speaks.
        reply: Any = await client.xread({stream: last}, count=PAGE_ENTRIES, block=BLOCK_MILLISECONDS)
        for _, entries in reply:
            for stream_id, fields in entries:
                last = stream_id
                position, part = last.split(b"-")
                if part != b"0":
                    continue
                event = decode_event(fields[b"e"], int(position))
                yield event
                if event.type == "complete":
                    return
