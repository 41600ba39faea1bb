"""The domain of a CI system: jobs, events, users, and the contract of the store that keeps them.

Standard library only; `ci_common.testing` alone needs pytest.
"""

from ci_common.memory import MemoryJobRepository
from ci_common.models import APIKey, Job, JobEvent, JobStatus, User, generate_api_key, hash_api_key
from ci_common.repository import JobRepository

__all__ = [
    "APIKey",
    "Job",
    "JobEvent",
    "JobRepository",
    "JobStatus",
    "MemoryJobRepository",
    "User",
    "generate_api_key",
    "hash_api_key",
]
