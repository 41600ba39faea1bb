"""A cluster of three masters without replicas, one of which is killed: what users see, and what goes on."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore import RedisJobRepository
from ci_eventstore.connection import node, way
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings
from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.facts.facts import FactKind
from ci_eventstore.facts.reader import FactBatch
from ci_eventstore.following.follower import Follower
from ci_eventstore.history.sealer import Sealer
from ci_eventstore.web import create_app
from tests.acceptance.command_line import PROGRAM
from tests.deployments import Cluster, cluster_of
from tests.deployments.cluster import Node
from tests.integration.store.fact_readers import reading
from tests.integration.web.serving import create_account, serve
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

PARTITIONS = 12
SECONDS = 120.0


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who needs the partition that is away waits for it for less long; whoever is slow to answer has time."""
    monkeypatch.setattr(node, "PATIENCE_SECONDS", 8.0)
    monkeypatch.setattr(way, "HURRIED_REPLY_SECONDS", 60.0)


def of_partitions(repository: RedisJobRepository, prefix: str) -> list[str]:
    """Return the id of a job for each partition, in their order."""
    keys, found = repository.engine.keys, dict[str, str]()
    for number in range(1000):
        found.setdefault(keys.job(f"{prefix}{number}").tag, f"{prefix}{number}")
    return [found[tag] for tag in keys.tags]


def partitions_of(cluster: Cluster, owner: Node) -> list[int]:
    """Return the partitions that a node owns."""
    return [number for number in range(PARTITIONS) if cluster.owner_of_key(f"{{ci:{number}}}") is owner]


@asynccontextmanager
async def store_on(cluster: Cluster) -> AsyncIterator[RedisJobRepository]:
    """Open a store; when all nodes are there again, its projections must agree with its streams."""
    async with RedisJobRepository.from_url(cluster.url, partitions=PARTITIONS) as repository:
        yield repository
        for one in cluster.nodes:
            if not one.is_up:
                one.start()
        await cluster.wait_ready()
        async with asyncio.timeout(SECONDS):
            # For a moment it isn't asked again.
            while (found := await repository.verify()) and found[0].place == "its server":  # noqa: ASYNC110 - it is asked
                await asyncio.sleep(0.5)
        assert found == []


