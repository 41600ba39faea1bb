"""Look at a store and its servers, each thing for itself and for a limited time, and judge what is seen.

A look that fails or takes too long is a finding of its own, and the others go on. Nothing is changed: no store is made,
and what is written to try something out is removed.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from ci_common.errors import RepositoryError
from ci_eventstore.connection.deployments import Deployment
from ci_eventstore.connection.node import Node
from ci_eventstore.connection.nodes import Nodes, server_of, servers_of, time_ms, unserved_slots
from ci_eventstore.connection.replies import as_optional_texts
from ci_eventstore.connection.way import in_a_hurry
from ci_eventstore.diagnosis.deployment_rules import judge_clocks, judge_partitions, judge_sentinels
from ci_eventstore.diagnosis.findings import CHECKS, Finding, Severity, error, note, ok, on_node, warning
from ci_eventstore.diagnosis.server_looks import (
    look_at_certificates,
    look_at_channels,
    look_at_latency,
    name_of,
    see_clock,
    see_sentinel,
    see_server,
    words_of,
)
from ci_eventstore.diagnosis.server_rules import REWRITE_SHARE, ServerSeen, judge_kind, judge_server
from ci_eventstore.diagnosis.store_looks import see_archive, see_groups, see_growth, see_queues, see_sealing
from ci_eventstore.diagnosis.store_rules import (
    judge_archive,
    judge_consumers,
    judge_growth,
    judge_queues,
    judge_sealing,
    judge_store,
    judge_webhooks,
)
from ci_eventstore.errors import AuthenticationError, MissingRightsError
from ci_eventstore.facts.groups import Groups
from ci_eventstore.keys import Keys
from ci_eventstore.requirements import check_rights_to_read, check_rights_to_write
from ci_eventstore.settings import Settings
from ci_eventstore.webhooks.store import WebhookStore

logger = logging.getLogger("ci_eventstore.diagnosis")

#: The most that a look takes, one at an archive, and all looks together.
LOOK_SECONDS, ARCHIVE_SECONDS, ALL_SECONDS = 10.0, 30.0, 90.0

RIGHTS = "look as a user who may: docs/operations.md has the rights of each"
AGAIN = "try again; if that repeats, look at the server's log"
#: Checks that are made whether there is a store or not.
_WITHOUT_A_STORE = ("latency", "certificates", "store", "rights", "clocks", "channels")

#: Gets how many looks are done, and how many there are.
Progress = Callable[[int, int], None]


async def examine(deployment: Deployment, settings: Settings, progress: Progress | None = None) -> list[Finding]:
    """Return all findings, in the order of CHECKS. Takes no longer than a minute and a half."""
    is_read_only = settings.access == "read"
    nodes = Nodes(deployment, is_read_only=is_read_only)
    try:
        # Where some servers are away, what needs them is no longer waited for than the others take.
        with in_a_hurry() if nodes.is_divided else nullcontext():
            found = await _Examination(nodes, settings, progress or (lambda done, total: None)).run()
    finally:
        await nodes.close()
    order = list(CHECKS)
    return sorted(found, key=lambda finding: (order.index(finding.check), finding.node or ""))


Look = Callable[[], Awaitable[Sequence[Finding]]]


class _Examination:
    """One run of all checks."""

    def __init__(self, nodes: Nodes, settings: Settings, progress: Progress) -> None:
        self._nodes = nodes
        self._prefix = settings.prefix
        self._is_read_only = settings.access == "read"
        self._progress = progress
        self._ends_at = time.monotonic() + ALL_SECONDS
        #: What each server shows that answers.
        self._servers: dict[Node, ServerSeen] = {}
        self._keys = settings.keys
        self._is_there = self._has_retention = False

    async def run(self) -> list[Finding]:
        """Make all checks, one after the other."""
        steps: list[tuple[str, Look]] = [
            ("connection", self._connect),
            ("sentinels", self._look_at_sentinels),
            ("latency", lambda: self._on_each("latency", look_at_latency, self._servers)),
            ("certificates", lambda: self._on_each("certificates", look_at_certificates, self._servers)),
            ("store", self._look_at_store),
            ("rights", self._look_at_rights),
            ("clocks", self._look_at_clocks),
            ("channels", self._look_at_channels),
            ("partitions", self._look_at_partitions),
            ("forecast", self._look_at_growth),
            ("queues", self._look_at_queues),
            ("webhooks", self._look_at_webhooks),
            ("unsealed", self._look_at_sealing),
            ("archive", self._look_at_archive),
        ]
        found = list[Finding]()
        for number, (check, look) in enumerate(steps):
            self._progress(number, len(steps))
            if self._can_be_made(check):
                found += await self._attempt(check, look)
        return found

    def _can_be_made(self, check: str) -> bool:
        """Return whether what a check needs is there, as far as earlier ones have seen."""
        if check in ("connection", "sentinels"):
            return True
        return bool(self._servers) and (self._is_there or check in _WITHOUT_A_STORE)

    async def _connect(self) -> list[Finding]:
        """See all servers at the same time."""
        servers = await servers_of(self._nodes)
        return await self._on_each("connection", self._see, servers)

    async def _on_each(
        self, check: str, look: Callable[[Node], Awaitable[list[Finding]]], servers: Iterable[Node]
    ) -> list[Finding]:
        """Look at all servers at the same time, at each for itself."""
        looks = (self._attempt(check, partial(look, node), node=node) for node in servers)
        return [finding for found in await asyncio.gather(*looks) for finding in found]

    async def _attempt(self, check: str, look: Look, *, node: Node | None = None) -> Sequence[Finding]:
        """Look at something for a limited time; what goes wrong is the finding."""
        most = ARCHIVE_SECONDS if check == "archive" else LOOK_SECONDS
        # A look at all servers is given up after those at each of them.
        seconds = min(most + (1 if node is None else 0), max(self._ends_at - time.monotonic(), 0))
        try:
            async with asyncio.timeout(seconds):
                found = await look()
        except TimeoutError:
            found = [_unseen(check, f"no answer came within {seconds:.0f} seconds")]
        except RepositoryError as failure:
            found = [_failed(check, failure, str(failure) if node is None else words_of(node, failure))]
        except Exception as failure:
            logger.exception("a check failed", extra={"check": check})
            found = [_unseen(check, f"{type(failure).__name__}: {failure}")]
        return found if node is None else on_node(found, name_of(node))

    async def _see(self, node: Node) -> list[Finding]:
        seen = await see_server(node, self._nodes.deployment.kind, is_read_only=self._is_read_only)
        self._servers[node] = seen
        return [judge_kind(seen), *judge_server(seen)]

    async def _look_at_sentinels(self) -> list[Finding]:
        deployment = self._nodes.deployment
        if deployment.kind != "sentinel":
            return []
        return judge_sentinels(
            await asyncio.gather(*(see_sentinel(deployment, address) for address in deployment.addresses))
        )

    async def _look_at_store(self) -> list[Finding]:
        reply = await self._nodes.read("HMGET", self._keys.store, "format", "partitions", "retention")
        version, partitions, rules = as_optional_texts(reply)
        found = judge_store(self._prefix, version, partitions)
        self._is_there = found.severity is Severity.OK
        if self._is_there and partitions is not None:
            self._keys, self._has_retention = Keys(self._prefix, int(partitions)), rules is not None
        return [found]

    async def _look_at_rights(self) -> list[Finding]:
        check = check_rights_to_read if self._is_read_only else check_rights_to_write
        try:
            await check(self._nodes, self._keys)
        except MissingRightsError as missing:
            advice = "`ACL SETUSER` gives them: docs/operations.md has a line for each kind of user"
            return [error("rights", str(missing), advice)]
        return [ok("rights", f"the user may do all that a {'reader' if self._is_read_only else 'writer'} does")]

    async def _look_at_clocks(self) -> list[Finding]:
        return judge_clocks([await see_clock(node) for node in self._servers])

    async def _look_at_channels(self) -> list[Finding]:
        tags = {node: its[0] for node in self._servers if (its := self._tags_of(node))}
        return await look_at_channels(self._nodes, tags, is_read_only=self._is_read_only)

    async def _look_at_partitions(self) -> list[Finding]:
        spread = {name_of(node): len(self._tags_of(node)) for node in self._servers}
        return judge_partitions(
            spread,
            away=self._keys.partitions - sum(spread.values()),
            unserved=unserved_slots(self._nodes),
            is_cluster=self._nodes.is_divided,
        )

    def _tags_of(self, node: Node) -> list[str]:
        return [tag for tag in self._keys.tags if server_of(self._nodes, tag) is node]

    async def _look_at_growth(self) -> list[Finding]:
        found = list[Finding]()
        for node, server in self._servers.items():
            seen = await see_growth(self._nodes, self._tags_of(node), self._keys.partitions)
            machine = (server.number("total_system_memory") or 0) / (1 + REWRITE_SHARE)
            seen = replace(
                seen,
                used_bytes=server.number("used_memory") or 0,
                limit_bytes=server.number("maxmemory") or machine,
                has_retention=self._has_retention,
            )
            found += on_node(judge_growth(seen), name_of(node))
        return found

    async def _look_at_queues(self) -> list[Finding]:
        queues = await see_queues(self._nodes, self._keys)
        groups = await see_groups(self._nodes, self._keys)
        return [*judge_queues([queue for queue in queues if queue.name]), *judge_consumers(queues, groups)]

    async def _look_at_webhooks(self) -> list[Finding]:
        hooks = await WebhookStore(self._nodes, self._keys, Groups(self._nodes, self._keys)).all()
        return judge_webhooks(hooks, await time_ms(self._nodes, self._keys.store))

    async def _look_at_sealing(self) -> list[Finding]:
        # Those of servers that are away are told by another check.
        tags = [tag for node in self._servers for tag in self._tags_of(node)]
        return judge_sealing(await see_sealing(self._nodes, tags))

    async def _look_at_archive(self) -> list[Finding]:
        return judge_archive(await see_archive(self._nodes, self._keys, is_read_only=self._is_read_only))


def _failed(check: str, failure: RepositoryError, why: str) -> Finding:
    """Return the finding of a look that failed."""
    if check != "connection":
        is_right = isinstance(failure, MissingRightsError)
        # Nothing is known to be wrong if this user may not look.
        return note(check, f"it can't be looked at: {why}", RIGHTS) if is_right else _unseen(check, why)
    if isinstance(failure, AuthenticationError):
        return error(check, why, "look at the user and the password in the URL")
    return error(check, why, "start the server, or mend the URL")


def _unseen(check: str, why: str) -> Finding:
    kind, advice = (error, "look whether it is overloaded, or stopped") if check == "connection" else (warning, AGAIN)
    return kind(check, f"it couldn't be looked at: {why}", advice)
