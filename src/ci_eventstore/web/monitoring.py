"""What a server's surroundings ask: load balancers whether it is ready, Prometheus for its numbers."""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from fastapi import Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from ci_common.errors import RepositoryError
from ci_common.models import utc_now
from ci_eventstore.connection.way import Counters
from ci_eventstore.engines import LoopLocks
from ci_eventstore.errors import MissingRightsError, NotInitializedError
from ci_eventstore.following.hub import FollowingStats
from ci_eventstore.queues.overview import Overviews, QueueOverview, UsedQueues, idle_queue
from ci_eventstore.web.context import Web
from ci_eventstore.web.errors import WebError

logger = logging.getLogger("ci_eventstore.web")

#: How long the store may take to answer whether it is ready.
READY_SECONDS = 2.0
#: An answer is repeated for this long, however many ask for it.
TRUST_SECONDS = 1.0
#: What queues hold is read at most this often, and for at most this long.
QUEUES_SECONDS = 5.0
PATIENCE_SECONDS = 0.5
#: The same for each of two questions to a partition that may be away.
PARTITION_SECONDS = 0.2
#: A store that gave no answer is asked again after this.
AWAY_SECONDS = 1.0
PREFIX = "ci_eventstore"


class HealthRoutes:
    """The routes for load balancers, which need no key."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._asking = LoopLocks()
        self._asked_at: float | None = None
        self._problem: str | None = None

    async def health(self) -> dict[str, str]:
        """Say that the server lives."""
        return {"status": "ok"}

    async def ready(self) -> JSONResponse:
        """Say whether Redis can be reached and takes writes."""
        async with self._asking.current:
            now = time.monotonic()
            if self._asked_at is None or now - self._asked_at > TRUST_SECONDS:
                self._problem = await self._ask()
                self._asked_at = time.monotonic()
        if self._problem is not None:
            raise WebError(503, "unavailable", self._problem, {"Retry-After": "2"})
        return JSONResponse({"status": "ready"})

    async def _ask(self) -> str | None:
        """Return what is wrong with the store, None if nothing is."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._web.ready()
        except TimeoutError:
            return "the store gives no answer"
        except RepositoryError:
            return "the store can't be reached, or takes no writes"
        return None


def _gauges(name: str, text: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=["queue"])
    for queue, value in values:
        family.add_metric([queue], value)
    return family


def _queue_families(queues: Sequence[QueueOverview]) -> Iterator[Metric]:
    waiting = [(queue.name, queue.waiting) for queue in queues]
    yield _gauges("queue_waiting_jobs", "Jobs that wait in a queue.", waiting)
    leased = [(queue.name, queue.running) for queue in queues]
    yield _gauges("queue_leased_jobs", "Jobs that controllers have.", leased)
    now, oldest = utc_now(), [(queue.name, queue.oldest_created_at) for queue in queues]
    ages = [(name, max((now - since).total_seconds(), 0.0) if since else 0.0) for name, since in oldest]
    yield _gauges("queue_oldest_waiting_seconds", "For how long the oldest job of a queue has been waiting.", ages)


class _Collected(Collector):
    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = list(found)

    def collect(self) -> Iterable[Metric]:
        """Return the families that were given."""
        return self._found


class MetricsRoutes:
    """The route for Prometheus, which needs no key."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._asking = LoopLocks()
        self._used: UsedQueues | None = None
        self._found = Overviews([])
        self._is_store_up = False
        self._look_after = float("-inf")

    async def metrics(self) -> Response:
        """Return all metrics in Prometheus' text format within a second, those of queues if the store answers."""
        async with self._asking.current:
            if time.monotonic() > self._look_after:
                await self._look()
        registry = CollectorRegistry()
        registry.register(_Collected(self._families()))
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _families(self) -> Iterator[Metric]:
        """Yield everything that this process counts, and what queues hold, as Prometheus names it."""
        try:
            counters, following = self._web.engine.nodes.counters, self._web.engine.hub.stats()
        except NotInitializedError:
            counters, following = Counters(), FollowingStats(0, 0, 0.0, 0, 0)
        counted = (
            ("appended_records", "Events and facts that this process appended to jobs.", counters.appended_records),
            (
                "refused_stale_writes",
                "Writes of this process that were refused because another controller has the job.",
                counters.refused_stale_writes,
            ),
            ("store_retries", "Commands that this process sent to the store again.", counters.retries),
            ("hub_entries", "Events and facts that this process has read for followers.", following.entries),
            ("hub_resets", "How often the store lost events that had been handed out.", following.resets),
        )
        lag = "For how long this process has known of events of a job that it hasn't handed out."
        measured = (
            ("store_up", "Whether the store answers.", self._is_store_up),
            ("open_streams", "Live streams to clients of this process.", len(self._web.streams)),
            ("followers", "Who follows jobs in this process; a stream is one.", following.followers),
            ("followed_jobs", "Running jobs that are followed in this process.", following.jobs),
            ("hub_lag_seconds", lag, following.lag_seconds),
        )
        yield from (CounterMetricFamily(f"{PREFIX}_{name}", text, value) for name, text, value in counted)
        yield from (GaugeMetricFamily(f"{PREFIX}_{name}", text, value) for name, text, value in measured)
        text = "Commands to the store, and requests, that failed."
        errors = CounterMetricFamily(f"{PREFIX}_errors", text, labels=["part"])
        errors.add_metric(["store"], counters.errors)
        errors.add_metric(["web"], self._web.errors)
        yield errors
        yield self._partitions()
        queues = self._found.queues
        if self._is_store_up:
            # Those that users may choose are there from the beginning.
            idle = (self._web.settings.queues or frozenset()).difference(queue.name for queue in queues)
            queues = sorted([*queues, *map(idle_queue, idle)], key=lambda queue: queue.name)
        yield from _queue_families(queues)

    def _partitions(self) -> Metric:
        """Return for each partition whether it answers: what queues hold in others isn't in their numbers."""
        text = "Whether a partition of the store answers; queues' numbers leave out what lies in one that doesn't."
        family = GaugeMetricFamily(f"{PREFIX}_partition_up", text, labels=["partition"])
        with suppress(NotInitializedError):
            for number in range(self._web.engine.keys.partitions):
                family.add_metric([str(number)], self._is_store_up and number not in self._found.unavailable)
        return family

    async def _look(self) -> None:
        """Read what queues hold, or note that the store is away."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._web.repository.initialize()
                store = self._web.engine
                if self._used is None or self._used.nodes is not store.nodes:
                    self._used = UsedQueues(store.nodes, store.keys)
                self._found = await self._used.read(PARTITION_SECONDS)
        except MissingRightsError:
            # The store answers, but a process that may only read jobs doesn't see what queues hold.
            self._is_store_up, self._found, self._look_after = True, Overviews([]), time.monotonic() + QUEUES_SECONDS
        except (TimeoutError, RepositoryError) as error:
            logger.debug("the store gives no answer for metrics: %s", error)
            self._is_store_up, self._found, self._look_after = False, Overviews([]), time.monotonic() + AWAY_SECONDS
        else:
            self._is_store_up, self._look_after = True, time.monotonic() + QUEUES_SECONDS
