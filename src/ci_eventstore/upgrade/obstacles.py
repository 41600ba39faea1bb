"""Programs that may still write to a store in the old form: they have to end before anything is converted."""

from collections.abc import Iterable, Sequence

from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_count, as_text
from ci_eventstore.errors import StoreError
from ci_eventstore.keys import Keys, all_keys_pattern

#: What an upgrade's own connections are called.
CLIENT_NAME = "ci-eventstore-upgrade"
#: The sorted sets of a queue that stand for programs that are at work, and what each of their members is.
AT_WORK = {"leases": ("claimed job", "claimed jobs"), "offers": ("idle controller", "idle controllers")}
UNSEEN = "the server doesn't show its clients: end all programs of the old version"


async def find_obstacles(nodes: Nodes, keys: Keys) -> list[str]:
    """Return a few words for each obstacle; none if no program of the old version shows."""
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
    version 2 add "ci-eventstore" to it, later ones that and their version. Servers older than 7.2 don't say.
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
    return library in ("", "redis-py") or "(ci-eventstore_" in library


def _counted(count: int, one: str, several: str) -> Iterable[str]:
    return [f"{count} {one if count == 1 else several}"] if count else []