async def program(url: str, *arguments: str | Path) -> tuple[int, str, str]:
    """Call the command line; return its exit code and what it printed on both outputs."""
    call = [str(PROGRAM), *arguments]
    environment = {**os.environ, "CI_EVENTSTORE_URL": url}
    done = await asyncio.to_thread(
        subprocess.run, call, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    return done.returncode, done.stdout, done.stderr


async def run_all(repository: RedisJobRepository, wanted: set[str]) -> None:
    """Run the jobs of a queue through a controller, until it has had these."""
    seen = set[str]()

    async def handler(job: ClaimedJob) -> None:
        seen.add(job.job.id)

    settings = ControllerSettings(concurrency=4, poll_seconds=0.2)
    async with Controller(repository, settings=settings) as controller:
        running = asyncio.create_task(controller.run(handler))
        try:
            await wait_until(lambda: seen >= wanted or running.done(), SECONDS)
        finally:
            controller.stop()
            await running
    assert seen == wanted


@dataclass(frozen=True)
class Scene:
    """A store on a cluster, of which one master is to be killed; that of the accounts stays."""

    cluster: Cluster
    repository: RedisJobRepository
    victim: Node
    #: The numbers of its partitions, and of the others.
    away: list[int]
    here: list[int]
    #: For each partition a job that was there before, and the id of one that comes later.
    old: list[str]
    new: list[str]

    @property
    def missing(self) -> str:
        """How the program names the partitions that are away."""
        return f"partition{'' if len(self.away) == 1 else 's'} {', '.join(map(str, self.away))} can't be reached"

    async def write(self) -> None:
        """Create and write jobs of other partitions; the error of another one names its partition."""
        for number in self.here:
            await self.repository.create_job(Job(id=self.new[number], status="queued"))
            await self.repository.add_event(self.old[number], JobEvent("log", "on it goes\n"))
            await self.repository.complete_job(self.old[number], True, utc_now())
        with pytest.raises(StoreUnavailableError, match=rf"^partition {self.away[0]} at") as raised:
            await self.repository.get_job(self.old[self.away[0]])
        assert raised.value.partition == self.away[0]

    async def hear(self, batches: AsyncIterator[FactBatch]) -> None:
        """Read facts until all of these ends were told."""
        told = set[str]()
        async with asyncio.timeout(SECONDS):
            while not {self.old[number] for number in self.here} <= told:
                batch = await anext(batches)
                told |= {fact.job_id for fact in batch.facts if fact.kind is FactKind.ENDED}
                await batch.acknowledge()

    async def look(self) -> None:
        """List, seal and verify: what is missing is named."""
        listed = await self.repository.page_available_jobs(limit=1000)
        assert {job.id for job in listed.jobs} == {ids[number] for ids in (self.old, self.new) for number in self.here}
        assert listed.unavailable == tuple(self.away)
        engine = self.repository.engine
        swept = await Sealer(engine.nodes, engine.reader.source, engine.keys).sweep(0)
        assert (swept.done, swept.unavailable, swept.left) == (2 * len(self.here), tuple(self.away), {})
        found = await self.repository.verify()
        assert {difference.subject for difference in found} == {f"partition {number}" for number in self.away}

    async def call(self) -> None:
        """Ask the web server and the command line."""
        ada = await create_account(self.repository, "ada")
        async with serve(create_app(self.repository)) as web, web.client(ada) as client:
            assert (await client.get("/jobs")).status_code == 503
            part = (await client.get("/jobs", params={"partial": "true"})).json()
            assert part["unavailable"] == self.away
            assert f'partition_up{{partition="{self.away[0]}"}} 0.0' in (await client.get("/metrics")).text
        for words in (["jobs", "list", "--json"], ["queues", "--json"]):
            code, out, error = await program(self.cluster.url, *words)
            assert (code, self.missing in error) == (0, True), error
            assert isinstance(json.loads(out), list)
        code, _, error = await program(self.cluster.url, "seal", "--once", "--after", "0s")
        assert (code, self.missing in error) == (1, True), error


async def events_of(follower: Follower) -> list[str | None]:
    """Return the texts of all events, the end's None with them."""
    events = list[str | None]()
    async with asyncio.timeout(SECONDS):
        while True:
            page = await follower.read()
            events += [record.data for record in page.records if isinstance(record, JobEvent)]
            if page.is_last:
                follower.close()
                return events


async def test_only_the_jobs_of_a_killed_master_are_away() -> None:
    """All others are created, written, followed, run, sealed and listed; who is asked for all names what is missing."""
    async with cluster_of(replicas=0) as cluster, store_on(cluster) as repository:
        accounts = cluster.owner_of_key("{ci:accounts}")
        victim = next(one for one in cluster.primaries() if one is not accounts)
        away = partitions_of(cluster, victim)
        here = [number for number in range(PARTITIONS) if number not in away]
        ids = of_partitions(repository, "old"), of_partitions(repository, "new")
        scene = Scene(cluster, repository, victim, away, here, *ids)
        for job_id in scene.old:
            await repository.create_job(Job(id=job_id, status="running", user_id="ada"))
        follower = await repository.follow(scene.old[here[0]])
        async with reading(repository) as batches:
            victim.kill()
            await scene.write()
            await scene.hear(batches)
        assert await events_of(follower) == ["on it goes\n", None]
        await run_all(repository, {scene.new[number] for number in here})
        await scene.look()
        await scene.call()


async def test_without_the_master_of_accounts_good_keys_count_for_a_while() -> None:
    """A job of another master is shown and created by a key that was good; the program can't open the store."""
    async with cluster_of(replicas=0) as cluster, store_on(cluster) as repository:
        accounts = cluster.owner_of_key("{ci:accounts}")
        here = next(number for number in range(PARTITIONS) if number not in partitions_of(cluster, accounts))
        job_id = of_partitions(repository, "job")[here]
        ada = await create_account(repository, "ada")
        await repository.create_job(Job(id=job_id, status="running", user_id="ada"))
        async with serve(create_app(repository)) as web, web.client(ada) as client:
            assert (await client.get(f"/jobs/{job_id}")).status_code == 200
            accounts.kill()
            assert (await client.get(f"/jobs/{job_id}")).status_code == 200
            stranger = await client.get(f"/jobs/{job_id}", headers={"Authorization": "Bearer ci_another"})
            assert stranger.status_code == 503
            follower = await repository.follow(job_id)
            await repository.complete_job(job_id, True, utc_now())
            assert await events_of(follower) == [None]
