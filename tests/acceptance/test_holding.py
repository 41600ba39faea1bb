"""`run` holds its job: job and command end with it, and a cancel is a request."""

import json
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance.command_line import CommandLine, Running, is_alive, wait_for_file
from tests.servers import RealServer, wait_until

LOST = "[ci-eventstore run was lost ("


def start(cli: CommandLine, script: str, *options: str) -> Running:
    """Start `run` with a short lease, and wait for the job's id."""
    running = cli.start("run", "--id", "it", "--lease", "1s", *options, "--", "sh", "-c", script)
    assert running.job_id() == "it"
    return running


def shown(cli: CommandLine) -> dict[str, object]:
    """Return the job."""
    found: dict[str, object] = json.loads(cli("jobs", "show", "it", "--json").out)
    return found


def by_tail(cli: CommandLine) -> None:
    """Follow the log to its end."""
    assert cli("tail", "it").code == 1


def by_jobs(cli: CommandLine) -> None:
    """Ask again and again."""
    wait_until(lambda: shown(cli)["status"] != "running", "the end of the job")


def by_controller(cli: CommandLine) -> None:
    """Have a controller that takes jobs of another queue."""
    controller = cli.start("controller", "--queue", "other", "--lease", "1s")
    repository = cli.repository()
    assert repository is not None
    wait_until(lambda: LOST.encode() in cli("tail", "it", "--no-follow").out, "the last line")
    controller.send(signal.SIGTERM)
    assert controller.end().code == 0


@pytest.mark.slow
@pytest.mark.parametrize("pty", [False, True], ids=["pipe", "terminal"])
@pytest.mark.parametrize("look", [by_tail, by_jobs, by_controller])
def test_nothing_outlives_a_killed_run(
    cli: CommandLine, tmp_path: Path, look: Callable[[CommandLine], None], pty: bool
) -> None:
    """The command and what it started end at once; whoever looks ends the job, whose log says why."""
    script = f"printf unfinished; sleep 1000 & echo $$ $! > {tmp_path}/processes; wait"
    running = start(cli, script, *(["--pty"] if pty else []))
    processes = [int(word) for word in wait_for_file(tmp_path / "processes").split()]
    running.wait_for_output(b"unfinished")
    wait_until(lambda: cli("tail", "it", "--no-follow").out == b"unfinished", "the output in the log")
    running.send(signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, processes)), "the end of the command")
    look(cli)
    log = cli("tail", "it").text
    assert log.startswith(f"unfinished\n{LOST}run-")
    assert (shown(cli)["status"], shown(cli)["success"]) == ("failed", False)


def test_a_cancel_waits_for_the_command(cli: CommandLine, tmp_path: Path) -> None:
    """What it prints as it cleans up comes before the line that says so, and nothing comes after the end."""
    script = "trap 'echo cleaning; sleep 0.3; echo cleaned; exit 9' TERM; echo working; sleep 1000 & wait"
    running = start(cli, script)
    running.wait_for_output(b"working\n")
    following = cli.start("tail", "it")
    following.wait_for_output(b"working\n")
    asked = cli("jobs", "cancel", "it", "--reason", "enough")
    assert asked.code == 0
    ended = running.end()
    assert (ended.code, "is to be cancelled" in ended.err) == (9, True)
    log = b"working\ncleaning\ncleaned\n[cancelled: enough]\n"
    assert (following.end().out, cli("tail", "it").out) == (log, log)
    assert shown(cli)["status"] == "cancelled"


def test_others_do_not_end_it(cli: CommandLine) -> None:
    """`queues` doesn't count it, and no controller takes it."""
    running = start(cli, "echo working; sleep 1000", "--pty")
    running.wait_for_output(b"working")
    assert [queue["running"] for queue in json.loads(cli("queues", "--json").out)] == [0]
    running.send(signal.SIGTERM)
    assert running.end().code == 143
    assert shown(cli)["status"] == "cancelled"


@pytest.mark.slow
def test_a_run_that_stood_still_for_too_long(cli: CommandLine, tmp_path: Path) -> None:
    """Its job has ended; its command goes on, its output is kept in a file, and its exit code says so."""
    script = f"echo first; until test -e {tmp_path}/go; do sleep 0.1; done; echo second"
    running = start(cli, script)
    running.wait_for_output(b"first\n")
    wait_until(lambda: cli("tail", "it", "--no-follow").out == b"first\n", "the output in the log")
    running.send(signal.SIGSTOP)
    by_jobs(cli)
    running.send(signal.SIGCONT)
    running.wait_for_error("was ended by someone else, as nothing was heard")
    (tmp_path / "go").touch()
    ended = running.end()
    assert (ended.code, ended.out) == (4, b"first\nsecond\n")
    assert "was ended by someone else, before the end of its command was stored" in ended.err
    assert cli("tail", "it").text.splitlines()[0] == "first"
    kept = re.search(r"but kept in (\S+\.log)", ended.err)
    assert kept is not None, ended.err
    assert Path(kept[1]).read_text() == "second\n"


@pytest.mark.slow
@pytest.mark.parametrize("is_silent", [True, False], ids=["silent", "printing"])
def test_a_second_signal_ends_it_whatever_the_store_does(
    own_cli: CommandLine, server: RealServer, is_silent: bool
) -> None:
    """The server stands still: nothing can be stored, and nobody waits for that any more."""
    running = start(own_cli, "echo working; sleep 1000" if is_silent else "while echo working; do sleep 0.1; done")
    running.wait_for_output(b"working\n")
    server.suspend()
    try:
        running.send(signal.SIGTERM)
        running.wait_for_error("stopping the command")
        time.sleep(0.5)
        running.send(signal.SIGTERM)
        began = time.monotonic()
        ended = running.end()
        # Without bounds it waits for 20 seconds and more.
        assert time.monotonic() - began < 12
    finally:
        server.resume()
    assert (ended.code, "could not be ended" in ended.err) == (143, True), ended.err
    with suppress(OSError):
        running.send(signal.SIGKILL)
