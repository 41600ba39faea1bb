"""The way to the node that has a partition of a cluster, whichever that is at the moment."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NoReturn

from redis import exceptions

from ci_eventstore.connection.addresses import HostPort
from ci_eventstore.connection.failures import note_reply, reply_of
from ci_eventstore.connection.link import Link, replies_of
from ci_eventstore.connection.node import Sender, patience_of
from ci_eventstore.connection.outcomes import REDIRECTED, Outcome, Patience, Renew
from ci_eventstore.connection.replies import Reply
from ci_eventstore.connection.scripts import ClockReading, Script
from ci_eventstore.connection.topology import Redirection, read_redirection, slot_of
from ci_eventstore.connection.way import Command, Counters, Target, Way

#: Follows a redirection; returns where the next try goes if only that one goes there.
Follow = Callable[[Redirection], Target | None]
#: Asks for a look at who has which slot, soon; the node of the address had better not be asked.
Refresh = Callable[[HostPort | None], None]


class Unserved(Target):
    """Stands in for the node of a slot while none is known: each try fails, before anything is sent."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.alone = self.with_reads = self.with_scripts = self._refuse

    async def _refuse(self, *command: str | int | bytes) -> NoReturn:
        words = f"no node serves the slot {self.slot}"
        error = exceptions.ClusterDownError(words)
        note_reply(error, f"CLUSTERDOWN {words}")
        raise error

    async def many(self, commands: Sequence[Command], *, alone: bool) -> list[Reply]:
        """Fail."""
        await self._refuse()

    async def transaction(self, commands: Sequence[Command], *, alone: bool) -> list[Reply]:
        """Fail."""
        await self._refuse()


class Asking(Target):
    """A node that is about to get a slot, asked for one key of it that it has already."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.alone = self.with_reads = self.with_scripts = self._ask

    @property
    def clock(self) -> ClockReading | None:
        """The node's clock."""
        return self.link.clock

    @clock.setter
    def clock(self, reading: ClockReading | None) -> None:
        self.link.clock = reading

    async def _ask(self, *command: str | int | bytes) -> Reply:
        [reply] = await self.many([command], alone=True)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def many(self, commands: Sequence[Command], *, alone: bool) -> list[Reply]:
        """Ask before each command."""
        asked = [one for command in commands for one in (("ASKING",), command)]
        return (await self.link.many(asked, alone=True))[1::2]

    async def transaction(self, commands: Sequence[Command], *, alone: bool) -> list[Reply]:
        """Ask once: that counts for the whole transaction."""
        asked = [("ASKING",), ("MULTI",), *commands, ("EXEC",)]
        return replies_of((await self.link.many(asked, alone=True))[1:])


class Route(Way):
    """The way to the node that has a slot."""

    def __init__(self, tag: str, where: str, counters: Counters, follow: Follow, refresh: Refresh) -> None:
        """`where` is the cluster's name."""
        super().__init__(where, patience_of, counters)
        self.names_partitions = True
        self.slot = slot_of(tag)
        self.target = Unserved(self.slot)
        self._where = where
        self._follow = follow
        self._refresh = refresh

    def lead(self, link: Link | None) -> None:
        """Lead to a node from now on, or to none."""
        if link is None:
            self.target, self.name = Unserved(self.slot), self._where
        elif link is not self.target:
            self.target, self.name = link, link.name

    def after(
        self, error: exceptions.RedisError, outcome: Outcome, target: Target, sent_at: float
    ) -> tuple[Outcome, Target | None]:
        """Follow a redirection; have the cluster looked at again if the node may not have the slot any more."""
        link = target.link if isinstance(target, Asking) else target
        asked = link.deployment.addresses[0] if isinstance(link, Link) else None
        redirection = read_redirection(reply_of(error) or "", asked) if asked else None
        if redirection is not None:
            return REDIRECTED, self._follow(redirection)
        if outcome.patience in (Patience.OUTAGE, Patience.LOADING) or outcome.renew is not Renew.NONE:
            self._refresh(asked)
        if isinstance(link, Link) and outcome.renew is not Renew.NONE:
            link.renew(Renew.COMMANDS, sent_at)
        return outcome, None


def never_key(tag: str) -> str:
    """Return the key of a partition that every script names in a cluster, and that never is."""
    return f"{tag}:never"


class Partition(Sender):
    """What is sent to a partition's node. While its slot is moved key by key, its scripts wait until it has moved."""

    def __init__(self, route: Route, tag: str, replicas: int, *, is_read_only: bool) -> None:
        super().__init__(route, replicas, is_read_only=is_read_only)
        self.route = route
        # While a slot moves key by key, a node that has only some of a command's keys refuses it with TRYAGAIN. Of keys
        # that a script looks for without having named them it knows nothing: so each names one that never is, too.
        self._never = never_key(tag)

    async def read_many(self, commands: Sequence[Command]) -> list[Reply]:
        """Send several reads together: while the slot moves key by key, each to the node that has its key by now."""
        try:
            found = await self._way.try_once(
                lambda target: target.many(commands, alone=False), commands[0] if commands else ()
            )
        except exceptions.RedisError as error:
            found = [error] * len(commands)
        failed = [place for place, reply in enumerate(found) if isinstance(reply, Exception)]
        again = await asyncio.gather(*(super(Partition, self).read_many([commands[place]]) for place in failed))
        for place, [reply] in zip(failed, again, strict=True):
            found[place] = reply
        return found

    def run(
        self,
        script: Script,
        keys: Sequence[str | bytes],
        arguments: Iterable[str | int | bytes],
        *,
        patience_seconds: float | None = None,
    ) -> Coroutine[Any, Any, Reply]:
        """Run a script as on one server, with messages on sharded channels."""
        return super().run(script.sharded, [*keys, self._never], arguments, patience_seconds=patience_seconds)
