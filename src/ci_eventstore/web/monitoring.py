"""What a server's surroundings ask: load balancers whether it is ready, Prometheus for its numbers."""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from fastapi import Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from ci_common.errors import RepositoryError
from ci_common.models import utc_now
from ci_eventstore.connection.counters import Counters
from ci_eventstore.errors import MissingRightsError, NotInitializedError
from ci_eventstore.following.hub import FollowingStats
from ci_eventstore.loop_locks import LoopLocks
from ci_eventstore.queues.overview import QueueOverview, UsedQueues, idle_queue
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
#: A store that gave no answer is asked again after this.
AWAY_SECONDS = 1.0
PREFIX = "ci_eventstore"


class HealthRoutes:
    """The routes that load balancers ask; they need no key."""

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
        """Return what is the matter."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._web.ready()
        except TimeoutError:
            return "the store gives no answer"
        except RepositoryError:
            return "the store can't be reached, or takes no writes"
        return None


@dataclass(frozen=True, slots=True)
class Numbers:
    """What is measured."""

    counters: Counters
    web_errors: int
    streams: int
    following: FollowingStats
    #: Whether the store answered when it was asked last.
    is_store_up: bool
    queues: Sequence[QueueOverview]
    now: datetime


def families(numbers: Numbers) -> Iterator[Metric]:
    """Return everything as Prometheus names it. Pure."""
    counters = numbers.counters
    yield _gauge("store_up", "Whether the store answers.", numbers.is_store_up)
    yield _counter(
        "appended_records", "Events and facts that this process appended to jobs.", counters.appended_records
    )
    text = "Writes of this process that were refused because another controller has the job."
    yield _counter("refused_stale_writes", text, counters.refused_stale_writes)
    yield _counter("store_retries", "Commands that this process sent to the store again.", counters.retries)
    errors = CounterMetricFamily(
        f"{PREFIX}_errors", "Commands to the store, and requests, that failed.", labels=["part"]
    )
    errors.add_metric(["store"], counters.errors)
    errors.add_metric(["web"], numbers.web_errors)
    yield errors
    yield _gauge("open_streams", "Live streams to clients of this process.", numbers.streams)
    following = numbers.following
    yield _gauge("followers", "Who follows jobs in this process; a stream is one.", following.followers)
    yield _gauge("followed_jobs", "Running jobs that are followed in this process.", following.jobs)
    text = "For how long this process has known of events of a job that it hasn't handed out."
    yield _gauge("hub_lag_seconds", text, following.lag_seconds)
    yield _counter("hub_entries", "Events and facts that this process has read for followers.", following.entries)
    text = "How often the store turned out to have lost events that were handed out."
    yield _counter("hub_resets", text, following.resets)
    yield from _queue_families(numbers)


def _queue_families(numbers: Numbers) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(f"{PREFIX}_queue_waiting_jobs", "Jobs that wait in a queue.", labels=["queue"])
    leases = GaugeMetricFamily(f"{PREFIX}_queue_leased_jobs", "Jobs that controllers have.", labels=["queue"])
    text = "For how long the oldest job of a queue has been waiting."
    oldest = GaugeMetricFamily(f"{PREFIX}_queue_oldest_waiting_seconds", text, labels=["queue"])
    for queue in numbers.queues:
        waiting.add_metric([queue.name], queue.waiting)
        leases.add_metric([queue.name], queue.running)
        age = (numbers.now - queue.oldest_created_at).total_seconds() if queue.oldest_created_at else 0.0
        oldest.add_metric([queue.name], max(age, 0.0))
    yield from (waiting, leases, oldest)


def _counter(name: str, text: str, value: int) -> CounterMetricFamily:
    return CounterMetricFamily(f"{PREFIX}_{name}", text, value)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value)


class _Collected(Collector):
    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = list(found)

    def collect(self) -> Iterable[Metric]:
        """Return what was found before."""
        return self._found


class MetricsRoutes:
    """The route that Prometheus asks; it needs no key."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._asking = LoopLocks()
        self._used: UsedQueues | None = None
        self._queues: list[QueueOverview] = []
        self._is_store_up = False
        self._look_after = float("-inf")

    async def metrics(self) -> Response:
        """Return all metrics in Prometheus' text format within a second, those of queues if the store answers."""
        async with self._asking.current:
            if time.monotonic() > self._look_after:
                await self._look()
        registry = CollectorRegistry()
        registry.register(_Collected(families(self._numbers())))
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _numbers(self) -> Numbers:
        streams = len(self._web.streams)
        try:
            counters, following = self._web.engine.nodes.counters, self._web.engine.hub.stats()
        except NotInitializedError:
            counters, following = Counters(), FollowingStats(0, 0, 0.0, 0, 0)
        up, queues = self._is_store_up, self._queues
        if up:
            # Those that users may choose are there from the beginning.
            idle = (self._web.settings.queues or frozenset()).difference(queue.name for queue in queues)
            queues = sorted([*queues, *map(idle_queue, idle)], key=lambda queue: queue.name)
        return Numbers(counters, self._web.errors, streams, following, up, queues, utc_now())

    async def _look(self) -> None:
        """Read what queues hold, or learn that the store is away."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._web.repository.initialize()
                store = self._web.engine
                if self._used is None or self._used.nodes is not store.nodes:
                    self._used = UsedQueues(store.nodes, store.keys)
                self._queues = await self._used.read()
        except MissingRightsError:
            # It answers; whoever only reads jobs doesn't see what queues hold.
            self._is_store_up, self._queues, self._look_after = True, [], time.monotonic() + QUEUES_SECONDS
        except (TimeoutError, RepositoryError) as error:
            logger.debug("the store gives no answer for metrics: %s", error)
            self._is_store_up, self._queues, self._look_after = False, [], time.monotonic() + AWAY_SECONDS
        else:
            self._is_store_up, self._look_after = True, time.monotonic() + QUEUES_SECONDS
