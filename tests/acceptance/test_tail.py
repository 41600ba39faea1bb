"""`ci-eventstore tail`: a job's log, at once and as it grows."""

import asyncio
import json
import os
import re
import secrets
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ci_common import Job, JobEvent
from ci_eventstore import RedisJobRepository
from tests.acceptance.command_line import CommandLine, Ended, Running


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A fifo that a command waits at."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


def logs(*texts: str) -> list[JobEvent]:
    """Return log events, a second apart."""
    return [
        JobEvent("log", text, timestamp=datetime(2026, 1, 1, 0, 0, n, tzinfo=UTC)) for n, text in enumerate(texts, 1)
    ]


def waiting_job(cli: CommandLine, gate: Path, code: int = 0) -> Running:
    """Start a job that prints `one`, waits at the gate, and prints `two`."""
    running = cli.start("run", "--id", "it", "--", "sh", "-c", f"echo one; read line < {gate}; echo two; exit {code}")
    running.wait_for_output(b"one\n")
    return running


@pytest.mark.parametrize("code", [0, 3])
def test_a_running_job_is_followed_to_its_end(cli: CommandLine, gate: Path, code: int) -> None:
    """What is there comes at once, the rest when it is printed, and the exit code says how the job ended."""
    job = waiting_job(cli, gate, code)
    tail = cli.start("tail", "it")
    tail.wait_for_output(b"one\n")
    assert (job.process.poll(), tail.process.poll()) == (None, None)
    gate.write_text("go\n")
    done = tail.end()
    end = f"[exit code {code}]\n".encode() if code else b""
    assert (done.code, done.out, done.err) == (min(code, 1), b"one\ntwo\n" + end, "")
    assert job.end().code == code


async def test_an_ended_job_is_printed_with_its_late_output(cli: CommandLine) -> None:
    """Without following, since following ends with the job."""
    async with cli.repository() as repository:
        await repository.create_job(Job(id="it", status="running", events=logs("early\n")))
        await repository.cancel_job("it")
        await repository.add_event("it", JobEvent("log", "late\n"))
    assert cli("tail", "it").text == cli("tail", "it", "--no-follow").text == "early\n[cancelled]\nlate\n"


def test_no_follow_prints_what_is_there(cli: CommandLine, gate: Path) -> None:
    """It ends before the job does, with success."""
    job = waiting_job(cli, gate)
    done = cli("tail", "it", "--no-follow")
    assert (done.code, done.out, job.process.poll()) == (0, b"one\n", None)
    gate.write_text("go\n")
    job.end()


@pytest.mark.parametrize(("number", "output"), [(0, b"one\ntwo\n"), (1, b"two\n"), (2, b"")])
async def test_after_skips_events(cli: CommandLine, number: int, output: bytes) -> None:
    """It begins after the given event; after the last one there is nothing."""
    async with cli.repository() as repository:
        await repository.create_job(Job(id="it", status="queued", events=logs("one\n", "two\n")))
    assert cli("tail", "it", "--no-follow", "--after", str(number)).out == output


async def test_after_skips_events_of_a_running_job(cli: CommandLine) -> None:
    """Following begins after the given event too."""
    async with cli.repository() as repository:
        await repository.create_job(Job(id="it", status="running", events=logs("one\n", "two\n")))
        tail = cli.start("tail", "it", "--after", "1")
        await asyncio.to_thread(tail.wait_for_output, b"two\n")
        await repository.add_events("it", logs("three\n", "four\n"))
        await repository.complete_job("it", True, datetime.now(UTC))
    assert tail.end().out == b"two\nthree\nfour\n"


async def test_timestamps_stand_before_each_line(cli: CommandLine) -> None:
    """Each line has one, be there several lines in an event or several events in a line; the text stays as it is."""
    async with cli.repository() as repository:
        await repository.create_job(
            Job(id="it", status="queued", events=logs("a\nb\nc", "c\n\x1b[1mred\rblue\n\n", "end"))
        )
    done = cli("tail", "it", "--no-follow", "--timestamps")
    assert done.text.split("\n") == [
        "2026-01-01T00:00:01.000Z a",
        "2026-01-01T00:00:01.000Z b",
        "2026-01-01T00:00:01.000Z cc",
        "2026-01-01T00:00:02.000Z \x1b[1mred\rblue",
        "2026-01-01T00:00:02.000Z ",
        "2026-01-01T00:00:03.000Z end",
    ]


