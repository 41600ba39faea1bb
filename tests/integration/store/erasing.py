"""A user with an account and jobs, for tests that erase one."""

from typing import Any

from ci_common.models import APIKey, Job, JobEvent, User, hash_api_key, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.history.erasing import Eraser, Receipt
from ci_eventstore.repository import RedisJobRepository

#: What must not be found anywhere: of the user's account, keys and jobs.
WORDS: tuple[str, ...] = (
    "zebedee-id",
    "Zebedee Quux",
    "zebedee@example.org",
    "laptop-of-zebedee",
    "zebedee-build",
    "zebedee-prints",
)
WORDS += (hash_api_key("ci_zebedee"), "zebedee-key", "zebedee-arg")


async def account(repository: RedisJobRepository) -> None:
    """Make the user, and another one."""
    await repository.create_user(
        User(id="zebedee-id", name="Zebedee Quux", email="Zebedee@Example.org", created_at=utc_now())
    )
    key = APIKey(id="zebedee-key", user_id="zebedee-id", key_hash=hash_api_key("ci_zebedee"), name="laptop-of-zebedee")
    await repository.create_api_key(key)
    await repository.create_user(User(id="bob", name="Bob", email="bob@example.org", created_at=utc_now()))
    await repository.create_api_key(APIKey(id="bobs", user_id="bob", key_hash=hash_api_key("ci_bob"), name="bobs"))
    await repository.engine.sessions.create(hash_api_key("ci_zebedee"))
    await repository.engine.sessions.create(hash_api_key("ci_bob"))


async def job(
    repository: RedisJobRepository, job_id: str, status: str = "running", user_id: str = "zebedee-id"
) -> None:
    """Make a job of the user's, with text in each field and a line of log."""
    name, command = ("zebedee-build", ["make", "zebedee-arg"]) if user_id == "zebedee-id" else ("b", ["make"])
    await repository.create_job(Job(id=job_id, status=status, user_id=user_id, name=name, command=command))
    await repository.add_event(job_id, JobEvent("log", "zebedee-prints this\n" if user_id == "zebedee-id" else "b\n"))


async def ended(repository: RedisJobRepository, job_id: str, user_id: str = "zebedee-id") -> None:
    """Make one that has ended."""
    await job(repository, job_id, user_id=user_id)
    await repository.complete_job(job_id, True, utc_now())


async def erase(repository: RedisJobRepository, **settings: Any) -> Receipt:
    """Erase the user."""
    return await Eraser(repository, "zebedee-id", settle_seconds=0, **settings).erase()


async def found_in_keys(nodes: Nodes) -> list[tuple[str, str]]:
    """Return which words are in the names or values of keys."""
    found = []
    async for page in nodes.scan("*"):
        for key in page:
            dumped = await nodes.read("DUMP", key) or b""
            found += [(key, word) for word in WORDS if word.encode() in dumped or word in key]
    return found
