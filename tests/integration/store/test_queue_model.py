"""The queue against a small model of it: which jobs each claim gives, in which order, whatever happened before."""

import asyncio
from bisect import insort
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ci_common.models import Job, utc_now
from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.queues.claimed import Claim
from ci_eventstore.repository import RedisJobRepository
from tests import claims
from tests.examples import examples
from tests.servers import RealServer

LEASE = 600.0
USERS = "abc-"


@dataclass(frozen=True, slots=True)
class Given:
    """A job as a claim gives it."""

    job_id: str
    attempts: int
    lost_by: str | None
    is_cancelled: bool


@dataclass(slots=True)
class Model:
    """One queue: a line of jobs for each user, one ticket for each line, and the claimed jobs. Ids tell the order."""

    lines: dict[str, list[str]] = field(default_factory=dict)
    #: The users in the order in which they are served.
    tickets: list[str] = field(default_factory=list)
    #: The claimed jobs' controllers.
    running: dict[str, str] = field(default_factory=dict)
    expired: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    attempts: dict[str, int] = field(default_factory=dict)

    def enter(self, job_id: str) -> None:
        """Put a job into its user's line, at its place."""
        user = job_id[-1]
        insort(self.lines.setdefault(user, []), job_id)
        if user not in self.tickets:
            self.tickets.append(user)

    def leave(self, job_id: str) -> None:
        """Take a waiting job out."""
        line = self.lines[job_id[-1]]
        line.remove(job_id)
        if not line:
            self.tickets.remove(job_id[-1])

    def claim(self, controller: str, count: int) -> list[Given]:
        """Give jobs of lost controllers first, then each user's next one in turn."""
        found = [self._give(job_id, controller) for job_id in sorted(self.expired)[:count]]
        while self.tickets and len(found) < count:
            user = self.tickets.pop(0)
            found.append(self._give(self.lines[user].pop(0), controller))
            if self.lines[user]:
                self.tickets.append(user)
        return found

    def end(self, job_id: str) -> None:
        """Take a claim away."""
        del self.running[job_id]
        self.expired.discard(job_id)
        self.cancelled.discard(job_id)

    def waiting(self) -> list[str]:
        """Return all jobs that wait."""
        return sorted(job_id for line in self.lines.values() for job_id in line)

    def _give(self, job_id: str, controller: str) -> Given:
        self.attempts[job_id] = self.attempts.get(job_id, 0) + 1
        lost_by = self.running.get(job_id)
        self.running[job_id] = controller
        self.expired.discard(job_id)
        return Given(job_id, self.attempts[job_id], lost_by, job_id in self.cancelled)


class Queue:
    """The store's queue and the model, to which the same is done."""

    def __init__(self, repository: RedisJobRepository, server: Nodes) -> None:
        self.model = Model()
        self._repository = repository
        self._server = server
        self._claims: dict[str, Claim] = {}
        self._submitted = 0

    async def submit(self, number: int) -> None:
        """Create a job of one of the users; "-" is nobody."""
        user = USERS[number % len(USERS)]
        self._submitted += 1
        job_id = f"{self._submitted:04}{user}"
        await self._repository.create_job(Job(id=job_id, status="queued", user_id=None if user == "-" else user))
        self.model.enter(job_id)

    async def claim(self, number: int) -> None:
        """Let one of the controllers claim a few jobs: they are those that the model gives."""
        controller, count = f"c{number % 3}", 1 + number // 3 % 5
        claimed = await claims.claim(self._repository, "default", controller, count, LEASE)
        for one in claimed:
            self._claims[one.job.id] = one.claim
        found = [Given(one.job.id, one.attempts, one.lost_by, one.is_cancelled) for one in claimed]
        assert found == self.model.claim(controller, count)

    async def release(self, number: int) -> None:
        """Let the controller of a job give it back; one that someone wants cancelled ends instead."""
        for job_id in self._one_of(number, sorted(self.model.running)):
            await self._repository.writer(job_id, self._claims[job_id]).update_status("queued")
            is_cancelled = job_id in self.model.cancelled
            self.model.end(job_id)
            if not is_cancelled:
                self.model.attempts[job_id] -= 1
                self.model.enter(job_id)

    async def complete(self, number: int) -> None:
        """Let the controller of a job end it, though its lease may have run out."""
        for job_id in self._one_of(number, sorted(self.model.running)):
            await self._repository.writer(job_id, self._claims[job_id]).complete(True, utc_now())
            self.model.end(job_id)

    async def lose(self, number: int) -> None:
        """Let the lease of a job run out, or those of all jobs."""
        running = sorted(self.model.running)
        for job_id in running if number % 3 == 0 else self._one_of(number, running):
            await self._server.read("ZADD", "{ci:0}:leases:default", 0, job_id)
            self.model.expired.add(job_id)

    async def cancel(self, number: int) -> None:
        """Cancel a job: at once if no controller has it any more, otherwise its controller is asked to."""
        for job_id in self._one_of(number, sorted([*self.model.running, *self.model.waiting()])):
            await self._repository.cancel_job(job_id)
            if job_id not in self.model.running:
                self.model.leave(job_id)
            elif job_id in self.model.expired:
                self.model.end(job_id)
            else:
                self.model.cancelled.add(job_id)

    async def check(self) -> None:
        """Compare how much there is, then what is left, one by one."""
        depth = await claims.overview(self._repository, "default")
        assert (depth.waiting, depth.running) == (len(self.model.waiting()), len(self.model.running))
        assert await self._repository.verify() == []
        while self.model.tickets or self.model.expired:
            await self.claim(0)
        assert await claims.claim(self._repository, "default", "c0", 5, LEASE) == []

    def _one_of(self, number: int, jobs: list[str]) -> list[str]:
        return [jobs[number % len(jobs)]] if jobs else []


STEPS = st.sampled_from(["submit", "submit", "claim", "claim", "release", "complete", "lose", "cancel"])


@settings(max_examples=examples(120), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(STEPS, st.integers(0, 59)), min_size=10, max_size=60))
def test_claims_give_what_the_model_gives(valkey: RealServer, steps: list[tuple[str, int]]) -> None:
    """Users in turn, a user's jobs in the order of creation; also after releases, cancels and lost controllers."""

    async def go_through() -> None:
        server = Nodes(from_url(valkey.url))
        await server.read("FLUSHALL")
        async with RedisJobRepository.from_url(valkey.url) as repository:
            # Lost jobs are left to claims.
            setattr(repository.engine.lost_jobs, "watch", lambda job_id: None)  # noqa: B010 - it is a method
            queue = Queue(repository, server)
            for step, number in steps:
                await getattr(queue, step)(number)
            await queue.check()
        await server.close()

    asyncio.run(go_through())


@pytest.mark.slow
async def test_a_thousand_jobs_keep_nobody_waiting(repository: RedisJobRepository) -> None:
    """Whoever has few jobs has them served in turn with one of a thousand; in small helpings as in large ones."""
    sizes = {"a": 1000, "b": 5, "c": 3}
    jobs = [f"{user}{number:04}" for user, size in sizes.items() for number in range(size)]
    for job_id in jobs:
        await repository.create_job(Job(id=job_id, status="queued", user_id=job_id[0]))
    order: list[str] = []
    while claimed := await claims.claim(repository, "default", "c1", 1 + len(order) % 7, LEASE):
        order += [one.job.id for one in claimed]
    assert order == sorted(jobs, key=lambda job_id: (job_id[1:], job_id[0]))
