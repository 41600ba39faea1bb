"""Renew leases from a thread of its own, so that a handler that blocks the event loop doesn't lose its job."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.deployments import Deployment
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.outage_log import OutageLog
from ci_eventstore.connection.replies import as_texts
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import OutcomeUnknownError, StoreError, StoreUnavailableError
from ci_eventstore.keys import Keys, QueueKeys
from ci_eventstore.queues.claimed import Claim, name_damage

logger = logging.getLogger("ci_eventstore.controllers")


class HeldJob(NamedTuple):
    """A job whose lease is to be renewed."""

    hash: Key
    id: str
    claim: str


class RenewCall(NamedTuple):
    """What `renew.lua` is called with."""

    leases: Key
    clock: Key
    lease_ms: int
    jobs: Sequence[HeldJob]


RENEW = load_script(__package__, "renew", call=RenewCall)


async def renew(
    nodes: Nodes,
    keys: Keys,
    queue: str,
    claims: Sequence[Claim],
    lease_seconds: float,
    *,
    patience_seconds: float | None = None,
) -> dict[Claim, str]:
    """Renew the leases of a controller's jobs in all partitions, trying for `patience_seconds`; StoreError.

    Return for each "held", "cancel" (held, and someone wants it cancelled) or "lost".
    """
    answers: dict[Claim, str] = {}
    by_partition: dict[QueueKeys, list[Claim]] = {}
    for claim in claims:
        by_partition.setdefault(keys.job(claim.job_id).queue(queue), []).append(claim)
    for partition, group in by_partition.items():
        jobs = [HeldJob(keys.job(claim.job_id).hash, claim.job_id, str(claim)) for claim in group]
        call = RenewCall(partition.leases, partition.clock, int(lease_seconds * 1000), jobs)
        reply = await nodes.run(RENEW, *RENEW.order(call), patience_seconds=patience_seconds)
        for claim, answer in zip(group, as_texts(reply), strict=True):
            if answer == "damaged":
                name_damage(nodes, claim.job_id, "its hash")
            answers[claim] = "lost" if answer == "damaged" else answer
    return answers


#: A claim that couldn't be renewed for this many leases and this long is given up: an outage alone ends no lease.
PATIENCE_LEASES = 5
PATIENCE_SECONDS = 90.0
#: How soon leases are renewed again after that failed: those of few seconds have no time to lose.
RETRY_SECONDS = 0.1
#: The part of a lease for which a renewal is tried; without an answer, the next try is over a new connection.
PATIENCE_PART = 0.15
#: The part of a lease for which failures aren't logged: a try or two fail without consequence.
QUIET_PART = 0.5
#: How long the thread may take to end, and how often to look whether it has.
STOP_SECONDS = 1.0
LOOK_SECONDS = 0.01

#: Called with a claim and "cancel" or "lost", in the keeper's thread.
Notify = Callable[[Claim, str], object]


class LeaseKeeper:
    """Renews the leases of claims at a third of their time, until they are let go.

    Its thread survives every failure; if it ends all the same, all claims are reported as lost.
    """

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
        self._keeping: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._has_ended = False
        self._outage = OutageLog(
            logger, "leases can't be renewed: %s", "leases are renewed again", after_seconds=lease_seconds * QUIET_PART
        )
        self._mistake = OutageLog(logger, "leases couldn't be renewed: %s")
        self._thread = threading.Thread(target=self._run, name="ci-eventstore-leases", daemon=True)

    def start(self) -> None:
        """Begin to renew, in a thread."""
        self._thread.start()

    def hold(self, queue: str, *claims: Claim) -> None:
        """Renew these claims from now on."""
        held = (queue, time.monotonic())
        with self._lock:
            self._held.update(dict.fromkeys(claims, held))
        if self._has_ended:
            self._give_up(claims)

    def let_go(self, claim: Claim) -> None:
        """Stop renewing a claim."""
        with self._lock:
            self._held.pop(claim, None)

    def look(self) -> None:
        """Renew now: a claim may have been cancelled."""
        if self._wake is not None:
            self._do_in_thread(self._wake.set)

    async def stop(self) -> None:
        """End the thread, whatever it waits for."""
        self._is_stopped = True
        if self._keeping is not None:
            self._do_in_thread(self._keeping.cancel)
        deadline = time.monotonic() + STOP_SECONDS
        while self._thread.is_alive() and time.monotonic() < deadline:  # noqa: ASYNC110 - it is another thread's
            await asyncio.sleep(LOOK_SECONDS)

    def _do_in_thread(self, act: Callable[[], object]) -> None:
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(act)
        except RuntimeError:
            # The thread has ended just now.
            logger.debug("nobody renews leases any more")

    def _run(self) -> None:
        try:
            asyncio.run(self._keep())
        except asyncio.CancelledError:
            pass
        except BaseException:
            logger.exception("leases can't be renewed any more")
        finally:
            if not self._is_stopped:
                self._give_up(list(self._held))
            self._has_ended = True

    async def _keep(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake, self._keeping = asyncio.Event(), asyncio.current_task()
        while not self._is_stopped:
            try:
                await self._keep_over_one_server()
            except Exception as error:  # noqa: BLE001 - it is logged with its traceback, and leases are renewed on
                self._mistake.failed(repr(error), traceback=error)
                self._give_up_late_ones()
                await self._pause(self._lease_seconds / 10)

    async def _keep_over_one_server(self) -> None:
        """Renew until that fails: another connection may lead to a server that answers."""
        nodes = Nodes(self._deployment)
        try:
            while not self._is_stopped:
                failed, count = await self._renew_all(nodes)
                if failed:
                    await self._pause(RETRY_SECONDS)
                    if failed == count or not nodes.is_divided:
                        return
                else:
                    await self._pause(self._lease_seconds / 3)
        finally:
            await nodes.close()

    async def _pause(self, seconds: float) -> None:
        assert self._wake is not None
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _renew_all(self, nodes: Nodes) -> tuple[int, int]:
        """Renew all leases, those of each partition by themselves; return how many partitions failed, and of how many.

        One that is away costs the jobs of others no lease.
        """
        with self._lock:
            held = dict(self._held)
        groups: dict[tuple[str, str], list[Claim]] = {}
        for claim, (queue, _) in held.items():
            groups.setdefault((queue, self._keys.job(claim.job_id).tag), []).append(claim)
        renewing = (self._renew_group(nodes, queue, group) for (queue, _), group in groups.items())
        failed = (await asyncio.gather(*renewing)).count(False)
        if held and not failed:
            self._outage.worked()
        return failed, len(groups)

    async def _renew_group(self, nodes: Nodes, queue: str, group: Sequence[Claim]) -> bool:
        """Renew leases of one partition; False: it gave no answer."""
        try:
            self._note(queue, await self._renew(nodes, queue, group))
        except (StoreUnavailableError, OutcomeUnknownError, TimeoutError) as error:
            self._note_failure("no answer" if type(error) in (OutcomeUnknownError, TimeoutError) else error)
            return False
        except StoreError as error:
            self._note_failure(error)
            await self._renew_one_by_one(nodes, queue, group)
        return True

    async def _renew(self, nodes: Nodes, queue: str, group: Sequence[Claim]) -> dict[Claim, str]:
        """Renew leases, trying for a part of their time; StoreError, TimeoutError if the server doesn't even refuse."""
        seconds = self._lease_seconds * PATIENCE_PART
        async with asyncio.timeout(2 * seconds):
            return await renew(nodes, self._keys, queue, group, self._lease_seconds, patience_seconds=seconds)

    async def _renew_one_by_one(self, nodes: Nodes, queue: str, group: Sequence[Claim]) -> None:
        """Renew what can be renewed: one damaged job must not cost others their leases."""
        for claim in group:
            try:
                self._note(queue, await self._renew(nodes, queue, [claim]))
            except (StoreError, TimeoutError) as error:
                logger.debug("a lease can't be renewed: %s", error, extra={"job_id": claim.job_id})
        self._give_up_late_ones()

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
                self._tell(claim, answer)

    def _note_failure(self, reason: object) -> None:
        self._outage.failed(reason)
        self._give_up_late_ones()

    def _give_up_late_ones(self) -> None:
        limit = time.monotonic() - max(PATIENCE_LEASES * self._lease_seconds, PATIENCE_SECONDS)
        with self._lock:
            late = [claim for claim, (_, renewed_at) in self._held.items() if renewed_at < limit]
        self._give_up(late)

    def _give_up(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self.let_go(claim)
            self._tell(claim, "lost")

    def _tell(self, claim: Claim, answer: str) -> None:
        try:
            self._notify(claim, answer)
        except RuntimeError:
            # Its event loop is closed, so nobody runs the job any more.
            logger.debug("nobody hears that a job is %s", answer, extra={"job_id": claim.job_id})
