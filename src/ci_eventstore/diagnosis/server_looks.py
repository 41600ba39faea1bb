"""Look at one server, or at all of them: what they show of themselves, how fast they answer, what they hear.

What a server refuses to show is left out; errors are those of `Node`.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from ci_common.errors import RepositoryError
from ci_eventstore.connection.addresses import HostPort, Place, shown_host
from ci_eventstore.connection.certificates import (
    client_certificate,
    expiry_of,
    is_on_this_machine,
    server_certificate,
)
from ci_eventstore.connection.deployments import Deployment
from ci_eventstore.connection.link import try_each
from ci_eventstore.connection.node import Node
from ci_eventstore.connection.nodes import Nodes, publish
from ci_eventstore.connection.replies import Reply, as_map, as_text
from ci_eventstore.connection.way import Counters
from ci_eventstore.diagnosis.deployment_rules import ClockSeen, SentinelSeen
from ci_eventstore.diagnosis.findings import Finding, error, ok, on_node
from ci_eventstore.diagnosis.server_rules import (
    Certificate,
    ServerSeen,
    SlowCommand,
    judge_certificates,
    judge_latency,
)
from ci_eventstore.events.caller import new_token
from ci_eventstore.keys import JobKeys

SETTINGS = ("appendfsync", "save", "stop-writes-on-bgsave-error")
#: How many round trips are measured: so many, or fewer if they take longer.
PINGS, LEAST_PINGS, PINGING_SECONDS = 100, 10, 1.0
#: How often a clock is asked: the answer that came soonest counts.
CLOCK_TRIES = 5
SLOW_COMMANDS = 50
#: The beginning of the id in the name of the channel that is tried; no job has it.
TRIAL = "ci-eventstore-doctor-"
HEARING_SECONDS = 3.0


def name_of(node: Node) -> str:
    """Return what a server is called in findings: its address, or the URL where that names none or several."""
    deployment = node.link.deployment
    return shown_host(*deployment.addresses[0]) if len(deployment.addresses) == 1 else deployment.name


async def see_server(node: Node, kind: Place, *, is_read_only: bool) -> ServerSeen:
    """Return what a server shows of itself."""
    info = await node.info()
    settings, now = await _allowed(node, ("CONFIG", "GET", *SETTINGS), ("TIME",))
    return ServerSeen(
        kind=kind,
        info=info,
        settings=as_map(settings) if settings else None,
        now=int(now[0]) if now else time.time(),
        is_read_only=is_read_only,
        is_embedded=node.link.deployment.name.startswith("embedded://"),
    )


async def _allowed(node: Node, *commands: Sequence[str]) -> list[Reply]:
    """Return the replies to commands; None for one that is refused."""
    replies = await try_each(node.link, commands)
    return [None if isinstance(reply, Exception) else reply for reply in replies]


async def look_at_latency(node: Node) -> list[Finding]:
    """Measure round trips, and read the slow log if that is allowed."""
    took, ends_at = list[float](), time.perf_counter() + PINGING_SECONDS
    while len(took) < PINGS and (len(took) < LEAST_PINGS or time.perf_counter() < ends_at):
        began = time.perf_counter()
        await node.read("PING")
        took.append(time.perf_counter() - began)
    [entries, now] = await _allowed(node, ("SLOWLOG", "GET", str(SLOW_COMMANDS)), ("TIME",))
    return judge_latency(took, _slow_commands(entries, int(now[0]) if now else time.time()))


def _slow_commands(entries: Reply, now: float) -> list[SlowCommand] | None:
    """Return the entries of a slow log, by the commands' names alone."""
    if entries is None:
        return None
    return [
        SlowCommand(name=as_text(words[0]).upper(), seconds=int(micros) / 1e6, ago_seconds=max(now - int(when), 0))
        for _, when, micros, words, *_ in entries
    ]


