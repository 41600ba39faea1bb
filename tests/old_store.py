"""Stores that earlier programs wrote, with jobs of all kinds: later programs upgrade them and keep them working.

`data/store_3d243d1.jsonl.gz`, of version 1, has a command a line, as JSON; each character of a text stands for a byte.
`data/store_30c7b8e.jsonl.gz` is the same store upgraded to version 2, with more jobs, whose ids begin with "2-";
`data/store_f3b1732.jsonl.gz` is that one upgraded to version 3, with sealed jobs, deleted ones and others as "3-…";
`data/store_399f404.jsonl.gz` is that one upgraded to version 4, with such jobs as "4-…", one of them archived and back.
The keys begin with `{ci:`; all ids and times are as they were, and what expires does so as long after loading.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from ci_eventstore.connection.deployments import Deployment
from ci_eventstore.upgrade.upgrade import Dialog, Stage, upgrade

DATA = Path(__file__).with_name("data")
#: By version.
PATHS = {
    version: DATA / f"store_{commit}.jsonl.gz"
    for version, commit in enumerate(("3d243d1", "30c7b8e", "f3b1732", "399f404"), start=1)
}
#: Ids of its jobs, by what they are now.
QUEUED = {"waiting-1", "waiting-2", "waiting-nobody", "waiting-zip", "waiting-events", "requeued", "requeued-plain"}
CLAIMED = {"claimed", "cancel-asked", "lost", "offered"}
#: Running without a controller; the log of `truncated` has a ring.
RUNNING = {"running", "updated", "truncated"}
ENDED = {
    "long", "done", "done-log", "failed-claim", "cancelled-claim", "taken-over", "failed", "cancelled", "completed",
    "made-failed", "made-complete", "made-naive", "truncated-ended", "late",
}  # fmt: skip
ALL = QUEUED | CLAIMED | RUNNING | ENDED


def commands(version: int) -> Iterator[list[bytes]]:
    """Yield the commands that write a store of that version."""
    with gzip.open(PATHS[version], "rt", encoding="utf-8") as lines:
        for line in lines:
            yield [word.encode("latin-1") for word in json.loads(line)]


async def load(client: Redis, version: int = 1) -> None:
    """Write a store of that version to an empty server; from the second time on restore a dump, a tenth of the work."""
    place = version, await _kind_of(client)
    dumped = _dumped.get(place)
    pipeline = client.pipeline(transaction=False)
    if dumped is None:
        for command in commands(version):
            pipeline.execute_command(*command)
    else:
        for key, left_ms, value in dumped:
            pipeline.restore(key, max(left_ms, 0), value)
    await pipeline.execute()
    if dumped is None:
        _dumped[place] = await _dump(client)


#: What servers have dumped, by the stores' versions and their own.
_dumped: dict[tuple[int, str], list[tuple[Any, int, bytes]]] = {}


async def _kind_of(client: Redis) -> str:
    """Return what tells apart servers that don't read each other's dumps; `fakeredis` has no INFO."""
    try:
        known = await client.info("server")
    except ResponseError:
        return "fakeredis"
    return str(known.get("valkey_version", known["redis_version"]))


async def _dump(client: Redis) -> list[tuple[Any, int, bytes]]:
    """Return all keys, when they expire, in milliseconds from now or -1, and what they hold."""
    keys, pipeline = await client.keys(), client.pipeline(transaction=False)
    for key in keys:
        pipeline.pttl(key)
        pipeline.dump(key)
    found = await pipeline.execute()
    return list(zip(keys, found[::2], found[1::2], strict=True))


async def upgraded(deployment: Deployment) -> Stage:
    """Upgrade the store, whatever is in the way."""
    dialog = Dialog(has_backup=lambda: True, waiting=lambda _: None)
    return await upgrade(deployment, "ci", dialog, is_forced=True, access="write")
