"""Keep a job that ends with this process: its lease is renewed, and requests to cancel it are heard."""

import asyncio
import logging
import os
import platform
import secrets
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ci_common.errors import RepositoryError
from ci_eventstore.connection.background import begin
from ci_eventstore.keys import NO_QUEUE
from ci_eventstore.queues.claimed import Claim
from ci_eventstore.repository import RedisJobRepository

logger = logging.getLogger("ci_eventstore.cli")


class Holding:
    """Renews the lease of a held job until it is left; says when someone wants the job cancelled, or has ended it.

    It doesn't give up while the store is away: nobody else would go on with the job.
    """

    def __init__(
        self,
        repository: RedisJobRepository,
        claim: Claim,
        lease_seconds: float,
        *,
        on_cancel: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._repository = repository
        self._claim = claim
        self._lease_seconds = lease_seconds
        self._on_cancel = on_cancel
        self._on_lost = on_lost
        self._is_over = False
        self._checking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin. This starts a thread, so the command should run already."""
        loop = asyncio.get_running_loop()

        def notify(claim: Claim, answer: str) -> None:
            loop.call_soon_threadsafe(self._hear, answer)

        self._keeper = self._repository.keep_leases(self._lease_seconds, notify)
        self._keeper.start()
        self._keeper.hold(NO_QUEUE, self._claim)
        engine = self._repository.engine
        self._subscription = engine.nodes.subscription(self._on_message, lambda channels: self._keeper.look())
        self._subscription.listen(engine.keys.job(self._claim.job_id).queue(NO_QUEUE).channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Renew no more."""
        self._is_over = True
        await self._subscription.close()
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)
        await self._keeper.stop()

    def end(self) -> None:
        """Say no more that the job is over: from now on it is this process that ends it."""
        self._is_over = True

    def _on_message(self, channel: str, message: bytes) -> None:
        if message.decode("utf-8", "replace") == f"cancel {self._claim.job_id}":
            self._keeper.look()

    def _hear(self, answer: str) -> None:
        if self._is_over:
            return
        if answer == "cancel":
            self._on_cancel()
        elif answer == "lost":
            # Or it couldn't be renewed for long: then it is still tried.
            self._keeper.hold(NO_QUEUE, self._claim)
            if self._checking is None or self._checking.done():
                self._checking = begin(self._check(), logger, "looking whether the job was ended")

    async def _check(self) -> None:
        try:
            state = await self._repository.engine.jobs.state(self._claim.job_id)
        except RepositoryError:
            return
        if not self._is_over and (state is None or state.claim != str(self._claim)):
            self._is_over = True
            self._keeper.let_go(self._claim)
            self._on_lost()


def new_holder() -> str:
    """Return a name for this process: its machine, its number, something random."""
    host = "".join(character if character.isalnum() or character in "-." else "-" for character in platform.node())
    return f"run-{host or 'host'}-{os.getpid()}-{secrets.token_hex(3)}"
