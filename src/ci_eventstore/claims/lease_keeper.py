"""Renew leases from a thread of its own, so that a handler that blocks the event loop doesn't lose its job."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from ci_eventstore.claims.claim import Claim
from ci_eventstore.claims.store import ClaimStore
from ci_eventstore.errors import StoreError
from ci_eventstore.keys import Keys
from ci_eventstore.server.client import Server
from ci_eventstore.server.deployments import Deployment

logger = logging.getLogger("ci_eventstore.controllers")

#: A claim that couldn't be renewed for so many leases, and for so long, is given up: an outage alone ends no lease.
PATIENCE_LEASES = 5
PATIENCE_SECONDS = 90.0
#: How soon leases are renewed again after that failed: those of few seconds have no time to lose.
RETRY_SECONDS = 0.1

#: Told "cancel" or "lost" of a claim, from the keeper's thread.
Notify = Callable[[Claim, str], None]


class LeaseKeeper:
    """Renews the leases of claims at a third of their time, until they are let go."""

    def __init__(self, deployment: Deployment, keys: Keys, lease_seconds: float, notify: Notify) -> None:
        self._deployment = replace(deployment, release=lambda: None)
        self._keys = keys
        self._lease_seconds = lease_seconds
        self._notify = notify
        self._lock = threading.Lock()
        #: Queue and time of the last renewal, by claim.
        self._held: dict[Claim, tuple[str, float]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="ci-eventstore-leases", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def hold(self, queue: str, claim: Claim) -> None:
        """Renew this claim from now on."""
        with self._lock:
            self._held[claim] = (queue, time.monotonic())

    def let_go(self, claim: Claim) -> None:
        """Renew it no more."""
        with self._lock:
            self._held.pop(claim, None)

    def look(self) -> None:
        """Renew now: something may be new."""
        if self._loop is not None and self._wake is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    async def stop(self) -> None:
        """End the thread."""
        self._is_stopped = True
        self.look()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        asyncio.run(self._keep())

    async def _keep(self) -> None:
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        server = Server(self._deployment)
        try:
            claims = ClaimStore(server, self._keys)
            while not self._is_stopped:
                is_answered = await self._renew_all(claims)
                await self._pause(self._lease_seconds / 3 if is_answered else RETRY_SECONDS)
        finally:
            await server.close()

    async def _pause(self, seconds: float) -> None:
        assert self._wake is not None
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _renew_all(self, claims: ClaimStore) -> bool:
        is_answered = True
        with self._lock:
            held = dict(self._held)
        for queue in {queue for queue, _ in held.values()}:
            group = [claim for claim, (its_queue, _) in held.items() if its_queue == queue]
            try:
                answers = await claims.renew(queue, group, self._lease_seconds)
            except StoreError as error:
                logger.warning("leases can't be renewed: %s", error)
                self._give_up_late_ones()
                is_answered = False
                continue
            self._note(queue, answers)
        return is_answered

    def _note(self, queue: str, answers: dict[Claim, str]) -> None:
        for claim, answer in answers.items():
            with self._lock:
                if claim not in self._held:
                    continue
                if answer == "lost":
                    del self._held[claim]
                else:
                    self._held[claim] = (queue, time.monotonic())
            if answer != "held":
                self._notify(claim, answer)

    def _give_up_late_ones(self) -> None:
        limit = time.monotonic() - max(PATIENCE_LEASES * self._lease_seconds, PATIENCE_SECONDS)
        with self._lock:
            late = [claim for claim, (_, renewed_at) in self._held.items() if renewed_at < limit]
            for claim in late:
                del self._held[claim]
        for claim in late:
            self._notify(claim, "lost")
