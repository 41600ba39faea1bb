"""One node beside three: what appending, running and following jobs costs clients and servers in CPU time.

Eight client processes use a store of 64 partitions on a cluster. On one machine three nodes make nothing faster; what
shows is how the work spreads over nodes, and what the spreading costs.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import NamedTuple
from uuid import uuid4

import uvloop

from benchmarks.live.processes import ROOT, Process, said, say, tell
from benchmarks.progress import show_progress
from benchmarks.table import align
from benchmarks.texts import events
from ci_common.models import Job, utc_now
from ci_eventstore import RedisJobRepository
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings
from tests.deployments import Cluster, cluster_of

PARTITIONS = 64
SIDES = (1, 3)
#: Or a file that is written anew would seem to shrink.
CONFIGURATION = ("auto-aof-rewrite-percentage 0",)
#: That a client appends to.
JOBS = 16
TOGETHER = 100
#: When a controller has made its connections, and has asked everywhere.
SETTLED_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    clients: int = 8
    rounds: int = 3
    #: For each client: events that it appends, jobs that it creates and runs, and events that it appends while another
    #: one follows them, each second on each job.
    appended: int = 4_000
    run: int = 500
    followed: int = 3_200
    per_second: float = 20.0
    #: For how long idle controllers are looked at.
    idle_seconds: int = 20


FULL = Scale()
QUICK = Scale(clients=2, rounds=1, appended=64, run=10, followed=32, per_second=50.0, idle_seconds=1)


class Client:
    """What one client process does, in steps that all clients take together."""

    def __init__(self, repository: RedisJobRepository, number: int, scale: Scale) -> None:
        self._repository = repository
        self._number = number
        self._scale = scale
        #: The CPU time of this process when the clients began what is measured.
        self.began_at = 0.0
        self._running: asyncio.Task[None] | None = None

    async def append(self) -> int:
        """Append events to some jobs, an event at a time to each; return how many."""
        jobs = await self._create()
        each = self._scale.appended // len(jobs)
        given = events(each)
        await self._together()

        async def write(job_id: str) -> None:
            for event in given:
                await self._repository.add_event(job_id, event)

        await asyncio.gather(*map(write, jobs))
        return each * len(jobs)

    async def run(self) -> int:
        """Create jobs in a queue of this client, and run them through a controller; they do nothing."""
        queue, left = f"of-{self._number}", self._scale.run
        await self._together()
        for start in range(0, left, TOGETHER):
            some = range(start, min(start + TOGETHER, left))
            jobs = (Job(id=f"run-{self._number}-{number}", status="queued", queue=queue) for number in some)
            await asyncio.gather(*map(self._repository.create_job, jobs))

        async def handler(job: ClaimedJob) -> None:
            nonlocal left
            left -= 1
            if not left:
                controller.stop()

        settings = ControllerSettings(concurrency=TOGETHER)
        async with Controller(self._repository, queues=(queue,), settings=settings) as controller:
            await controller.run(handler)
        return self._scale.run

    async def follow(self) -> int:
        """Append to some jobs while the next client follows them; return how many events."""
        return await self._append_while_followed(1)

    async def follow_all(self) -> int:
        """Append to some jobs while all other clients follow them; return how many events."""
        return await self._append_while_followed(max(self._scale.clients - 1, 1))

    async def _append_while_followed(self, followers: int) -> int:
        jobs = await self._create()
        each = self._scale.followed // len(jobs)
        given = events(each)
        await self._together()
        others = [(self._number + step) % self._scale.clients for step in range(1, followers + 1)]
        theirs = [name_of(other, number) for other in others for number in range(JOBS)]
        following = [asyncio.create_task(self._count(job_id)) for job_id in theirs]
        await asyncio.sleep(1.0)
        await self._together()
        began = time.monotonic()
        for number, event in enumerate(given):
            await asyncio.sleep(began + number / self._scale.per_second - time.monotonic())
            await asyncio.gather(*(self._repository.add_event(job_id, event) for job_id in jobs))
        await asyncio.gather(*(self._repository.complete_job(job_id, True, utc_now()) for job_id in jobs))
        # The job's end comes, too.
        assert await asyncio.gather(*following) == [each + 1] * len(following)
        return (each + 1) * len(jobs)

    async def idle(self) -> int:
        """Have a controller that finds no job, in the queue of all clients; return for how many seconds."""
        # It is never left: the process is killed.
        controller = await Controller(self._repository).__aenter__()
        self._running = asyncio.create_task(controller.run(_no_job))
        await asyncio.sleep(min(self._scale.idle_seconds, SETTLED_SECONDS))
        await self._together()
        await asyncio.sleep(self._scale.idle_seconds)
        return self._scale.idle_seconds

    async def _count(self, job_id: str) -> int:
        return len([event async for event in self._repository.follow_events(job_id)])

    async def _create(self) -> list[str]:
        jobs = [name_of(self._number, number) for number in range(JOBS)]
        await asyncio.gather(*(self._repository.create_job(Job(id=job_id, status="running")) for job_id in jobs))
        return jobs

    async def _together(self) -> None:
        """Wait until all clients are here; what is measured begins with the last time."""
        say(ready=True)
        await asyncio.to_thread(sys.stdin.readline)
        self.began_at = time.process_time()


async def _no_job(job: ClaimedJob) -> None:
    raise AssertionError(f"there was to be nothing to do, and job {job.job.id} came")


def name_of(client: int, number: int) -> str:
    """Return the id of a client's job."""
    return f"job-{client}-{number}"


