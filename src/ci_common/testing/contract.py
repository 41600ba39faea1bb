"""The whole contract suite, joined from its parts; opening, closing and the first example of use stand here."""

import ast
import inspect

import pytest

from ci_common.models import Job
from ci_common.repository import JobRepository
from ci_common.testing.accounts import APIKeyContract, UserContract
from ci_common.testing.bad_input import BadInputContract
from ci_common.testing.completion import CompletionContract
from ci_common.testing.concurrency import ConcurrencyContract
from ci_common.testing.creation import CreationContract
from ci_common.testing.events import AppendingContract, ReadingContract
from ci_common.testing.following import FollowingContract
from ci_common.testing.listing import IsolationContract, ListingContract
from ci_common.testing.samples import create, fetch, lines
from ci_common.testing.status import CancellationContract, StatusContract, TransitionContract
from ci_common.testing.values import TextContract, TimeContract, TimeOrderContract

#: "Creating and Managing Jobs" and "Using the Repository Interface" of the document that the interface comes from, word
#: for word; only the repository's import is gone and its construction is another.
EXAMPLE = """
from ci_common.models import Job, JobEvent
from datetime import datetime

# Create a new job
job = Job(
    id="550e8400-e29b-41d4-a716-446655440000",
    status="queued",
    zip_file_path="/tmp/project.zip"
)

# Add events during execution
log_event = JobEvent(
    type="log",
    data="Running tests...\\n",
    timestamp=datetime.utcnow()
)

complete_event = JobEvent(
    type="complete",
    success=True,
    timestamp=datetime.utcnow()
)

from ci_common.repository import JobRepository

# Initialize repository (concrete implementation)
repo: JobRepository = repository
await repo.initialize()

# Create job
await repo.create_job(job)

# Update status as job progresses
await repo.update_job_status(
    job.id,
    "running",
    start_time=datetime.utcnow(),
    container_id="abc123"
)

# Complete job
await repo.complete_job(
    job.id,
    success=True,
    end_time=datetime.utcnow()
)

# Retrieve job
retrieved = await repo.get_job(job.id)
print(f"Job status: {retrieved.status}, success: {retrieved.success}")

# Cleanup
await repo.close()
"""


class LifeContract:
    """Opening and closing; the suite's fixture gives a repository that is open."""

    async def test_initializing_again_does_nothing(self, repository: JobRepository) -> None:
        """What is stored stays, and the repository works on."""
        job_id = await create(repository, *lines(2))
        await repository.initialize()
        await repository.add_events(job_id, lines(1))
        assert len((await fetch(repository, job_id)).events) == 3

    async def test_closing_again_does_nothing(self, repository: JobRepository) -> None:
        """`close` may be called as often as one likes."""
        await repository.close()
        await repository.close()

    async def test_a_repository_is_a_context_manager(self, repository: JobRepository) -> None:
        """Entering gives the repository itself, open; errors pass through its end."""

        async def use() -> None:
            async with repository as entered:
                assert entered is repository
                await create(entered, id="job")
                raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            await use()

    @pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
    async def test_the_first_example_runs(self, repository: JobRepository, capsys: pytest.CaptureFixture[str]) -> None:
        """The flow that the interface was introduced with works as it was written."""
        code = compile(EXAMPLE, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        names: dict[str, object] = {"repository": repository}
        flow = eval(code, names)
        assert inspect.iscoroutine(flow)
        await flow
        assert capsys.readouterr().out == "Job status: completed, success: True\n"
        job = names["retrieved"]
        assert isinstance(job, Job)
        assert (job.container_id, job.zip_file_path) == ("abc123", "/tmp/project.zip")
        assert job.start_time is not None
        assert job.start_time.tzinfo is None
        assert job.events[0].timestamp == job.end_time


class JobRepositoryContract(
    LifeContract,
    UserContract,
    APIKeyContract,
    CreationContract,
    ListingContract,
    IsolationContract,
    StatusContract,
    TransitionContract,
    CompletionContract,
    CancellationContract,
    AppendingContract,
    ReadingContract,
    FollowingContract,
    TextContract,
    TimeContract,
    TimeOrderContract,
    BadInputContract,
    ConcurrencyContract,
):
    """All behaviour that callers of a repository rely on; subclass it and give the fixture `repository`."""

    pytestmark = pytest.mark.asyncio
