"""Upgrade a store: mark it, wait until nobody uses it, ask for a backup, convert it, and give it its new version.

The store itself notes the stage that the upgrade is in, so an upgrade that was killed goes on where it stopped.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.connections import DRIVER
from ci_eventstore.connection.deployments import Deployment
from ci_eventstore.connection.nodes import Nodes, servers_of
from ci_eventstore.connection.replies import as_count, as_text
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import StoreError, StoreFormatError
from ci_eventstore.keys import Keys, all_keys_pattern
from ci_eventstore.projection.differences import Progress
from ci_eventstore.requirements import check_server
from ci_eventstore.settings import Access
from ci_eventstore.store_format import FORMAT_VERSION, NO_VERSION, refusal
from ci_eventstore.upgrade.conversions import convert

#: What an upgrade's own connections are called.
CLIENT_NAME = "ci-eventstore-upgrade"
#: The sorted sets of a queue that stand for programs that are at work, and what each of their members is.
AT_WORK = {"leases": ("claimed job", "claimed jobs"), "offers": ("idle controller", "idle controllers")}
UNSEEN = "the server doesn't show its clients: end all programs of the old version"


async def find_obstacles(nodes: Nodes, keys: Keys) -> list[str]:
    """Return a few words for each sign of a program that may still write in the old form; none if there is no sign."""
    counts = dict.fromkeys(AT_WORK, 0)
    async for page in nodes.scan(all_keys_pattern(keys)):
        sets = [(kind, key) for key in page if (kind := key.partition("}:")[2].partition(":")[0]) in AT_WORK]
        for (kind, _), size in zip(sets, await nodes.read_many([("ZCARD", key) for _, key in sets]), strict=True):
            counts[kind] += as_count(size)
    found = [text for kind, names in AT_WORK.items() for text in _counted(counts[kind], *names)]
    for node in nodes.all:
        channels = set[bytes]()
        for pattern in (f"{{{keys.prefix}:*", f"{keys.prefix}:*"):
            channels.update(await node.read("PUBSUB", "CHANNELS", pattern))
        found += _counted(len(channels), "channel that is listened to", "channels that are listened to")
        try:
            clients = as_text(await node.read("CLIENT", "LIST"))
        except StoreError:
            # This user, or this server's provider, doesn't allow it.
            found.append(UNSEEN)
        else:
            found += [f"client {client}" for client in old_clients(clients.splitlines())]
    return found


def old_clients(lines: Sequence[str]) -> list[str]:
    """Return the clients that may be programs of the old version, from the lines of `CLIENT LIST`. Pure.

    Programs of version 1 call themselves "redis-py", as others may that have nothing to do with the store; those of
    version 2 add "ci-eventstore" to it, later ones that and their format. Servers older than 7.2 don't say.
    """
    clients = [dict(word.partition("=")[::2] for word in line.split(" ")) for line in lines]
    own = next((client.get("db") for client in clients if client.get("name") == CLIENT_NAME), None)
    return [
        f"{client.get('addr')} (last command {client.get('cmd')}, idle for {client.get('idle')} s)"
        for client in clients
        if own in (None, client.get("db")) and _may_be_old(client)
    ]


def _may_be_old(client: dict[str, str]) -> bool:
    name = client.get("name", "")
    if name == CLIENT_NAME or name.startswith("sentinel-") or not set("SM").isdisjoint(client.get("flags", "")):
        return False
    library = client.get("lib-name", "")
    return library in ("", "redis-py") or ("(ci-eventstore" in library and f"({DRIVER}_" not in library)


def _counted(count: int, one: str, several: str) -> Iterable[str]:
    return [f"{count} {one if count == 1 else several}"] if count else []


class StageCall(NamedTuple):
    """What `move_stage.lua` is called with."""

    store: Key
    #: Of the stage that the store has to be in, then of the next; "" for no mark.
    format: str
    mark: str
    next_format: str
    next_mark: str


MOVE_STAGE = load_script(__package__, "move_stage", call=StageCall)


class Stage(Enum):
    """How far an upgrade has come: the store's fields `format` and `upgrading`. No program opens a store in between."""

    OLD_1 = ("1", "")
    OLD_2 = ("2", "")
    OLD_3 = ("3", "")
    OLD_4 = ("4", "")
    #: Nothing is converted: the store can still be given back to programs of the old version.
    WAITING_1 = (str(NO_VERSION), "waiting")
    WAITING_2 = (str(NO_VERSION), "waiting 2")
    WAITING_3 = (str(NO_VERSION), "waiting 3")
    WAITING_4 = (str(NO_VERSION), "waiting 4")
    #: By a program that upgrades to an earlier version: it mustn't go on, as it doesn't know what else is to be done.
    CONVERTING_TO_2 = (str(NO_VERSION), "converting")
    CONVERTING_TO_3 = (str(NO_VERSION), "converting 3")
    CONVERTING_TO_4 = (str(NO_VERSION), "converting 4")
    CONVERTING = (str(NO_VERSION), "converting 5")
    DONE = (str(FORMAT_VERSION), "")

    @property
    def is_waiting(self) -> bool:
        """Whether the store is marked, and nothing is converted."""
        return self.value[1].startswith("waiting")

    @property
    def is_converting(self) -> bool:
        """Whether parts of the store are converted."""
        return self.value[1].startswith("converting")


