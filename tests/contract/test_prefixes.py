"""Two prefixes on one server never see each other; two repositories of one prefix are the same store."""

import pytest

from ci_common import JobRepository
from ci_common.errors import JobAlreadyExistsError, RepositoryError
from ci_common.testing.samples import at, create, ids, lines, new_key, new_user
from tests.contract.deployments import SERVERS, MakeRepository, new_prefix


async def fill(repository: JobRepository, *, owner: str) -> None:
    """Write one of everything, with ids that are the same in every store."""
    user = new_user(id="ada", name=owner, email="ada@example.org")
    await repository.create_user(user)
    await repository.create_api_key(new_key(user, id="key", key_hash="hash", name=owner))
    await create(repository, *lines(1, owner), id="job", user_id="ada", name=owner, status="queued")


async def test_prefixes_never_see_each_other(deployment: MakeRepository) -> None:
    """The same ids mean different users, keys and jobs, also where one prefix is the beginning of the other."""
    first = new_prefix()
    names = [first, first + "x", first + "-1", first.upper()]
    for name in names:
        async with deployment(name) as repository:
            assert await repository.list_jobs() == []
            assert await repository.list_users() == []
            assert await repository.get_api_key_by_hash("hash") is None
            await fill(repository, owner=name)
    for name in names:
        async with deployment(name) as repository:
            if await repository.get_job("job") is None:
                continue  # In memory nothing outlives its repository.
            assert [job.name for job in await repository.list_jobs("ada")] == [name]
            assert [user.name for user in await repository.list_users()] == [name]
            assert [key.name for key in await repository.list_api_keys()] == [name]
            assert await repository.get_events_since("job", 0) == lines(1, name)


@pytest.mark.parametrize("deployment", SERVERS, indirect=True)
async def test_repositories_of_one_prefix_are_one_store(deployment: MakeRepository) -> None:
    """What one writes the other reads, follows, and may not create again."""
    prefix = new_prefix()
    async with deployment(prefix) as first, deployment(prefix) as second:
        await fill(first, owner="first")
        with pytest.raises(JobAlreadyExistsError):
            await create(second, id="job")
        with pytest.raises(RepositoryError):
            await second.create_user(new_user(email="ADA@example.org"))
        for number in range(3):
            await first.add_event("job", lines(1, f"first {number}")[0])
            await second.add_event("job", lines(1, f"second {number}")[0])
        await second.complete_job("job", True, at(9))
        assert await first.get_job("job") == await second.get_job("job")
        assert ids([event async for event in first.follow_events("job")]) == list(range(1, 9))
