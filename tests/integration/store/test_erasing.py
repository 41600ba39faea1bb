"""A user is erased: nothing of theirs is left, nothing of anybody else's goes, wherever it is stopped and repeated."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ci_common.errors import JobGoneError, UserNotFoundError
from ci_common.models import APIKey, Job, JobEvent, JobStatus, User, hash_api_key, utc_now
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_texts
from ci_eventstore.errors import UserBusyError
from ci_eventstore.facts.facts import owner_mark
from ci_eventstore.history.erasing import Eraser, Receipt, rewrite_files
from ci_eventstore.jobs.decide import Cancel
from ci_eventstore.keys import Keys, facts_key, segment_key
from ci_eventstore.repository import RedisJobRepository
from tests.claims import claim
from tests.integration.store.erasing import WORDS, account, ended, erase, found_in_keys, job
from tests.integration.store.fact_readers import keep_facts
from tests.integration.store.sealing import archive_sealed, seal_job
from tests.servers import BINARIES, RealServer
from tests.waiting import wait_until


async def store_with_a_user(repository: RedisJobRepository) -> None:
    """Fill a store with jobs of the user, in each form, and of another one."""
    await account(repository)
    for job_id in ("live", "sealed", "logless", "late"):
        await ended(repository, job_id)
    for job_id in ("sealed", "late"):
        await seal_job(repository, job_id)
    await repository.add_event("late", JobEvent("log", "zebedee-prints more\n"))
    await repository.delete_log("logless")
    for n in range(3):
        await job(repository, f"waits-{n}", "queued")
    await ended(repository, "bobs-job", "bob")
    await job(repository, "bobs-waits", "queued", "bob")


async def see_that_nothing_is_left(repository: RedisJobRepository) -> None:
    """Neither of the user's jobs nor of their account; the other user has everything."""
    assert await repository.list_jobs("zebedee-id") == []
    assert await repository.get_user("zebedee-id") is None
    assert await repository.get_user_by_email("zebedee@example.org") is None
    assert await repository.get_api_key_by_hash(hash_api_key("ci_zebedee")) is None
    assert await repository.list_api_keys("zebedee-id") == []
    with pytest.raises(JobGoneError):
        await repository.get_job("live")
    assert sorted(job.id for job in await repository.list_jobs()) == ["bobs-job", "bobs-waits"]
    assert [user.id for user in await repository.list_users()] == ["bob"]
    assert await repository.get_api_key_by_hash(hash_api_key("ci_bob")) is not None
    assert await repository.verify(deep=True) == []


async def sessions(repository: RedisJobRepository) -> int:
    """Return how many sessions there are."""
    return len([key async for page in repository.engine.nodes.scan("{ci:accounts}:session:*") for key in page])


@pytest.fixture(params=BINARIES)
async def plain(request: pytest.FixtureRequest) -> AsyncIterator[tuple[RealServer, RedisJobRepository]]:
    """A server of its own that compresses nothing, so that words can be found in its files."""
    with RealServer(request.param(), "rdbcompression no", "save 3600 1") as server:
        async with RedisJobRepository.from_url(server.url, partitions=3) as repository:
            yield server, repository


async def test_nothing_is_left_in_keys_and_files(plain: tuple[RealServer, RedisJobRepository]) -> None:
    """With the files rewritten, no byte of the user's name, job text or key; before, they are in all of these."""
    server, repository = plain
    nodes = repository.engine.nodes
    await store_with_a_user(repository)
    await nodes.read("BGSAVE")
    await wait_until(lambda: any(path.suffix == ".rdb" for path in server.folder.glob("*.rdb")))
    before = {word for _, word in await found_in_keys(nodes)}
    assert before == set(WORDS)
    assert words_in_files(server.folder) == set(WORDS)
    receipt = await erase(repository)
    assert receipt == Receipt(jobs=7, cancelled=3, accounts=1, api_keys=1, sessions=1, rewritten=0)
    await see_that_nothing_is_left(repository)
    assert await sessions(repository) == 1
    assert await found_in_keys(nodes) == []
    assert words_in_files(server.folder) != set()
    assert await rewrite_files(nodes.all) == 1
    await wait_until(lambda: words_in_files(server.folder) == set())
    server.kill()
    server.start()
    assert await repository.verify() == []


async def test_no_fact_recognises_whose_jobs_they_were(repository: RedisJobRepository) -> None:
    """As it does of a job that is deleted otherwise."""
    await account(repository)
    await keep_facts(repository)
    for job_id in ("live", "deleted"):
        await ended(repository, job_id)
    await repository.delete_job("deleted")
    await erase(repository)
    [tag] = repository.engine.keys.tags
    fields = [as_texts(one) for _, one in await repository.engine.nodes.read("XRANGE", facts_key(tag), "-", "+")]
    assert [one[2:] for one in fields if len(one) > 2] == [["o", owner_mark("deleted", "zebedee-id")], ["o", ""]]


