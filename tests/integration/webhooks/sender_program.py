"""Send webhooks until it is killed; given the store's URL. Leases and pauses are short."""

import asyncio
import sys

from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.webhooks import delivery, outbox, sender
from ci_eventstore.webhooks.addresses import networks_of
from ci_eventstore.webhooks.posting import Poster
from ci_eventstore.webhooks.sender import Means, Sender

LEASE_SECONDS = 0.5


async def main(url: str) -> None:
    """Send for ever, to addresses of this machine, too."""
    outbox.LEASE_SECONDS, sender.READ_SECONDS, sender.LOOK_SECONDS = LEASE_SECONDS, LEASE_SECONDS, 0.1
    delivery.FIRST_PAUSE_MS, delivery.LONGEST_PAUSE_MS = 50, 500
    async with RedisJobRepository.from_url(url, partitions=3) as repository:
        engine = repository.engine
        poster = Poster(networks_of(["127.0.0.1"]), seconds=5)
        await Sender(Means(engine.nodes, engine.keys, engine.reader.source, engine.facts, poster.post)).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
