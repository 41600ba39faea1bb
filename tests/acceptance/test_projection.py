"""`ci-eventstore verify` and `rebuild`."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import redis.asyncio as redis

from ci_eventstore.embedded import EmbeddedServer
from ci_eventstore.keys import Keys
from tests.acceptance.command_line import CommandLine, Ended


@pytest.fixture
async def client(cli: CommandLine) -> redis.Redis:
    """A client of the server, beside the program."""
    directory = Path(cli.environment["CI_EVENTSTORE_URL"].removeprefix("embedded://"))
    return redis.Redis(unix_socket_path=str(EmbeddedServer(directory).socket_path), decode_responses=True)


def keys(cli: CommandLine) -> Keys:
    """Return the names of the keys of the program's store."""
    return Keys(cli.environment["CI_EVENTSTORE_PREFIX"])


async def test_a_difference_is_found_and_mended(
    cli: CommandLine, here: Callable[..., Ended], client: redis.Redis
) -> None:
    """`verify` prints it and exits with 1, `rebuild` says what it mended, and all is well again."""
    cli("run", "--id", "job-1", "--", "echo", "hello")
    assert here("verify").err == "ci-eventstore: no differences\n"
    async with client:
        await client.hset(keys(cli).job("job-1").hash, "status", "running")
    found = here("verify")
    difference = "job job-1: field status: expected 'completed', found 'running'"
    assert (found.code, found.text.splitlines()[0]) == (1, difference)
    assert re.search(r"\d+ differences?: `ci-eventstore rebuild` mends", found.err)
    fast = here("verify", "--fast").out
    assert sorted(fast.splitlines()) == sorted(found.out.splitlines())
    as_json = json.loads(here("verify", "--json").out)[0]
    assert as_json == {
        "subject": "job job-1",
        "place": "field status",
        "expected": "completed",
        "found": "running",
    }
    mended = here("rebuild", "job-")
    assert (mended.code, difference in mended.text) == (0, True)
    assert here("verify", "job-1").code == 0
    assert here("rebuild").err == "ci-eventstore: there was nothing to mend\n"


async def test_what_was_deleted_by_hand_comes_back(
    cli: CommandLine, here: Callable[..., Ended], client: redis.Redis
) -> None:
    """All hashes and indexes are gone; a reader is told what to do; `rebuild` brings everything back."""
    for number in range(3):
        cli("run", "--id", f"job-{number}", "--", "echo", str(number))
    before = here("jobs", "list", "--json").out
    async with client:
        found = [key async for key in client.scan_iter(f"{{{keys(cli).prefix}:0}}:*") if ":events:" not in key]
        await client.delete(*found)
    lost = here("tail", "job-1")
    assert (lost.code, "run `ci-eventstore rebuild`" in lost.err) == (4, True)
    assert here("verify").code == 1
    assert here("rebuild", "job-1").code == 0
    assert here("tail", "job-1").text == "1\n"
    assert here("rebuild").code == 0
    assert here("jobs", "list", "--json").out == before


async def test_what_cannot_be_mended_is_said(cli: CommandLine, here: Callable[..., Ended], client: redis.Redis) -> None:
    """A job whose stream is gone stays a difference."""
    cli("run", "--id", "it", "--", "true")
    job = keys(cli).job("it")
    async with client:
        await client.rename(job.stream, "elsewhere")
        done = here("rebuild")
        await client.rename("elsewhere", job.stream)
    assert done.code == 1
    assert "can't be mended: job it: stream: expected 'events', found None" in done.err


async def test_no_command_ends_with_a_traceback_on_a_damaged_store(
    cli: CommandLine, here: Callable[..., Ended], client: redis.Redis
) -> None:
    """A damaged hash, entry, listing and user: each command says what is wrong, and `rebuild` mends what it can."""
    for job_id in ("job-1", "job-2"):
        cli("run", "--id", job_id, "--", "echo", "hello")
    user_id = here("user", "create", "ada", "ada@example.org").text.strip()
    job, user = keys(cli).job("job-1"), keys(cli).user(user_id)
    async with client:
        await client.hset(job.hash, "created_at", "garbage")
        await client.zadd(job.ids, {b"\xff\xfe": 0})
        shown = here("jobs", "show", "job-1")
        assert (shown.code, "field created_at" in shown.err, "ci-eventstore rebuild" in shown.err) == (4, True, True)
        listed = here("jobs", "list", "--json")
        assert (listed.code, [one["job_id"] for one in json.loads(listed.out)]) == (0, ["job-2"])
        for command in (["verify"], ["verify", "--json"], ["verify", "job-1"], ["queues"], ["tail", "job-1"]):
            assert here(*command).code in (0, 1, 4)
        assert here("rebuild").code == 0
        assert here("verify").code == 0
        created = await client.hget(user, "created_at")
        await client.hset(user, "created_at", "garbage")
        verified = here("verify")
        assert (verified.code, f"user {user_id}: record" in verified.text) == (1, True)
        assert here("rebuild").code == 1
        for command in (["user", "list"], ["keys", "list"], ["key", "list"]):
            assert "Traceback" not in here(*command).err
        await client.hset(user, "created_at", created)