#: The moves there are, each by its name: from one stage or another.
MOVES = {
    "begin": (
        (Stage.OLD_1, Stage.WAITING_1),
        (Stage.OLD_2, Stage.WAITING_2),
        (Stage.OLD_3, Stage.WAITING_3),
        (Stage.OLD_4, Stage.WAITING_4),
        (Stage.CONVERTING_TO_2, Stage.CONVERTING),
        (Stage.CONVERTING_TO_3, Stage.CONVERTING),
        (Stage.CONVERTING_TO_4, Stage.CONVERTING),
    ),
    "cancel": (
        (Stage.WAITING_1, Stage.OLD_1),
        (Stage.WAITING_2, Stage.OLD_2),
        (Stage.WAITING_3, Stage.OLD_3),
        (Stage.WAITING_4, Stage.OLD_4),
    ),
    "convert": (
        (Stage.WAITING_1, Stage.CONVERTING),
        (Stage.WAITING_2, Stage.CONVERTING),
        (Stage.WAITING_3, Stage.CONVERTING),
        # What version 4 has is read as it is.
        (Stage.WAITING_4, Stage.DONE),
    ),
    "finish": ((Stage.CONVERTING, Stage.DONE),),
}


async def move(nodes: Nodes, prefix: str, name: str) -> tuple[Stage, Keys]:
    """Make one of the moves if the store is where it begins; return the stage that it is in then, and its keys.

    StoreFormatError if there is no such store, or one of another version.
    """
    store, version, mark, partitions = Keys(prefix).store, "", "", ""
    for before, after in MOVES[name]:
        reply = await nodes.run(MOVE_STAGE, *MOVE_STAGE.order(StageCall(store, *before.value, *after.value)))
        version, mark, partitions = (as_text(part or b"") for part in reply)
        if (version, mark) == after.value:
            break
    if not version:
        raise StoreFormatError(f"there is no store {prefix!r}")
    stage = next((stage for stage in Stage if stage.value == (version, mark)), None)
    if stage is None or not partitions.isdecimal():
        raise StoreFormatError(refusal(prefix, version))
    return stage, Keys(prefix, int(partitions))


#: Between two looks at what is in the way; longer on a store that takes long to be looked at.
LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Dialog:
    """What an upgrade asks and reports."""

    #: Whether there is a backup, made while nobody wrote.
    has_backup: Callable[[], bool]
    #: Called whenever what is waited for has changed.
    waiting: Callable[[Sequence[str]], None]
    progress: Progress | None = None


async def upgrade(deployment: Deployment, prefix: str, dialog: Dialog, *, is_forced: bool, access: Access) -> Stage:
    """Bring a store over to this program's format version; it may be killed at any step, and begun again.

    Return the stage that it ends in: DONE, or a waiting one if there is no backup. Nobody opens the store from the
    first step to the last. If it is forced, nothing is waited for. StoreFormatError.
    """
    async with _connected(deployment, access) as nodes:
        stage, keys = await move(nodes, prefix, "begin")
        if stage.is_waiting:
            if not is_forced:
                await _wait_until_unused(nodes, keys, dialog.waiting)
            if not dialog.has_backup():
                return stage
            stage, _ = await move(nodes, prefix, "convert")
        if stage is Stage.CONVERTING:
            await convert(nodes, keys, dialog.progress)
            stage, _ = await move(nodes, prefix, "finish")
        return stage


async def cancel(deployment: Deployment, prefix: str, access: Access) -> None:
    """Give a store back to programs of the old version, as long as nothing is converted; StoreFormatError."""
    async with _connected(deployment, access) as nodes:
        stage, _ = await move(nodes, prefix, "cancel")
    if stage.is_converting:
        raise StoreFormatError(
            f"parts of the store {prefix!r} are converted already: finish the upgrade, or restore the backup"
        )
    if stage is Stage.DONE:
        raise StoreFormatError(f"the store {prefix!r} is upgraded: only the backup leads back")


@asynccontextmanager
async def _connected(deployment: Deployment, access: Access) -> AsyncIterator[Nodes]:
    options = {**deployment.connection_options, "client_name": CLIENT_NAME}
    nodes = Nodes(replace(deployment, connection_options=options), is_read_only=access == "read")
    try:
        for node in await servers_of(nodes):
            check_server(await node.info(), kind=nodes.deployment.kind)
        yield nodes
    finally:
        await nodes.close()
        deployment.release()


async def _wait_until_unused(nodes: Nodes, keys: Keys, waiting: Callable[[Sequence[str]], None]) -> None:
    known, loop = list[str](), asyncio.get_running_loop()
    while True:
        begun = loop.time()
        found = await find_obstacles(nodes, keys)
        if not found:
            return
        # How long clients are idle changes all the time.
        kinds = [obstacle.partition(" (")[0] for obstacle in found]
        if kinds != known:
            known = kinds
            waiting(found)
        await asyncio.sleep(max(LOOK_SECONDS, 5 * (loop.time() - begun)))
