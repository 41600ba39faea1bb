"""Where the contract is tested: a deployment is a function that makes a repository for a prefix."""

import secrets
from typing import Any, Protocol

import pytest

from ci_common import JobRepository, MemoryJobRepository

#: Names of the fixtures in `conftest`, each of which gives a `MakeRepository`.
REAL_SERVERS = ["embedded", pytest.param("redis7", marks=pytest.mark.needs("redis7"))]
SERVERS = ["fake", *REAL_SERVERS]
#: The simulated server takes four times as long as a real one, so the whole contract on it is left to the slow tests.
DEPLOYMENTS = ["memory", "defaults", pytest.param("fake", marks=pytest.mark.slow), *REAL_SERVERS]


class MakeRepository(Protocol):
    """Makes a repository that isn't open yet; within a test, those of one prefix share their data, except in memory."""

    def __call__(self, prefix: str, **settings: Any) -> JobRepository:
        """Make one with settings that those in memory don't have."""


class DefaultsJobRepository(MemoryJobRepository):
    """A repository that has written nothing but what it must, and takes the rest from the contract."""

    add_events = JobRepository.add_events
    cancel_job = JobRepository.cancel_job
    get_job_summary = JobRepository.get_job_summary


def new_prefix() -> str:
    """Return a prefix that no other test uses."""
    return f"t{secrets.token_hex(6)}"
