"""`GET /jobs/{id}/lines` and `…/lines/{n}`: a log by its lines, compared with the log's bytes."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.history.seal import Sealed
from ci_eventstore.lines import line_reader
from ci_eventstore.repository import RedisJobRepository
from tests.integration.store.sealing import archive_sealed, seal_job
from tests.integration.web.serving import scattered_texts

BEGIN = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
SECOND = timedelta(seconds=1)


async def create_job(repository: RedisJobRepository, texts: Sequence[str]) -> bytes:
    """Create a running job with these pieces of log, one each second, and return the log's bytes."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    events = [JobEvent("log", text, timestamp=BEGIN + place * SECOND) for place, text in enumerate(texts)]
    for start in range(0, len(events), 100):
        await repository.add_events("j", events[start : start + 100])
    return "".join(texts).encode("utf-8", "surrogateescape")


def lines_of(data: bytes) -> list[str]:
    """Return the log's lines as clients see them."""
    lines = data.decode("utf-8", "replace").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


async def ask(client: httpx.AsyncClient, **parameters: Any) -> dict[str, Any]:
    """Return the answer to a request for lines, whose numbers follow each other."""
    answer = await client.get("/jobs/j/lines", params=parameters)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert [line["n"] for line in found["lines"]] == [*range(found["first"], found["first"] + len(found["lines"]))]
    assert len(answer.content) <= line_reader.ANSWER_BYTES
    return found


def texts_of(answer: dict[str, Any]) -> list[str]:
    """Return the lines' texts."""
    return [line["text"] for line in answer["lines"]]


