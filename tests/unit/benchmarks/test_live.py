"""`python -m benchmarks.live`: a quick run, and its pure parts."""

import json

import pytest

from benchmarks.live.frames import body_of, log_of
from benchmarks.live.processes import Plan
from benchmarks.live.rows import Waits, cpu_rows, latency_rows, quantile
from benchmarks.live.scale import FULL, QUICK
from benchmarks.servers import FILE_SETTINGS, running, server_binaries

FRAMES = b"""retry: 2000
event: state
id: 0
data: {"type": "state"}

: ping

id: 1
data: {"type": "log", "data": "one\\n"}

id: 2
data: {"type": "complete", "success": true}

"""


def response(*chunks: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_body_is_the_same_however_it_was_cut(size: int) -> None:
    """Chunks are put together, whatever stands at their borders."""
    chunks = [FRAMES[start : start + size] for start in range(0, len(FRAMES), size)]
    assert body_of(response(*chunks)) == FRAMES


def test_a_response_that_was_cut_off_is_refused() -> None:
    """A stream that doesn't end as HTTP has it isn't taken for a whole one; nor is an error."""
    with pytest.raises(ValueError, match="not found"):
        body_of(response(FRAMES)[:-5])
    with pytest.raises(ValueError, match="not a chunked response"):
        body_of(b"HTTP/1.1 404 Not Found\r\n\r\n")


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_log_is_read_from_frames(newline: bytes) -> None:
    """Comments and what has a name are no part of the log, with or without an id."""
    assert log_of(FRAMES.replace(b"\n", newline)) == ("one\n", 2)


def test_a_hole_in_a_stream_is_found() -> None:
    """A stream that lacks an event is refused."""
    with pytest.raises(ValueError, match="event 2 comes after 0"):
        log_of(FRAMES.replace(b"id: 1\n", b""))


def test_each_job_gets_the_same_number_of_events() -> None:
    """So that a follower knows when it has everything."""
    for audience in (*FULL.alone, *FULL.audiences, FULL.crowd, *FULL.streams):
        assert audience.events % audience.jobs == 0
        assert audience.followed <= audience.jobs


def test_a_plan_reaches_its_process() -> None:
    """What one process writes another one reads."""
    fields = {"url": "unix:///socket", "followed": 1, "followers": 2, "events": 6, "events_per_second": 5, "port": 80}
    plan = Plan.parse(json.dumps({**fields, "jobs": ["a", "b"]}))
    assert plan == Plan("unix:///socket", ("a", "b"), 1, 2, 6, 5, 80)
    assert plan.events_per_job == 3


def test_quantiles() -> None:
    """Of few values, the last is the highest."""
    assert [quantile([3.0, 1.0, 2.0], share) for share in (0, 0.5, 0.99)] == [1.0, 2.0, 3.0]


@pytest.mark.slow
def test_a_quick_run_follows_in_processes() -> None:
    """Every row of what follows in processes is measured; streams over HTTP are run by hand, for their peer's sake."""
    with running(server_binaries()[0], next(iter(FILE_SETTINGS)), tcp=False) as url:
        rows = [*latency_rows(url, QUICK, Waits()), *cpu_rows(url, QUICK)]
    assert [row.what for row in rows if not row.ours or not row.theirs] == []