async def look_at_certificates(node: Node) -> list[Finding]:
    """Read the certificates of the server and of this client."""
    shown, deployment = await server_certificate(node.link), node.link.deployment
    found = [] if shown is None else [Certificate(whose="server's", until=expiry_of(shown))]
    try:
        own = client_certificate(deployment)
    except (OSError, ValueError):
        own = b""
    if own is not None:
        found.append(Certificate(whose="client's", until=expiry_of(own)))
    return judge_certificates(found, datetime.now(UTC), is_near=is_on_this_machine(deployment))


async def see_sentinel(deployment: Deployment, address: HostPort) -> SentinelSeen:
    """Return what one Sentinel says of the primary; whatever goes wrong is said, too."""
    assert deployment.sentinels is not None
    shown, node = shown_host(*address), Node(deployment.sentinels.at(*address), Counters())
    asked = [("SENTINEL", "MASTER", deployment.service), ("SENTINEL", "SENTINELS", deployment.service)]
    try:
        state, others = await try_each(node.link, asked)
    except RepositoryError as failure:
        return SentinelSeen(address=shown, failure=words_of(node, failure))
    finally:
        await node.close()
    if isinstance(state, Exception) or isinstance(others, Exception):
        return SentinelSeen(address=shown, failure=str(state if isinstance(state, Exception) else others))
    known, flags = as_map(state), [as_map(other).get("flags", "") for other in others]
    return SentinelSeen(
        address=shown,
        flags=known.get("flags", ""),
        sentinels=len(flags) + 1,
        usable=sum("down" not in one and "disconnected" not in one for one in flags) + 1,
        quorum=int(known.get("quorum", "0")),
        primary=f"{known.get('ip', '?')}:{known.get('port', '?')}",
    )


def words_of(node: Node, failure: RepositoryError) -> str:
    """Return what went wrong, without the server's address before it."""
    return str(failure).removeprefix(f"{node.link.deployment.name}: ")


async def see_clock(node: Node) -> ClockSeen:
    """Compare a server's clock with this machine's."""
    best: tuple[float, float] | None = None
    for _ in range(CLOCK_TRIES):
        began, here = time.perf_counter(), time.time()
        seconds, micros = await node.read("TIME")
        took = time.perf_counter() - began
        if best is None or took < best[0]:
            best = took, int(seconds) + int(micros) / 1e6 - here - took / 2
    assert best is not None
    return ClockSeen(node=name_of(node), ahead=best[1], error=best[0] / 2)


async def look_at_channels(nodes: Nodes, tags: Mapping[Node, str], *, is_read_only: bool) -> list[Finding]:
    """Listen on each server to a channel that nobody else uses, and publish a message there; each by a hash tag."""
    token = new_token()
    channels = {JobKeys(f"{TRIAL}{token}", tag).channel: node for node, tag in tags.items()}
    confirmed, heard = asyncio.Event(), asyncio.Event()
    listening, came = set[str](), set[str]()

    def on_listening(some: list[str]) -> None:
        listening.update(some)
        if listening >= channels.keys():
            confirmed.set()

    def on_message(channel: str, _: bytes) -> None:
        came.add(channel)
        if came >= channels.keys():
            heard.set()

    subscription = nodes.subscription(on_message, on_listening)
    try:
        subscription.listen(*channels)
        await _within(confirmed)
        if not is_read_only:
            await publish(nodes, listening, token.encode())
            await _within(heard)
    finally:
        await subscription.close()
    heard_of = listening if is_read_only else came
    return [
        finding
        for channel, node in channels.items()
        for finding in on_node([_hearing(channel in listening, channel in heard_of)], name_of(node))
    ]


async def _within(event: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(HEARING_SECONDS):
            await event.wait()
    except TimeoutError:
        pass


def _hearing(is_listening: bool, is_heard: bool) -> Finding:
    advice = "followers and controllers only look every few seconds meanwhile: look at the user's channels (`&{ci:*`)"
    if not is_listening:
        return error("channels", "the server confirms no channel that is listened to", advice)
    if not is_heard:
        return error("channels", "a message that was published isn't heard", f"{advice}, and at proxies in between")
    return ok("channels", "a message is heard")