@pytest.mark.parametrize("texts", [[], [""], ["a"], ["a\n", "b\udcffc"], ["\n\n"], scattered_texts(300)], ids=len)
async def test_lines_are_those_of_the_log(
    client: httpx.AsyncClient, repository: RedisJobRepository, texts: Sequence[str]
) -> None:
    """From any line on, and from the end, with the totals at that moment."""
    data = await create_job(repository, texts)
    lines = lines_of(data)
    whole = await ask(client)
    assert texts_of(whole) == lines
    totals = {name: whole[name] for name in ("total", "is_open", "position", "ended")}
    is_open = data != b"" and not data.endswith(b"\n")
    assert totals == {"total": len(lines), "is_open": is_open, "position": len(texts), "ended": False}
    for first in {1, 2, len(lines) // 2 + 1, len(lines), len(lines) + 1} - {0}:
        assert texts_of(await ask(client, **{"from": first, "count": 3})) == lines[first - 1 : first + 2]
    for tail in (0, 1, 3, 1000):
        assert texts_of(await ask(client, tail=tail)) == lines[len(lines) - min(tail, len(lines)) :]


async def test_a_line_has_the_time_at_which_it_began(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """Lines are found by that time; between two of them the next one is, and after all of them the last."""
    await create_job(repository, ["a\nb", "c", "\n", "d\ne\n"])
    times = [line["t"] for line in (await ask(client))["lines"]]
    assert times == ["2030-01-02T03:04:05Z", "2030-01-02T03:04:05Z", "2030-01-02T03:04:08Z", "2030-01-02T03:04:08Z"]
    for seconds, first in ((-1, 1), (0, 1), (1, 2), (2, 2), (2.5, 3), (3, 3), (9, 4)):
        found = await ask(client, time=(BEGIN + seconds * SECOND).isoformat())
        assert found["first"] == first, seconds


async def test_a_long_line_is_cut_and_can_be_read_in_parts(
    client: httpx.AsyncClient, repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No character is cut in two; its length is that of all its bytes, which are read by their numbers."""
    monkeypatch.setattr("ci_eventstore.web.logs.lines.ANSWER_BYTES", 700)
    line = "é" * 1000
    await create_job(repository, ["a\n", line[:300], line[300:], "\nb\n"])
    found = await ask(client, max_line=101)
    assert found["lines"][1] == {"n": 2, "t": "2030-01-02T03:04:06Z", "text": "é" * 50, "bytes": 2000}
    assert [sorted(line) for line in found["lines"][::2]] == [["n", "t", "text"]] * 2
    parts = [(await client.get("/jobs/j/lines/2", params={"offset": 700 * part})).content for part in range(3)]
    assert (b"".join(parts).decode(), [len(part) for part in parts]) == (line, [700, 700, 600])
    end = await client.get("/jobs/j/lines/2?offset=2000")
    assert (end.status_code, end.content, end.headers["content-length"]) == (200, b"", "0")
    assert [(await client.get(f"/jobs/j/lines/{path}")).status_code for path in ("2?offset=2001", "4", "0")] == [
        416,
        416,
        400,
    ]


async def test_requests_that_contradict_themselves_are_refused(
    client: httpx.AsyncClient, repository: RedisJobRepository
) -> None:
    """A place is named once; another incarnation is another log; what is no time is none."""
    await create_job(repository, ["a\n"])
    known = (await ask(client))["incarnation"]
    assert (await ask(client, incarnation=known))["total"] == 1
    statuses = {
        "from=1&tail=1": 400,
        "time=noon": 400,
        "time=0.5": 400,
        "time=0001-01-01T00:00:00%2B14:00": 400,
        "count=1001": 400,
        "from=0": 400,
        "incarnation=other": 409,
    }
    for query, status in statuses.items():
        assert (await client.get(f"/jobs/j/lines?{query}")).status_code == status, query
    assert (await client.get("/jobs/none/lines")).status_code == 404


async def test_a_full_answer_has_fewer_lines(
    client: httpx.AsyncClient, repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a line on it has those that fit; of the end, the last ones; one line always."""
    monkeypatch.setattr(line_reader, "ANSWER_BYTES", 1024 + 1000)
    await create_job(repository, [f"{number}{'x' * 200}\n" for number in range(9)] + ["y" * 5000 + "\n", "z"])
    assert [line["n"] for line in (await ask(client, max_line=5000))["lines"]] == [1, 2, 3]
    assert [line["n"] for line in (await ask(client, max_line=5000, tail=11))["lines"]] == [11]
    monkeypatch.setattr(line_reader, "ANSWER_BYTES", 1024 * 1024)
    assert [line["n"] for line in (await ask(client, **{"from": 10, "max_line": 5000}))["lines"]] == [10, 11]


@pytest.mark.slow  # Writing it takes seconds.
async def test_a_line_far_in_a_log_takes_little_reading_wherever_it_lies(
    client: httpx.AsyncClient,
    repository: RedisJobRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind a line of megabytes, in its stream, sealed and archived: the same lines, of few events."""
    texts = [f"line {number}\n" for number in range(1, 5001)]
    texts[2500:2500] = ["x" * 60_000] * 100 + ["\n"]
    data = await create_job(repository, texts)
    lines = lines_of(data)
    await repository.complete_job("j", True, utc_now())
    read = repository.engine.reader.payloads
    events = 0

    async def counted(*args: Any) -> list[bytes]:
        nonlocal events
        found = await read(*args)
        events += len(found)
        return found

    monkeypatch.setattr(repository.engine.reader, "payloads", counted)

    async def check() -> None:
        nonlocal events
        for first in (1, 2000, 2500, 2501, 2502, 4000, 5000, 5001):
            events = 0
            found = await ask(client, **{"from": first, "count": 2, "max_line": 50})
            assert [text[:50] for text in lines[first - 1 : first + 1]] == texts_of(found)
            assert {line.get("bytes") for line in found["lines"] if line["n"] == 2501} <= {6_000_000}
            assert events < 4000, first
        events = 0
        assert texts_of(await ask(client, tail=2)) == lines[-2:]
        assert (await client.get("/jobs/j/lines/2501?offset=5999998")).content == b"xx"
        assert (await ask(client, time=(BEGIN + 4000 * SECOND).isoformat()))["first"] == 3901
        assert events < 8000

    await check()
    assert await seal_job(repository) is Sealed.SEALED
    await check()
    await archive_sealed(repository, tmp_path)
    await check()
