"""What a server must be to keep jobs safely: decided from what `INFO` says, since managed servers forbid `CONFIG`."""

from collections.abc import Mapping

from ci_eventstore.errors import UnsuitableServerError

#: Redis 7.0 replicates the effects of scripts and reads streams as this store needs; Valkey began with 7.2.
MINIMUM_VERSION = (7, 0)


def check_server(info: Mapping[str, str], *, is_read_only: bool = False) -> None:
    """Raise UnsuitableServerError unless the server may hold the store; what `INFO` doesn't say is taken as good.

    Who only reads is content with a replica, and doesn't mind what the server does with writes.
    """
    version = info.get("redis_version", "")
    if version and _parse(version) < MINIMUM_VERSION:
        raise UnsuitableServerError(f"the server is Redis {version}: Redis 7.0, or Valkey 8, is the oldest that works")
    if info.get("redis_mode") == "cluster":
        raise UnsuitableServerError("the server is a node of a cluster, and the URL says a single server")
    if is_read_only:
        return
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise UnsuitableServerError(
            f"the server's maxmemory-policy is {policy}, so it may throw jobs away: set it to noeviction"
        )
    if info.get("role") == "slave":
        raise UnsuitableServerError("the server is a replica, which takes no writes: use the address of its primary")


def _parse(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