async def play(what: str, url: str, prefix: str, number: int, scale: Scale) -> None:
    """Be a client."""
    async with RedisJobRepository.from_url(url, prefix=prefix, partitions=PARTITIONS) as repository:
        client = Client(repository, number, scale)
        count = await STEPS[what].play(client)
        say(count=count, cpu_seconds=time.process_time() - client.began_at)
        # Its connections are counted.
        await asyncio.to_thread(sys.stdin.readline)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run took."""

    operations: int
    client_seconds: float
    #: Of each node.
    server_seconds: Sequence[float]
    connections: Sequence[int]
    #: Those that scripts call among them.
    commands: int
    received_bytes: int
    sent_bytes: int
    file_bytes: int


class Step(NamedTuple):
    """Something that is measured."""

    title: str
    play: Callable[[Client], Awaitable[int]]
    #: How often clients wait for each other.
    waits: int = 1


STEPS = {
    "append": Step("append an event", Client.append),
    "run": Step("create a job and run it", Client.run),
    "follow": Step("append an event that another process follows", Client.follow, 2),
    "crowd": Step("append an event that all other processes follow", Client.follow_all, 2),
    "idle": Step("have an idle controller for a second", Client.idle),
}


@contextmanager
def client(what: str, url: str, prefix: str, number: int, scale: Scale) -> Iterator[Process]:
    """Start a client process; it is killed if it doesn't end by itself."""
    words = ["-m", "benchmarks.cluster", "--play", what, url, prefix, str(number), json.dumps(asdict(scale))]
    process = subprocess.Popen(
        [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@dataclass(slots=True)
class Usage:
    """What the nodes of a cluster have used so far."""

    seconds: list[float] = field(default_factory=list)
    commands: int = 0
    received: int = 0
    sent: int = 0
    file: int = 0
    connections: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, cluster: Cluster) -> "Usage":
        """Ask all nodes."""
        usage = cls()
        for node in cluster.nodes:
            found = {**node.info("cpu"), **node.info("stats"), **node.info("clients"), **node.info("persistence")}
            usage.seconds.append(found["used_cpu_user"] + found["used_cpu_sys"])
            usage.commands += sum(line["calls"] for line in node.info("commandstats").values())
            usage.received += found["total_net_input_bytes"]
            usage.file += found["aof_current_size"]
            usage.sent += found["total_net_output_bytes"]
            usage.connections.append(found["connected_clients"])
        return usage

    def since(self, before: "Usage", operations: int, client_seconds: float) -> Figures:
        """Return what some operations have used."""
        return Figures(
            operations=operations,
            client_seconds=client_seconds,
            server_seconds=[after - earlier for after, earlier in zip(self.seconds, before.seconds, strict=True)],
            connections=self.connections,
            commands=self.commands - before.commands,
            file_bytes=self.file - before.file,
            received_bytes=self.received - before.received,
            sent_bytes=self.sent - before.sent,
        )


def measure(what: str, cluster: Cluster, scale: Scale) -> Figures:
    """Let all clients do something at the same time."""
    prefix, before = f"bench-{uuid4().hex}", Usage()
    with ExitStack() as stack:
        processes = [
            stack.enter_context(client(what, cluster.url, prefix, number, scale)) for number in range(scale.clients)
        ]
        for _ in range(STEPS[what].waits):
            for process in processes:
                assert said(process)["ready"]
            before = Usage.of(cluster)
            for process in processes:
                tell(process)
        found = [said(process) for process in processes]
        after = Usage.of(cluster)
    return after.since(before, sum(one["count"] for one in found), sum(one["cpu_seconds"] for one in found))


async def measured(scale: Scale, steps: Sequence[str]) -> dict[str, list[list[Figures]]]:
    """Return the figures of some steps: for each number of nodes, those of all rounds, which take turns."""
    found: dict[str, list[list[Figures]]] = {what: [[] for _ in SIDES] for what in steps}
    async with AsyncExitStack() as stack:
        clusters = [
            await stack.enter_async_context(cluster_of(masters, replicas=0, configuration=CONFIGURATION))
            for masters in SIDES
        ]
        for number in range(1, scale.rounds + 1):
            for what, sides in found.items():
                show_progress(f"round {number} of {scale.rounds}: {what}")
                for cluster, figures in zip(clusters, sides, strict=True):
                    figures.append(await asyncio.to_thread(measure, what, cluster, scale))
    return found


#: What is shown of each run, and how it is written.
SHOWN: tuple[tuple[str, Callable[[Figures], float], str], ...] = (
    ("CPU of clients, µs", lambda run: run.client_seconds / run.operations * 1e6, "{:,.0f}"),
    ("CPU of servers, µs", lambda run: sum(run.server_seconds) / run.operations * 1e6, "{:,.0f}"),
    ("that of the busiest node, µs", lambda run: max(run.server_seconds) / run.operations * 1e6, "{:,.0f}"),
    ("commands", lambda run: run.commands / run.operations, "{:,.1f}"),
    ("bytes to servers", lambda run: run.received_bytes / run.operations, "{:,.0f}"),
    ("bytes from servers", lambda run: run.sent_bytes / run.operations, "{:,.0f}"),
    ("bytes of append-only files", lambda run: run.file_bytes / run.operations, "{:,.0f}"),
    ("connections of a node, all", lambda run: sum(run.connections) / len(run.connections), "{:,.0f}"),
)


def render(found: Mapping[str, Sequence[Sequence[Figures]]], scale: Scale) -> str:
    """Return the table: medians of the rounds, and of the ratios of rounds."""
    rows = [("", *(f"{count} node{'' if count == 1 else 's'}" for count in SIDES), "ratio", "min..max")]
    for what, sides in found.items():
        rows.append((STEPS[what].title, *("" for _ in SIDES), "", ""))
        for title, figure_of, form in SHOWN:
            values = [list(map(figure_of, figures)) for figures in sides]
            ratios = [last / first for first, last in zip(values[0], values[-1], strict=True) if first]
            shown = [form.format(median(its)) for its in values]
            compared = (f"{median(ratios):.2f}", f"{min(ratios):.2f}..{max(ratios):.2f}") if ratios else ("", "")
            rows.append((f"  {title}", *shown, *compared))
    lines = align(rows, right=(1, 2, 3))
    head = (
        f"{scale.clients} client processes, {PARTITIONS} partitions, Valkey with append-only file (everysec). Each "
        f"figure is for one operation, the median of {scale.rounds} rounds in turn."
    )
    return "\n".join([head, "", *lines])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table, or be a client."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="take some seconds: shows that it runs, no figures")
    parser.add_argument("--step", choices=STEPS, action="append", help="only this one; may be repeated")
    parser.add_argument("--rounds", type=int, help="how often each is measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds' figures to a file, too")
    parser.add_argument("--play", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.play:
        what, url, prefix, number, scale = options.play
        uvloop.run(play(what, url, prefix, int(number), Scale(**json.loads(scale))))
        return
    scale = QUICK if options.quick else FULL
    scale = replace(scale, rounds=options.rounds or scale.rounds)
    found = asyncio.run(measured(scale, options.step or list(STEPS)))
    print(render(found, scale))
    if options.json:
        shown = {what: [[asdict(run) for run in figures] for figures in sides] for what, sides in found.items()}
        options.json.write_text(json.dumps(shown, indent=2) + "\n")


if __name__ == "__main__":
    main()
