"""An open store: the server, checked, and the parts that work on it."""

import logging
from dataclasses import dataclass, field

from ci_eventstore.accounts.sessions import SessionStore
from ci_eventstore.accounts.store import AccountStore
from ci_eventstore.claims.holders import Holders
from ci_eventstore.claims.lost_jobs import LostJobs
from ci_eventstore.claims.store import ClaimStore
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.events.reader import EventReader
from ci_eventstore.following.hub import Hub
from ci_eventstore.following.incarnation import StoreIncarnation, new_incarnation
from ci_eventstore.jobs.listings import Listings
from ci_eventstore.jobs.store import JobStore
from ci_eventstore.keys import Keys
from ci_eventstore.projection.projections import Projections
from ci_eventstore.rights import check_rights_to_read, check_rights_to_write
from ci_eventstore.server.checks import check_server
from ci_eventstore.server.client import Server
from ci_eventstore.server.deployments import Deployment
from ci_eventstore.server.scripts import load_script
from ci_eventstore.settings import Settings
from ci_eventstore.writer.time_limit import TimeLimit

logger = logging.getLogger("ci_eventstore")

#: Of keys, hashes and streams; another number means another layout.
FORMAT_VERSION = 1
INITIALIZE = load_script("ci_eventstore", "initialize")


@dataclass(frozen=True, slots=True)
class Store:
    """The parts of one open repository."""

    keys: Keys
    server: Server
    sessions: SessionStore
    accounts: AccountStore
    jobs: JobStore
    listings: Listings
    reader: EventReader
    incarnation: StoreIncarnation
    hub: Hub
    projections: Projections
    claims: ClaimStore
    lost_jobs: LostJobs
    holders: Holders
    _closing: TimeLimit = field(default_factory=TimeLimit)

    @classmethod
    async def open(cls, deployment: Deployment, keys: Keys, settings: Settings) -> "Store":
        """Connect, check the server and the data's format; StoreError."""
        is_read_only = settings.access == "read"
        server = Server(deployment, settings.replicas, is_read_only=is_read_only)
        try:
            check_server(await server.info(), is_read_only=is_read_only)
            await (check_rights_to_read if is_read_only else check_rights_to_write)(server, keys)
            incarnation = StoreIncarnation(server, keys)
            incarnation.known = await check_format(server, keys, is_read_only=is_read_only)
        except BaseException:
            await server.close()
            raise
        reader = EventReader(server)
        jobs = JobStore(server, keys, settings, incarnation.note_loss)
        claims = ClaimStore(server, keys, jobs.is_writing, jobs.ledger)
        lost_jobs = LostJobs(server, keys, claims, jobs)
        return cls(
            keys=keys,
            server=server,
            sessions=SessionStore(server, keys),
            accounts=AccountStore(server, keys),
            jobs=jobs,
            listings=Listings(server, keys),
            reader=reader,
            incarnation=incarnation,
            # Who only reads leaves lost jobs to others.
            hub=Hub(server, reader, incarnation) if is_read_only else Hub(server, reader, incarnation, lost_jobs.watch),
            projections=Projections(server, keys),
            claims=claims,
            lost_jobs=lost_jobs,
            holders=Holders(server, keys, jobs, lost_jobs),
        )

    def hurry(self, seconds: float) -> None:
        """Let `close` wait at most that long for what is still to be sent."""
        self._closing.shorten(seconds)

    async def close(self) -> None:
        """Send what is waiting to be sent, then close the connections."""
        await self.lost_jobs.close()
        try:
            async with self._closing.hold():
                await self.claims.completions.drain()
                await self.jobs.drain()
        except TimeoutError:
            logger.warning("the store gave no answer to what was sent last: it may have taken effect or not")
        await self.hub.close()
        await self.server.close()


async def check_format(server: Server, keys: Keys, *, is_read_only: bool = False) -> str | None:
    """Note what a new store is, and return the store's incarnation; StoreFormatError for another format or layout."""
    if is_read_only:
        reply = await server.read("HMGET", keys.store, "format", "partitions", "incarnation")
        if reply[0] is None:
            raise StoreFormatError(f"there is no store {keys.prefix!r} yet: open it once with access='write'")
    else:
        reply = await server.run(INITIALIZE, [keys.store], [FORMAT_VERSION, keys.partitions, new_incarnation()])
    version, partitions = int(reply[0]), int(reply[1])
    if version != FORMAT_VERSION:
        raise StoreFormatError(
            f"the store {keys.prefix!r} has format version {version}, this program reads {FORMAT_VERSION}: "
            "use the program version that wrote it, or another prefix"
        )
    if partitions != keys.partitions:
        raise StoreFormatError(
            f"the store {keys.prefix!r} was made with {partitions} partitions, not {keys.partitions}: "
            f"open it with partitions={partitions}, which never changes"
        )
    return None if reply[2] is None else str(reply[2].decode())
