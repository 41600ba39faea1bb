"""The lives of a job and of its store, told apart."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from ci_eventstore.connection.absence import is_absence
from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_optional_texts
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.connection.way import in_a_hurry
from ci_eventstore.errors import ReadOnlyAccessError, StoreError, StoreUnavailableError
from ci_eventstore.keys import Keys

logger = logging.getLogger("ci_eventstore.following")

#: The report of a loss waits this long for the store to take another incarnation.
LOSS_PATIENCE_SECONDS = 3.0
#: Losses that writers find within this time count as one.
SAME_LOSS_SECONDS = 60.0


class RenewCall(NamedTuple):
    """A call of `renew_incarnation.lua`."""

    store: Key
    #: The incarnation that the store must have now, "-" for none; "" for whichever.
    expected: str
    new: str
    #: For how many milliseconds it must have had the one that it has.
    age_ms: int


RENEW = load_script(__package__, "renew_incarnation", call=RenewCall)


def new_incarnation() -> str:
    """Return a random text that no store has had."""
    return secrets.token_hex(8)


class Incarnation(NamedTuple):
    """A job's incarnation and its store's; clients know both as one opaque text."""

    #: None: the job was created by an older program.
    job: str | None = None
    #: None: no program of today has opened the store for writing.
    store: str | None = None

    def __str__(self) -> str:
        """Return it as clients know it."""
        return f"{self.job or ''}-{self.store or ''}"


class StoreIncarnation:
    """The incarnation of an open store: another one after a restore, or when acknowledged writes were lost.

    It stands in the partition of accounts. While that is away, and other partitions aren't, it counts as it was read
    last: nobody can change it meanwhile.
    """

    def __init__(self, nodes: Nodes, keys: Keys) -> None:
        self._nodes = nodes
        self._keys = keys
        self._key = keys.store
        #: As this process knows it.
        self.known: str | None = None
        #: That under which a loss was found that the store couldn't be told of, "-" for none.
        self._lost: str | None = None

    async def read(self) -> str | None:
        """Return it as the store has it now; StoreError."""
        try:
            with in_a_hurry() if self._nodes.is_divided else contextlib.nullcontext():
                reply = await self._nodes.read_together("HMGET", self._key, "incarnation")
        except StoreUnavailableError as error:
            if not self._nodes.is_divided or not is_absence(error):
                raise
            message = "the store's incarnation counts as it was known before: %s"
            self._nodes.outages.of(logger, message).failed(error)
            return self.known
        [self.known] = as_optional_texts(reply)
        if self._lost is not None:
            lost, self._lost = self._lost, None
            return await self.renew_after_loss(lost)
        return self.known

    async def read_all(self, job_ids: Sequence[str]) -> list[Incarnation]:
        """Return the incarnations of some jobs as the store has them now; StoreError."""
        commands = [("HMGET", self._keys.job(job_id).hash, "incarnation") for job_id in job_ids]
        store, replies = await asyncio.gather(self.read(), self._nodes.read_many(commands))
        return [Incarnation(as_optional_texts(reply)[0], store) for reply in replies]

    async def renew(self) -> str:
        """Give the store another one; StoreError."""
        return await self._renew("")

    async def note_loss(self) -> None:
        """Give the store another one, since a writer was told that what it had stored is gone.

        Writers don't know under which incarnation that was. So one that was given to the store a moment ago counts as
        that which another one has given it for the same loss.
        """
        try:
            await self._renew(self.known or "-", LOSS_PATIENCE_SECONDS, SAME_LOSS_SECONDS)
        except StoreError:
            self._lost = self.known or "-"

    async def renew_after_loss(self, lost: str | None) -> str | None:
        """Give the store another one, once for all who find that what it had under `lost` is gone; return the new one.

        A process that may not write leaves that to others.
        """
        try:
            return await self._renew(lost or "-", LOSS_PATIENCE_SECONDS)
        except StoreError as error:
            message = "the store has lost events, and can't be given another incarnation: %s"
            self._nodes.outages.of(logger, message).failed(error)
            found = await self.read()
            self._lost = None if isinstance(error, ReadOnlyAccessError) else lost or "-"
            return found

    async def _renew(self, lost: str, patience_seconds: float | None = None, age_seconds: float = 0) -> str:
        call = RenewCall(self._key, lost, new_incarnation(), int(age_seconds * 1000))
        reply = await self._nodes.run(RENEW, *RENEW.order(call), patience_seconds=patience_seconds)
        self.known = reply.decode()
        return self.known
