"""Random commands, given to two repositories: whatever comes, both answer the same and hold the same."""

import asyncio
from collections.abc import Callable
from datetime import datetime

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ci_common import Job, JobEvent, JobRepository, MemoryJobRepository, User
from ci_eventstore import RedisJobRepository
from tests.contract import commands as c
from tests.contract.deployments import MakeRepository, new_prefix
from tests.examples import examples, slow


class TwoRepositories(RuleBasedStateMachine):
    """Drives both on one event loop, and compares them after every command."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.pair = self.make_pair()
        self.touched: str | None = None
        for repository in self.pair:
            self.runner.run(repository.initialize())

    def make_pair(self) -> tuple[JobRepository, JobRepository]:
        """Make both repositories; they aren't open yet."""
        raise NotImplementedError

    def give(self, command: c.Command, job_id: str | None = None) -> None:
        """Run a command on both and compare the outcomes; the job that it is about is compared afterwards."""
        first, second = (self.runner.run(c.observe(repository, command)) for repository in self.pair)
        assert first == second
        self.touched = job_id or self.touched

    def teardown(self) -> None:
        """Compare all that both hold, and close them."""
        try:
            first, second = (self.runner.run(c.everything(repository)) for repository in self.pair)
            assert c.comparable(first) == c.comparable(second)
            for repository in self.pair:
                if isinstance(repository, RedisJobRepository):
                    assert self.runner.run(repository.verify()) == []
        finally:
            for repository in self.pair:
                self.runner.run(repository.close())
            self.runner.close()

    @precondition(lambda self: self.touched)
    @invariant()
    def jobs_are_equal(self) -> None:
        """The job of the last command is the same in both."""
        job_id, self.touched = self.touched, None
        if job_id:
            self.give(lambda repository: repository.get_job(job_id))

    @initialize(user=c.users, jobs=c.first_jobs)
    def create_first(self, user: User, jobs: tuple[Job, ...]) -> None:
        self.give(lambda repository: repository.create_user(user))
        for job in jobs:
            self.give(c.Call("create_job", (job,)), job.id)

    @rule(job=c.jobs)
    def create_job(self, job: Job) -> None:
        self.give(lambda repository: repository.create_job(job), job.id)

    @rule(
        job_id=c.job_ids,
        status=c.statuses,
        start_time=st.none() | c.times,
        container_id=st.sampled_from([None, None, "c2", "\ud800"]),
    )
    def update_job_status(
        self, job_id: str, status: str, start_time: datetime | None, container_id: str | None
    ) -> None:
        self.give(lambda repository: repository.update_job_status(job_id, status, start_time, container_id), job_id)

    @rule(job_id=c.job_ids, status=st.sampled_from(["running", "queued"]))
    def start_or_give_up(self, job_id: str, status: str) -> None:
        self.give(lambda repository: repository.update_job_status(job_id, status), job_id)
        self.give(lambda repository: repository.update_job_status(job_id, status, container_id="c3"), job_id)

    @rule(job_id=c.job_ids, success=st.booleans(), end_time=c.times)
    def complete_job(self, job_id: str, success: bool, end_time: datetime) -> None:
        self.give(lambda repository: repository.complete_job(job_id, success, end_time), job_id)

    @rule(job_id=c.job_ids, reason=c.data, user_id=c.some_user)
    def cancel_job(self, job_id: str, reason: str | None, user_id: str | None) -> None:
        self.give(lambda repository: repository.cancel_job(job_id, reason, user_id), job_id)

    @rule(job_id=c.job_ids, event=c.events | c.bad_events)
    def add_event(self, job_id: str, event: JobEvent) -> None:
        self.give(lambda repository: repository.add_event(job_id, event), job_id)

    @rule(job_id=c.job_ids, events=c.event_lists, bad=st.lists(c.bad_events, max_size=1))
    def add_events(self, job_id: str, events: list[JobEvent], bad: list[JobEvent]) -> None:
        self.give(lambda repository: repository.add_events(job_id, [*events, *bad]), job_id)

    @rule(job_id=c.job_ids, after=c.positions, limit=c.limits, user_id=c.some_user)
    def read(self, job_id: str, after: int, limit: int, user_id: str | None) -> None:
        self.give(lambda repository: repository.get_events_since(job_id, after, user_id))
        self.give(lambda repository: repository.read_events(job_id, after, limit, user_id))
        self.give(lambda repository: repository.get_job_summary(job_id, user_id))
        self.give(lambda repository: repository.get_job(job_id, user_id))
        self.give(lambda repository: c.follow_what_is_there(repository, job_id, after))

    @rule(user_id=c.some_user, status=st.none() | c.statuses, limit=c.limits, before=st.none() | c.job_ids)
    def page(self, user_id: str | None, status: str | None, limit: int, before: str | None) -> None:
        self.give(lambda repository: repository.page_jobs(user_id, status, limit, before))

    @rule(commands=st.lists(c.account_commands, min_size=1, max_size=4), user_id=c.user_ids, key_hash=c.hashes)
    def change_accounts(self, commands: list[c.Command], user_id: str, key_hash: str) -> None:
        for command in commands:
            self.give(command)
        self.give(lambda repository: repository.get_user(user_id))
        self.give(lambda repository: repository.get_api_key_by_hash(key_hash))
        self.give(lambda repository: repository.list_api_keys(user_id))

    @rule(command=c.bad_commands)
    def give_bad_input(self, command: c.Command) -> None:
        self.give(command)


def compare(make_first: Callable[[], JobRepository], make_second: Callable[[], JobRepository], thorough: int) -> None:
    """Run the machine for some examples of up to 50 commands."""

    class Compared(TwoRepositories):
        def make_pair(self) -> tuple[JobRepository, JobRepository]:
            return make_first(), make_second()

    run_state_machine_as_test(
        Compared,
        settings=settings(
            max_examples=examples(thorough),
            stateful_step_count=50,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("deployment", "thorough"),
    [
        ("memory", 60),
        ("defaults", 60),
        slow("fake", 40),
        slow("embedded", 40),
        pytest.param("redis7", 40, marks=pytest.mark.needs("redis7")),
    ],
    indirect=["deployment"],
)
def test_it_does_what_the_memory_does(deployment: MakeRepository, thorough: int) -> None:
    """No sequence of commands tells a deployment from the repository in memory."""
    compare(MemoryJobRepository, lambda: deployment(new_prefix()), thorough)
