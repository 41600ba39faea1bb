"""`ci-eventstore tail`: a job's log, at once and as it grows."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.acceptance.command_line import CommandLine, Running, until_signal


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A fifo that a command waits at."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


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
    assert (done.code, done.out, done.err) == (min(code, 1), b"one\ntwo\n", "")
    assert job.end().code == code


def test_an_ended_job_is_printed_with_its_late_output(cli: CommandLine) -> None:
    """Without following, since following ends with the job."""
    job = cli.start("run", "--id", "it", "--", *until_signal("SIGTERM", "early", "late"))
    job.wait_for_output(b"early\n")
    cli("jobs", "cancel", "it")
    job.end()
    assert cli("tail", "it").text == cli("tail", "it", "--no-follow").text == "early\n[cancelled]\nlate\n"


def test_no_follow_prints_what_is_there(cli: CommandLine, gate: Path) -> None:
    """It ends before the job does, with success."""
    job = waiting_job(cli, gate)
    done = cli("tail", "it", "--no-follow")
    assert (done.code, done.out, job.process.poll()) == (0, b"one\n", None)
    gate.write_text("go\n")
    job.end()


def test_after_skips_events(cli: CommandLine, gate: Path) -> None:
    """It begins behind the given event; behind the last one there is nothing."""
    job = waiting_job(cli, gate)
    gate.write_text("go\n")
    job.end()
    outputs = [cli("tail", "it", "--after", str(number)).out for number in (0, 1, 2, 99)]
    assert outputs == [b"one\ntwo\n", b"two\n", b"", b""]


def test_after_skips_events_of_a_running_job(cli: CommandLine, gate: Path) -> None:
    """Following begins behind the given event too."""
    job = waiting_job(cli, gate)
    tail = cli.start("tail", "it", "--after", "1")
    gate.write_text("go\n")
    assert (tail.end().out, job.end().code) == (b"two\n", 0)


def test_timestamps_stand_before_each_line(cli: CommandLine) -> None:
    """Each line has one, be there several lines in an event or several events in a line; the text stays as it is."""
    script = "printf 'a\\nb\\nc'; sleep 0.3; printf 'c\\n\\x1b[1mred\\rblue\\n\\n'; sleep 0.3; printf 'end'"
    job = cli("run", "--", "bash", "-c", script)
    lines = cli("tail", job.job_id, "--timestamps").out.split(b"\n")
    stamped = [re.fullmatch(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (.*)", line, re.DOTALL) for line in lines]
    assert [found and found.group(2) for found in stamped] == [b"a", b"b", b"cc", b"\x1b[1mred\rblue", b"", b"end"]
    times = [found.group(1) for found in stamped if found]
    assert times == sorted(times)
    assert len(set(times)) == 3


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