@pytest.mark.parametrize(
    ("after", "lines"),
    [
        (1, ["c", "2026-01-01T00:00:04.000Z d", "2026-01-01T00:00:04.000Z e"]),
        (2, ["c", "2026-01-01T00:00:04.000Z d", "2026-01-01T00:00:04.000Z e"]),
        (3, ["", "2026-01-01T00:00:04.000Z d", "2026-01-01T00:00:04.000Z e"]),
        (5, ["2026-01-01T00:00:06.000Z f"]),
    ],
)
@pytest.mark.parametrize("status", ["running", "completed"])
async def test_no_timestamp_stands_in_a_line(
    cli: CommandLine, here: Callable[..., Ended], after: int, lines: list[str], status: str
) -> None:
    """Shown after an event that ends in mid-line, or is empty, a log begins without one: the line began earlier."""
    async with cli.repository() as repository:
        await repository.create_job(Job(id="it", status=status, events=logs("a\nb", "", "c", "\nd\ne", "\n", "f")))
    done = here("tail", "it", "--no-follow", "--timestamps", "--after", str(after))
    assert done.text.split("\n")[: len(lines)] == lines


async def test_live_lines_have_times_at_their_beginnings_only(cli: CommandLine) -> None:
    """A line that comes in pieces has the time of the first, also for whom joins in its middle."""
    async with cli.repository() as repository:
        await repository.create_job(Job(id="it", status="running", events=logs("a\nb")))
        tail = cli.start("tail", "it", "--timestamps", "--after", "1")
        await repository.add_events("it", logs("", "c\r", "d"))
        await asyncio.to_thread(tail.wait_for_output, b"c\rd")
        await repository.add_events("it", logs("", "\ne\n"))
        await asyncio.to_thread(tail.wait_for_output, b"e\n")
        await repository.complete_job("it", True, datetime.now(UTC))
    assert tail.end().text == "c\rd\n2026-01-01T00:00:02.000Z e\n"


def test_ctrl_c_ends_it_quietly(cli: CommandLine, gate: Path) -> None:
    """Following stops, the job goes on."""
    job = waiting_job(cli, gate)
    tail = cli.start("tail", "it")
    tail.wait_for_output(b"one\n")
    tail.send(signal.SIGINT)
    done = tail.end()
    assert (done.code, done.out, done.err) == (130, b"one\n", "")
    gate.write_text("go\n")
    assert job.end().code == 0


def test_a_reader_that_leaves_ends_it_quietly(cli: CommandLine) -> None:
    """`tail … | head` complains about nothing."""
    cli("run", "--id", "it", "--", "seq", "100000")
    done = cli.shell("ci-eventstore tail it | head -n 2; echo ${PIPESTATUS[0]}")
    assert (done.text, done.err) == ("1\n2\n141\n", "")


def test_a_full_disk_is_said(cli: CommandLine) -> None:
    """What can't be written is no success."""
    job = cli("run", "--", "seq", "1000")
    done = cli.shell('ci-eventstore tail "$1" > /dev/full', job.job_id)
    assert (done.code, done.err) == (74, "ci-eventstore: [Errno 28] No space left on device\n")


def test_the_beginning_of_an_id_is_enough(cli: CommandLine) -> None:
    """As long as no other job begins so; an id that another one begins with can be given as it is."""
    for job_id in ("alpha-1", "alpha-10", "beta"):
        cli("run", "--id", job_id, "--", "echo", job_id)
    assert cli("tail", "b").text == "beta\n"
    assert cli("tail", "alpha-10").text == "alpha-10\n"
    assert cli("tail", "alpha-1").text == "alpha-1\n"
    ambiguous = cli("tail", "alpha")
    message = "ci-eventstore: several jobs begin with 'alpha', such as alpha-1, alpha-10: give more of the id\n"
    assert (ambiguous.code, ambiguous.out, ambiguous.err) == (2, b"", message)
    missing = cli("tail", "gamma")
    assert (missing.code, missing.out, missing.err) == (3, b"", "ci-eventstore: there is no job 'gamma'\n")