def words_in_files(folder: Path) -> set[str]:
    """Return which words are in a server's files."""
    found = set[str]()
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file() and path.name != "log":
                content = path.read_bytes()
                found |= {word for word in WORDS if word.encode() in content}
    return found


async def test_a_user_with_running_jobs(repository: RedisJobRepository) -> None:
    """Is refused, inactive by then; or the jobs are cancelled, and it waits for those who run them."""
    await store_with_a_user(repository)
    await job(repository, "runs")
    with pytest.raises(UserBusyError, match="runs"):
        await erase(repository)
    user = await repository.get_user("zebedee-id")
    assert user is not None
    assert not user.is_active
    assert len(await repository.list_jobs("zebedee-id")) == 8
    [claimed] = await claim(repository, "default", "controller", 1, 30)
    mine = repository.writer(claimed.job.id, claimed.claim, claimed)
    erasing = asyncio.create_task(erase(repository, cancels=True))
    await wait_until_asked(repository, claimed.job.id)
    assert not erasing.done()
    await mine.execute(Cancel("[stopped]\n", is_final=True))
    receipt = await erasing
    assert receipt.jobs == 8
    await see_that_nothing_is_left(repository)


async def wait_until_asked(repository: RedisJobRepository, job_id: str) -> None:
    """Wait until whoever runs a job is asked to stop it."""
    while True:
        state = await repository.engine.jobs.state(job_id)
        assert state is not None
        if state.cancel_line is not None:
            return
        await asyncio.sleep(0.01)


async def test_a_job_that_does_not_end(repository: RedisJobRepository) -> None:
    """Keeps the account, and is named; the erasure is repeated when it has ended."""
    await account(repository)
    await repository.create_job(Job(id="waits", status="queued", user_id="zebedee-id"))
    [claimed] = await claim(repository, "default", "controller", 1, 30)
    with pytest.raises(UserBusyError, match="waits"):
        await erase(repository, cancels=True, end_seconds=0)
    assert await repository.get_user("zebedee-id") is not None
    await repository.writer("waits", claimed.claim, claimed).complete(True, utc_now())
    await erase(repository)
    assert await repository.get_user("zebedee-id") is None


async def test_who_is_being_erased_is_shut_out(repository: RedisJobRepository) -> None:
    """From the beginning on: not activated again, and given no key; another user may have the email afterwards."""
    await account(repository)
    eraser = Eraser(repository, "zebedee-id", settle_seconds=1000)
    erasing = asyncio.create_task(eraser.erase())

    user = "{ci:accounts}:user:zebedee-id"
    for _ in range(1000):
        if await repository.engine.nodes.read("HEXISTS", user, "erasing"):
            break
        await asyncio.sleep(0.01)
    with pytest.raises(UserNotFoundError):
        await repository.update_user_active("zebedee-id", True)
    with pytest.raises(UserNotFoundError):
        await repository.create_api_key(
            APIKey(id="k", user_id="zebedee-id", key_hash=hash_api_key("ci_other"), name="k")
        )
    erasing.cancel()
    with suppress(asyncio.CancelledError):
        await erasing
    await erase(repository)
    await repository.create_user(User(id="other", name="Other", email="zebedee@example.org", created_at=utc_now()))
    assert await repository.verify() == []


async def test_a_second_look_finds_what_came_late(repository: RedisJobRepository) -> None:
    """A request that was let in before makes a job while the others are deleted, or right after that."""
    await store_with_a_user(repository)
    erasing = asyncio.create_task(Eraser(repository, "zebedee-id", settle_seconds=0.5).erase())
    for n in range(20):
        await job(repository, f"late-{n}", "queued")
        await asyncio.sleep(0.01)
    receipt = await erasing
    assert receipt.jobs == 27
    await see_that_nothing_is_left(repository)


async def test_a_user_without_an_account(repository: RedisJobRepository) -> None:
    """Is erased by the id; one who has nothing isn't there."""
    await ended(repository, "live")
    assert (await erase(repository)).jobs == 1
    with pytest.raises(UserNotFoundError):
        await erase(repository)
    with pytest.raises(JobGoneError):
        await repository.create_job(Job(id="live", status="queued", user_id="zebedee-id"))


