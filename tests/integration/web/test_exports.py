"""`GET /jobs/{id}/export`: a job's events in formats of other programs."""

import json
from datetime import UTC, datetime

import httpx
import pytest

from ci_common.models import Job, JobEvent
from ci_eventstore.replay.exports import FORMATS, read_json_line
from ci_eventstore.repository import RedisJobRepository

TIME = datetime(2020, 1, 2, 3, 4, 5, 678901, UTC)
EVENTS = [JobEvent("log", text, timestamp=TIME) for text in ("\x1b[32mone\n", "10%\r", "\udcff€\n")]


@pytest.fixture
async def job(repository: RedisJobRepository) -> str:
    await repository.create_job(Job(id="j", user_id="ada", status="running", events=EVENTS))
    return "/jobs/j/export"


@pytest.mark.parametrize("name", FORMATS)
async def test_events_are_exported(client: httpx.AsyncClient, job: str, name: str) -> None:
    """As what they are, plain or compressed, without facts."""
    plain = await client.get(job, params={"format": name}, headers={"Accept-Encoding": "identity"})
    packed = await client.get(job, params={"format": name}, headers={"Accept-Encoding": "gzip"})
    assert (plain.status_code, packed.headers["content-encoding"]) == (200, "gzip")
    assert packed.content == plain.content
    lines = plain.content.splitlines()
    if name == "text":
        assert plain.content == b"\x1b[32mone\n10%\r\xff\xe2\x82\xac\n"
    elif name == "jsonl":
        assert [read_json_line(line)[1] for line in lines] == EVENTS
    else:
        kinds = {"otlp": "application/x-ndjson"}
        assert plain.headers["content-type"].startswith(kinds.get(name, "application/x-asciicast"))
        assert all(json.loads(line) for line in lines)
        assert b"created" not in plain.content


async def test_what_can_not_be_exported(client: httpx.AsyncClient, repository: RedisJobRepository, job: str) -> None:
    """Unknown and others' jobs are not found, unknown formats refused."""
    await repository.create_job(Job(id="others", user_id="bob", status="running"))
    for path, code in (("/jobs/none/export", 404), ("/jobs/others/export", 404), (job, 400)):
        name = "pdf" if code == 400 else "text"
        assert (await client.get(path, params={"format": name})).status_code == code
    assert (await client.get(job)).status_code == 400
