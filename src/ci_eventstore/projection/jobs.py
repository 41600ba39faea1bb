"""Verify and rebuild what is derived from one job's stream, while the job may be in use."""

from ci_eventstore.errors import ProjectionDamagedError
from ci_eventstore.events.log_index import LogIndex
from ci_eventstore.events.reader import EventReader
from ci_eventstore.events.records import Place
from ci_eventstore.jobs.state import from_hash, to_hash
from ci_eventstore.keys import JobKeys
from ci_eventstore.projection.differences import Difference, compare
from ci_eventstore.projection.fold import Fold
from ci_eventstore.server.client import Server
from ci_eventstore.server.replies import as_bytes, as_entries, as_text_map, as_texts
from ci_eventstore.server.scripts import load_script

#: A lease that is found missing counts from now, for so long.
REBUILT_LEASE_MS = 30_000
#: Fields that the hashes of jobs lack that older programs wrote.
LATER_FIELDS = ("mark", "incarnation", "hand_backs")
REBUILD = load_script(__package__, "rebuild", {"REBUILT_LEASE_MS": REBUILT_LEASE_MS})


class JobProjections:
    """The projections of single jobs."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._reader = EventReader(server)

    async def verify(self, keys: JobKeys) -> list[Difference]:
        """Return where the job's hash, sparse index and listings differ from its stream.

        Scripts move all of these together, so they are read in one transaction, and the place that the hash says is
        where the fold has to stop.
        """
        subject = f"job {keys.job_id}"
        fold = await self._begun_fold(keys)
        listings, queue = list(fold.listings()), fold.queue_places()
        last, hash_reply, index_reply, in_ids, *scores = await self._server.read_at_once(
            [
                ("XREVRANGE", keys.stream, "+", "-", "COUNT", 1),
                ("HGETALL", keys.hash),
                ("LRANGE", keys.index, 0, -1),
                ("ZSCORE", keys.ids, keys.job_id),
                *(("ZSCORE", key, fold.member()) for key in listings),
                *queue.values(),
            ]
        )
        found = as_text_map(hash_reply)
        if not last:
            return [Difference(subject, "stream", "events", None)] if found else []
        if not {"position", "part"} <= found.keys():
            return [Difference(subject, "hash", "a projection", None)]
        place, end = Place(int(found["position"]), int(found["part"])), Place.parse(as_entries(last)[0][0])
        if place != end:
            return [Difference(subject, "hash at", str(end), str(place))]
        index = as_texts(index_reply)
        fold.index = LogIndex(index)
        await fold.advance(self._reader, place)
        standing = {key for key, score in zip(listings, scores, strict=False) if score is not None}
        if in_ids is not None:
            standing.add(keys.ids)
        queued = {name for name, entry in zip(queue, scores[len(listings) :], strict=True) if entry not in (None, 0)}
        return [*_compare(subject, fold, found, standing, index), *_compare_queue(subject, fold, queued)]

    async def rebuild(self, keys: JobKeys) -> bool:
        """Write the job's hash, sparse index and listings as its stream says; False if it has no stream."""
        fold = Fold(keys)
        while True:
            last = await self._last_place(keys)
            if last is None:
                return False
            await fold.advance(self._reader, last)
            if await rebuild(self._server, fold):
                return True

    async def _begun_fold(self, keys: JobKeys) -> Fold:
        """Return the fold of the first record, which says who owns the job and when it was created."""
        fold = Fold(keys)
        await fold.advance(self._reader, Place(0, 1))
        return fold

    async def _last_place(self, keys: JobKeys) -> Place | None:
        entries = as_entries(await self._server.read("XREVRANGE", keys.stream, "+", "-", "COUNT", 1))
        return Place.parse(entries[0][0]) if entries else None


def _compare(
    subject: str, fold: Fold, fields: dict[str, str], standing: set[str], index: list[str]
) -> list[Difference]:
    expected = {key for key, belongs in fold.listings().items() if belongs} | {fold.keys.ids}
    said = to_hash(fold.state) if fold.state else {}
    for name in LATER_FIELDS:
        if not fields.get(name):
            # Older programs wrote none; on `fakeredis` the mark is empty.
            fields.pop(name, None)
            said.pop(name, None)
    differences = compare(subject, "field", said, fields)
    differences += compare(subject, "listing", dict.fromkeys(expected, "member"), dict.fromkeys(standing, "member"))
    if index != fold.index.entries:
        differences.append(Difference(subject, "sparse index", ", ".join(fold.index.entries), ", ".join(index)))
    elif fold.index.gap_at is not None:
        differences.append(Difference(subject, "sparse index", f"an entry before {fold.index.gap_at}", None))
    return differences


def _compare_queue(subject: str, fold: Fold, found: set[str]) -> list[Difference]:
    belongs = fold.belongs_in_queue()
    expected = {name: "an entry" for name, is_there in belongs.items() if is_there}
    return compare(subject, "queue", expected, dict.fromkeys(found & belongs.keys(), "an entry"))


async def rebuild(server: Server, fold: Fold) -> bool:
    """Write what a fold says as `rebuild.lua` does; False if the stream has gone on since."""
    if fold.state is None:
        return False
    listings = fold.listings()
    leaves = [key for key, belongs in listings.items() if not belongs]
    joins = [key for key, belongs in listings.items() if belongs]
    fields = to_hash(fold.state)
    pairs = [text for pair in fields.items() for text in pair]
    keys = fold.keys
    queue, in_queue = keys.queue(fold.state.lease_queue), fold.belongs_in_queue()
    queue_keys = [queue.dispatch, queue.backlog, queue.tickets, queue.leases, queue.clock]
    in_queue_arguments: list[str | int] = [
        fold.state.user_id or "",
        int(in_queue["backlog"]),
        int(in_queue["lease"]),
        queue.channel,
    ]
    all_keys = [keys.hash, keys.stream, keys.index, keys.ids, *queue_keys, *leaves, *joins]
    head: list[str | int] = [str(fold.place), keys.job_id, fold.member(), *in_queue_arguments, len(leaves), len(fields)]
    reply = await server.run(REBUILD, all_keys, [*head, *pairs, *fold.index.entries])
    return bool(reply)


def belongs(listing: str, member: str, keys: JobKeys, fields: dict[str, str]) -> bool:
    """Tell whether a listing's member is as the job's hash says."""
    fold = Fold(keys)
    try:
        fold.state = from_hash(keys.job_id, [as_bytes(text) for pair in fields.items() for text in pair])
    except ProjectionDamagedError:
        return False
    return member == fold.member() and fold.listings().get(listing, False)
