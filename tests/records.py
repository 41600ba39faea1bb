"""All that a job's log holds, facts too."""

from ci_eventstore.events.codec import decode
from ci_eventstore.events.log_source import LogSource
from ci_eventstore.events.records import Place, Record
from ci_eventstore.keys import JobKeys


async def records_of(source: LogSource, keys: JobKeys) -> list[tuple[Place, Record]]:
    """Return everything in a job's log, with its places."""
    pages = source.pages(keys, Place(0), Place(10**9))
    return [(place, decode(payload, place.position)) async for page in pages for place, payload in page]