async def test_a_job_that_cannot_be_read(repository: RedisJobRepository, server: Nodes, keys: Keys) -> None:
    """Is named, and keeps the account until it is mended; the others go."""
    await store_with_a_user(repository)
    await server.read("HSET", keys.job("live").hash, "version", "x")
    receipt = await erase(repository)
    assert list(receipt.left) == ["live"]
    assert receipt.accounts == 0
    assert await repository.get_user("zebedee-id") is not None
    await repository.rebuild()
    assert (await erase(repository)).left == {}
    await see_that_nothing_is_left(repository)


async def test_projects_in_the_folder_are_removed(repository: RedisJobRepository, tmp_path: Path) -> None:
    """Regular ones, in that folder itself; links, and files elsewhere, stay and are counted."""
    folder, elsewhere = tmp_path / "projects", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    paths = [folder / "mine.zip", folder / "link.zip", elsewhere / "other.zip", folder / "lost.zip"]
    for path in (paths[0], paths[2]):
        path.write_text("x")
    os.symlink(paths[2], paths[1])
    for n, path in enumerate([*paths, folder / ".." / "elsewhere" / "other.zip"]):
        status, owner = JobStatus.CANCELLED, "zebedee-id"
        await repository.create_job(Job(id=f"j{n}", status=status, user_id=owner, zip_file_path=str(path)))
    receipt = await erase(repository, project_folder=folder)
    assert (receipt.jobs, receipt.projects, receipt.projects_left) == (5, 1, 3)
    assert not paths[0].exists()
    assert paths[1].is_symlink()
    assert paths[2].exists()


async def test_archived_jobs(repository: RedisJobRepository, server: Nodes, tmp_path: Path) -> None:
    """Nothing of the user is in the archive either; another user's objects stay."""
    await store_with_a_user(repository)
    await ended(repository, "bobs-other", "bob")
    await seal_job(repository, "bobs-other")
    archived = [await archive_sealed(repository, tmp_path, job_id) for job_id in ("sealed", "bobs-other")]
    await erase(repository)
    assert await found_in_keys(server) == []
    assert words_in_files(tmp_path) == set()
    assert [(tmp_path / name).exists() for name in (*archived[0], *archived[1])] == [False, True]
    assert len(await repository.read_events("bobs-other")) == 2


async def test_what_a_sealer_was_making_goes(repository: RedisJobRepository, server: Nodes, keys: Keys) -> None:
    """A segment of a deleted job that nothing refers to; another job's stays."""
    await store_with_a_user(repository)
    await ended(repository, "bobs-other", "bob")
    mine, hers = (segment_key(keys.job(job_id), "0.1-1.0-00") for job_id in ("live", "bobs-other"))
    for key in (mine, hers):
        await server.read("SET", key, "x", "PX", 3_600_000)
    await erase(repository)
    assert await server.read("EXISTS", mine) == 0
    assert await server.read("EXISTS", hers) == 1


async def test_other_users_keep_their_turns(repository: RedisJobRepository, server: Nodes) -> None:
    """Tickets beside the user's are written anew, under their ids: who has one holds it, who waits comes next."""
    await account(repository)
    for user in ("bob", "eve", "zebedee-id", "dan"):
        for n in range(2):
            await job(repository, f"{user[0]}-{n}", "queued", user)
    [held] = await claim(repository, "default", "controller", 1, 30)
    assert held.job.user_id == "bob"

    async def tickets() -> list[Any]:
        entries = await server.read("XRANGE", "{ci:0}:dispatch:default", "-", "+")
        groups = await server.read("XINFO", "GROUPS", "{ci:0}:dispatch:default")
        pending = await server.read("XPENDING", "{ci:0}:dispatch:default", "controllers", "-", "+", 10)
        last = await server.read("XINFO", "STREAM", "{ci:0}:dispatch:default")
        fields = {
            name: dict(zip(found[::2], found[1::2], strict=True)) for name, found in (("g", groups[0]), ("s", last))
        }
        told = fields["g"][b"last-delivered-id"], fields["s"][b"last-generated-id"]
        return [
            [entry for entry in entries if entry[1][1] != b"zebedee-id"],
            *told,
            [(one[0], one[1], one[3]) for one in pending],
        ]

    before = await tickets()
    assert (await erase(repository)).queues == []
    assert await found_in_keys(server) == []
    assert await tickets() == before
    assert await repository.verify() == []
    await repository.writer(held.job.id, held.claim, held).complete(True, utc_now())
    taken = [found.job.id for _ in range(6) for found in await claim(repository, "default", "controller", 1, 30)]
    assert taken == ["e-0", "d-0", "b-1", "e-1", "d-1"]
    assert await repository.verify() == []