def test_a_log_that_is_too_long_says_so_and_keeps_its_end(cli: CommandLine, gate: Path, tmp_path: Path) -> None:
    """A follower is told when lines begin to be kept back, and sees the beginning, the exact loss and the end."""
    noise = tmp_path / "noise"
    noise.write_text("".join(f"{secrets.token_hex(40)}\n" for _ in range(50_000)))
    program = f"echo begin; read line < {gate}; cat {noise}; echo end"
    # The option wins.
    small = replace(cli, environment={**cli.environment, "CI_EVENTSTORE_MAX_HEAD_BYTES": "1GiB"})
    job = small.start("run", "--id", "it", "--max-head-bytes", "6", "--", "sh", "-c", program)
    job.wait_for_output(b"begin\n")
    tail = cli.start("tail", "it")
    tail.wait_for_output(b"begin\n")
    gate.write_text("go\n")
    job.end()
    done = tail.end()
    assert done.err.count("the log has outgrown its budget") == 1
    whole = noise.read_bytes() + b"end\n"
    marker = re.fullmatch(rb"begin\n\n\[(\d+) bytes in (\d+) lines are left out here\]\n(.*)", done.out, re.DOTALL)
    assert marker is not None
    left_out = whole[: int(marker[1])]
    assert (left_out.count(b"\n"), whole[len(left_out) :]) == (int(marker[2]), marker[3])
    assert cli("tail", "it").out == done.out


async def test_a_running_log_that_is_too_long_says_so(cli: CommandLine, here: Callable[..., Ended]) -> None:
    """Its end so far comes after a line that says that it is provisional; when the job has ended, that line is gone."""
    url, prefix = cli.environment["CI_EVENTSTORE_URL"], cli.environment["CI_EVENTSTORE_PREFIX"]
    async with RedisJobRepository.from_url(url, prefix=prefix, max_head_bytes=4) as repository:
        await repository.create_job(Job(id="it", status="running"))
        for event in logs("one\n", "two\n", "thr", "ee\n"):
            await repository.add_event("it", event)
        done = here("tail", "it", "--no-follow")
        assert done.text == "one\n\n[provisional from here on, until the job ends]\ntwo\nthree\n"
        assert done.err.count("the log has outgrown its budget") == 1
        done = here("tail", "it", "--no-follow", "--timestamps", "--after", "1")
        assert done.text.splitlines()[1:] == [
            "2026-01-01T00:00:02.000Z [provisional from here on, until the job ends]",
            "2026-01-01T00:00:02.000Z two",
            "2026-01-01T00:00:03.000Z three",
        ]
        assert "its end, which `tail --no-follow` shows so far" in here("jobs", "show", "it").text
        assert json.loads(here("jobs", "show", "it", "--json").out)["log_truncated"]
        await repository.complete_job("it", True, datetime.now(UTC))
    done = here("tail", "it", "--no-follow")
    assert (done.text, done.err) == ("one\ntwo\nthree\n", "")
    assert "a line in it says what is left out" in here("jobs", "show", "it").text


def test_a_budget_that_is_no_size_is_refused(cli: CommandLine) -> None:
    """The variable is named, or the option."""
    done = cli("jobs", "list", environment={"CI_EVENTSTORE_MAX_HEAD_BYTES": "64 MiB"})
    assert done.code == 2
    assert "CI_EVENTSTORE_MAX_HEAD_BYTES" in done.err
    done = cli("run", "--max-head-bytes", "much", "--", "true")
    assert done.code == 2
    assert "--max-head-bytes: 'much' is no size" in done.err


async def test_a_position_past_the_end_is_an_error(cli: CommandLine, here: Callable[..., Ended]) -> None:
    """Of a running job as of one that has ended, followed or not: nothing is waited for, nothing skipped."""
    async with cli.repository() as repository:
        await repository.create_job(Job(id="runs", status="running", events=logs("one\n")))
        await repository.create_job(Job(id="ended", status="completed", events=logs("one\n")))
    for job_id in ("runs", "ended"):
        for options in ((), ("--no-follow",)):
            done = here("tail", job_id, "--after", "2", *options)
            said = f"ci-eventstore: job {job_id!r}: event 2 is missing, the log ends before it\n"
            assert (done.code, done.text, done.err) == (4, "", said)


async def test_a_position_that_belongs_to_lost_events(cli: CommandLine, here: Callable[..., Ended]) -> None:
    """Once the operator has said that a backup was restored, a script that comes back is told, and gets all."""
    async with cli.repository() as repository:
        await repository.create_job(Job(id="it", status="running", events=logs("one\n", "two\n")))
    incarnation = json.loads(here("jobs", "show", "it", "--json").out)["incarnation"]
    resume = ("tail", "it", "--no-follow", "--after", "1", "--incarnation")
    done = here(*resume, incarnation)
    assert (done.code, done.text, done.err) == (0, "two\n", "")
    assert here("restored").code == 0
    done = here(*resume, incarnation)
    assert (done.code, done.text) == (0, "one\ntwo\n")
    assert "it begins again here" in done.err
    incarnation = json.loads(here("jobs", "show", "it", "--json").out)["incarnation"]
    assert here(*resume, incarnation).text == "two\n"
