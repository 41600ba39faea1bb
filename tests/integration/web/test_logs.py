"""A job's log as text, and its events in pages."""

import gzip
from collections.abc import Sequence
from datetime import UTC, datetime
from io import BytesIO
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.lines import pieces
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web.logs import text as log_text
from tests.integration.web.serving import scattered_texts

TIME = datetime(2030, 1, 2, 3, 4, 5, 678901, UTC)
STAMP = "2030-01-02T03:04:05.678Z"


async def create_job(repository: RedisJobRepository, texts: Sequence[str], job_id: str = "j") -> bytes:
    """Create a running job with these pieces of log, and return the log's bytes."""
    await repository.create_job(Job(id=job_id, user_id="ada", status="running"))
    for start in range(0, len(texts), 100):
        events = [JobEvent("log", text, timestamp=TIME) for text in texts[start : start + 100]]
        await repository.add_events(job_id, events)
    return "".join(texts).encode("utf-8", "surrogateescape")


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log takes several pieces, and is sent in many parts."""
    monkeypatch.setattr(pieces, "PIECE_EVENTS", 700)
    monkeypatch.setattr(log_text, "SENT_BYTES", 500)


@pytest.mark.parametrize("texts", [[], [""], ["a"], ["a\n", "b\udcffc"], scattered_texts(2500)], ids=len)
async def test_a_log_is_what_was_printed(
    client: httpx.AsyncClient, repository: RedisJobRepository, texts: Sequence[str]
) -> None:
    """Byte for byte, plain and compressed; the length is known beforehand."""
    expected = await create_job(repository, texts)
    plain = await client.get("/jobs/j/log", headers={"Accept-Encoding": "identity"})
    assert (plain.status_code, plain.content) == (200, expected)
    assert plain.headers["content-type"] == "text/plain; charset=utf-8"
    assert (plain.headers["content-length"], plain.headers["accept-ranges"]) == (str(len(expected)), "bytes")
    async with client.stream("GET", "/jobs/j/log", headers={"Accept-Encoding": "gzip"}) as packed:
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(b"".join([piece async for piece in packed.aiter_raw()])) == expected
    head = await client.head("/jobs/j/log", headers={"Accept-Encoding": "identity"})
    assert (head.content, head.headers["content-length"]) == (b"", str(len(expected)))


async def test_every_range_of_a_short_log(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """Each says which bytes it has, and of how many."""
    expected = await create_job(repository, ["ab\n", "", "c", "d\n"])
    for first in range(len(expected)):
        for last in range(first, len(expected) + 2):
            response = await client.get("/jobs/j/log", headers={"Range": f"bytes={first}-{last}"})
            end = min(last + 1, len(expected))
            assert (response.status_code, response.content) == (206, expected[first:end])
            assert response.headers["content-range"] == f"bytes {first}-{end - 1}/{len(expected)}"
            assert "content-encoding" not in response.headers


async def test_ranges_of_a_long_log(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """From one end to the other, without all that comes before."""
    expected = await create_job(repository, scattered_texts(5000))
    size = len(expected)
    for first, last in [(0, 0), (size // 2, size // 2 + 3000), (size - 1, size - 1), (1, size - 2)]:
        response = await client.get("/jobs/j/log", headers={"Range": f"bytes={first}-{last}"})
        assert response.content == expected[first : last + 1]
    assert (await client.get("/jobs/j/log", headers={"Range": "bytes=-100"})).content == expected[-100:]
    assert (await client.get("/jobs/j/log", headers={"Range": "bytes=100-"})).content == expected[100:]
    beyond = await client.get("/jobs/j/log", headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    conditional = await client.get("/jobs/j/log", headers={"Range": "bytes=0-1", "If-Range": '"x"'})
    assert (conditional.status_code, conditional.content) == (200, expected)


@pytest.mark.parametrize("texts", [[], ["\n"], ["a"], ["a\nb"], ["a\n", "b\n", ""], scattered_texts(4000)], ids=len)
async def test_the_last_lines(client: httpx.AsyncClient, repository: RedisJobRepository, texts: list[str]) -> None:
    """As many as asked for, all if there are fewer; what has no newline yet is a line."""
    lines = BytesIO(await create_job(repository, texts)).readlines()
    for count in (0, 1, 2, 3, 100, len(lines) - 1, len(lines), len(lines) + 1):
        response = await client.get(f"/jobs/j/log?tail={max(count, 0)}")
        assert response.content == b"".join(lines[-count:] if count > 0 else []), count


@pytest.mark.parametrize("texts", [[], ["a\nb", "c\n", "\n"], scattered_texts(4000)], ids=len)
async def test_times_in_front_of_lines(
    client: httpx.AsyncClient, repository: RedisJobRepository, texts: list[str]
) -> None:
    """Each line has one, at its beginning; with `tail` too."""
    lines = BytesIO(await create_job(repository, texts)).readlines()
    expected = [STAMP.encode() + b" " + line for line in lines]
    assert (await client.get("/jobs/j/log?timestamps=1")).content == b"".join(expected)
    assert (await client.get("/jobs/j/log?timestamps=1&tail=5")).content == b"".join(expected[-5:])


async def test_a_tail_behind_the_end_of_a_job(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """Its end is no line; late output is."""
    await create_job(repository, ["a\n", "b"])
    await repository.complete_job("j", True, utc_now())
    assert (await client.get("/jobs/j/log?tail=1")).text == "b"
    await repository.add_event("j", JobEvent("log", "c\n"))
    assert (await client.get("/jobs/j/log?tail=1")).text == "bc\n"


async def pages(client: httpx.AsyncClient, limit: int) -> list[Any]:
    """Read all events of a job page by page."""
    events: list[Any] = []
    after = 0
    while True:
        page = (await client.get(f"/jobs/j/events?after={after}&limit={limit}")).json()
        assert len(page["events"]) <= limit
        if not page["events"]:
            assert page["next"] == after
            return events
        events += page["events"]
        after = page["next"]


async def test_pages_of_events(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """However long the pages are, all events are there once, each with its id, time and line."""
    await create_job(repository, ["a\n", "b", "c\n\nd", "", "\udcff\n"])
    await repository.complete_job("j", True, TIME)
    expected = [
        {"id": 1, "type": "log", "data": "a\n", "line": 1},
        {"id": 2, "type": "log", "data": "b", "line": 2},
        {"id": 3, "type": "log", "data": "c\n\nd", "line": 2},
        {"id": 4, "type": "log", "data": "", "line": 4},
        {"id": 5, "type": "log", "data": "\ufffd\n", "line": 4},
        {"id": 6, "type": "complete", "success": True},
    ]
    for limit in range(1, 8):
        assert await pages(client, limit) == [{**event, "time": "2030-01-02T03:04:05.678901Z"} for event in expected]
    assert (await client.get("/jobs/j/events?after=100")).json() == {"events": [], "next": 100}


async def test_pages_of_a_long_log(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """Lines are counted rightly wherever a page begins."""
    texts = scattered_texts(3000)
    await create_job(repository, texts)
    events = await pages(client, 400)
    assert [event["id"] for event in events] == list(range(1, 3001))
    assert [event["line"] for event in events] == ["".join(texts[:place]).count("\n") + 1 for place in range(3000)]


def event_of_line(texts: Sequence[str], line: int) -> int | None:
    """Return the id of the event that a line begins in: a slow way to say it."""
    lines = 1
    for position, text in enumerate(texts, 1):
        for character in text:
            if lines == line:
                return position
            lines += character == "\n"
    return None


async def test_the_page_from_a_line_on(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """It begins with the event that the line begins in; a line that isn't there yet has none."""
    texts = scattered_texts(3000)
    log = await create_job(repository, texts)
    count = len(BytesIO(log).readlines())
    for line in (1, 2, 3, 10, 500, count // 2, count - 1, count, count + 1, count + 2):
        page = (await client.get(f"/jobs/j/events?line={line}&limit=2")).json()
        expected = event_of_line(texts, line)
        assert [event["id"] for event in page["events"]][:1] == ([] if expected is None else [expected]), line
    both = (await client.get("/jobs/j/events?line=1&after=1&limit=2")).json()
    assert [event["id"] for event in both["events"]] == [2, 3]
    assert (await client.get("/jobs/j/events?line=0")).status_code == 400


@pytest.mark.parametrize("texts", [["a\nb", "c\n", "", "\n", "d"], scattered_texts(4000)], ids=len)
async def test_lines_by_their_numbers(
    client: httpx.AsyncClient, repository: RedisJobRepository, texts: list[str]
) -> None:
    """From one to another, both included; with times, too; nothing where there are none."""
    lines = BytesIO(await create_job(repository, texts)).readlines()
    total = len(lines)
    for first, last in [(1, 1), (2, 3), (total, total), (total - 1, total + 5), (3, 2), (total + 1, total + 2)]:
        response = await client.get(f"/jobs/j/log?from={first}&to={last}")
        assert (response.status_code, response.content) == (200, b"".join(lines[first - 1 : last])), (first, last)
        assert response.headers["accept-ranges"] == "none"
    assert (await client.get("/jobs/j/log?from=2")).content == b"".join(lines[1:])
    assert (await client.get("/jobs/j/log?to=2")).content == b"".join(lines[:2])
    stamped = [STAMP.encode() + b" " + line for line in lines]
    assert (await client.get("/jobs/j/log?from=2&to=4&timestamps=1")).content == b"".join(stamped[1:4])


async def test_a_client_that_has_a_part_of_the_log(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """The log's tag says whether it is the same: then the rest is sent, or nothing; if it has grown, all."""
    expected = await create_job(repository, ["a\n", "b\n"])
    tag = (await client.get("/jobs/j/log", headers={"Accept-Encoding": "identity"})).headers["etag"]
    packed = (await client.get("/jobs/j/log", headers={"Accept-Encoding": "gzip"})).headers["etag"]
    assert packed == f"W/{tag}"
    rest = {"Range": "bytes=2-", "If-Range": tag}
    assert (await client.get("/jobs/j/log", headers=rest)).content == expected[2:]
    for known in (tag, packed):
        response = await client.get("/jobs/j/log", headers={"If-None-Match": known})
        assert (response.status_code, response.content) == (304, b"")
        # A weak tag isn't enough for parts.
        weak = await client.get("/jobs/j/log", headers={**rest, "If-Range": packed})
        assert (weak.status_code, weak.content) == (200, expected)
    await repository.add_event("j", JobEvent("log", "c\n"))
    for headers in (rest, {"If-None-Match": tag}):
        response = await client.get("/jobs/j/log", headers=headers)
        assert (response.status_code, response.content) == (200, expected + b"c\n")


async def test_a_log_is_a_file_to_keep_and_nothing_that_runs(
    client: httpx.AsyncClient, repository: RedisJobRepository
) -> None:
    """Its name is the job's, as far as file systems take it; a browser that shows it runs nothing of it."""
    for job_id, name in [("j1", "j1.log"), ('ö"\\.x', "____x.log")]:
        await repository.create_job(Job(id=job_id, user_id="ada", status="running"))
        response = await client.get(f"/jobs/{quote(job_id)}/log?download=1")
        assert response.headers["content-disposition"].startswith(f"attachment; filename=\"{name}\"; filename*=UTF-8''")
    shown = await client.get("/jobs/j1/log")
    assert "content-disposition" not in shown.headers
    assert shown.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert "Cookie" in shown.headers["vary"]


async def test_a_plain_log(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """Escapes are gone, also those cut in two, and what was overwritten; times stay in front of lines."""
    await create_job(repository, ["a\x1b[3", "1mred\x1b[0m\r\n", "10 %\r100 %\nb", "\udcff\x1b]0;title\x07!\n"])
    assert (await client.get("/jobs/j/log?plain=1")).content == b"ared\n100 %\nb\xff!\n"
    assert (await client.get("/jobs/j/log?plain=1&from=2&to=2")).content == b"100 %\n"
    stamped = await client.get("/jobs/j/log?plain=1&timestamps=1&tail=2")
    assert stamped.content == f"{STAMP} 100 %\n{STAMP} b".encode() + b"\xff!\n"
    kept = await client.get("/jobs/j/log?plain=1&download=1", headers={"Range": "bytes=0-1"})
    assert (kept.status_code, kept.headers["accept-ranges"]) == (200, "none")
    assert 'filename="j.txt"' in kept.headers["content-disposition"]


@pytest.mark.slow  # Two mebibytes.
async def test_a_plain_line_without_end(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """It is sent as it comes, not kept until its end."""
    await create_job(repository, ["x" * 50_000 + "\x1b[31m"] * 41)
    assert (await client.get("/jobs/j/log?plain=1")).content == b"x" * 50_000 * 41
