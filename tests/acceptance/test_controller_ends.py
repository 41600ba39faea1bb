"""A controller ends in time when it is told to, whatever it does and whatever the store does."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.acceptance.command_line import CommandLine, Ended, Running, is_alive, wait_for_file
from tests.acceptance.test_controller import log, start_controller, state, stop, submit
from tests.servers import RealServer, wait_until

#: A second signal ends a controller within so many seconds, one that is idle ends within 2 of the first; the rest of
#: these is the machine's, which may be busy.
SECOND_SIGNAL_SECONDS = 5.0 + 3.0
IDLE_SECONDS = 2.0 + 3.0


def break_store(server: RealServer, how: str) -> None:
    if how == "down":
        server.kill()
    elif how == "hung":
        server.suspend()


def mend_store(server: RealServer, how: str) -> None:
    if how == "down":
        server.start()
    elif how == "hung":
        server.resume()


def end_within(running: Running, seconds: float) -> Ended:
    began = time.monotonic()
    ended = running.end()
    took = time.monotonic() - began
    assert took < seconds, f"it took {took:.1f} s: {ended.err}"
    return ended


def begin(cli: CommandLine, folder: Path, state: str) -> Running:
    """Start a controller and bring it into a state, but for what happens once the store is away."""
    controller = start_controller(cli, "it", "--grace", "0" if state == "giving back" else "1h")
    if state not in ("idle", "claiming"):
        os.mkfifo(folder / "go")
        submit(cli, "j", "--", "sh", "-c", f"echo working; echo x > {folder}/began; read line < {folder}/go; echo end")
        wait_for_file(folder / "began")
        wait_until(lambda: cli("tail", "j", "--no-follow").text == "working\n", "the job's first line")
    return controller


@pytest.mark.slow
@pytest.mark.parametrize("how", ["up", "down", "hung"])
@pytest.mark.parametrize("doing", ["idle", "claiming", "running", "storing the end", "giving back"])
def test_a_second_signal_ends_it(
    own_cli: CommandLine, server: RealServer, tmp_path: Path, doing: str, how: str
) -> None:
    """Within 5 seconds. What isn't stored is told, in words, by the exit code, and in a file; the job isn't lost."""
    controller = begin(own_cli, tmp_path, doing)
    break_store(server, how)
    if doing == "claiming":
        # Longer than a poll.
        time.sleep(2.5)
    if doing == "storing the end":
        (tmp_path / "go").write_text("go\n")
        controller.wait_for_error("job j ended: success")
        time.sleep(0.5)
    controller.send(signal.SIGTERM)
    time.sleep(1.0 if doing == "giving back" else 0.2)
    if controller.process.poll() is None:
        controller.send(signal.SIGTERM)
    ended = end_within(controller, SECOND_SIGNAL_SECONDS)
    mend_store(server, how)
    if doing == "storing the end" and how != "up":
        assert ended.code == 4, ended.err
        assert "the store doesn't know the ends of j" in ended.err
        kept = [path.read_text() for path in Path(own_cli.environment["TMPDIR"]).glob("ci-eventstore-*.log")]
        assert [text for text in kept if "[job j ended: success; the store doesn't know that]" in text], ended.err
    else:
        assert ended.code == 0, ended.err
    if doing not in ("idle", "claiming"):
        check_that_the_job_goes_on(own_cli, tmp_path, is_over=doing == "storing the end" and how == "up")


def check_that_the_job_goes_on(cli: CommandLine, folder: Path, *, is_over: bool) -> None:
    """Let another controller run it, if it hasn't ended."""
    if not is_over:
        (folder / "go").unlink()
        (folder / "go").write_text("go\n")
    controller = start_controller(cli, "next")
    assert log(cli, "j").endswith("end\n")
    assert state(cli, "j") == ("completed", True)
    stop(controller)


@pytest.mark.slow
def test_a_second_signal_ends_the_wait_for_output(own_cli: CommandLine, tmp_path: Path) -> None:
    """What a command has left behind may print on and on; the job is given back, and nothing of it is left."""
    controller = start_controller(own_cli, "it", "--grace", "1h")
    submit(own_cli, "j", "--", "sh", "-c", f"(while :; do echo more; sleep 0.2; done) & echo $! > {tmp_path}/pid")
    process_id = int(wait_for_file(tmp_path / "pid"))
    wait_until(lambda: own_cli.log_so_far("j").count(b"more\n") > 3, "output behind the command's end")
    controller.send(signal.SIGTERM)
    time.sleep(0.5)
    controller.send(signal.SIGTERM)
    ended = end_within(controller, SECOND_SIGNAL_SECONDS)
    assert (ended.code, is_alive(process_id)) == (0, False), ended.err
    assert state(own_cli, "j") == ("queued", None)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["up", "down", "hung"])
def test_an_idle_controller_ends_at_once(own_cli: CommandLine, server: RealServer, how: str) -> None:
    """Within 2 seconds of its first signal."""
    controller = start_controller(own_cli, "it")
    break_store(server, how)
    time.sleep(2.5)
    controller.send(signal.SIGTERM)
    ended = end_within(controller, IDLE_SECONDS)
    mend_store(server, how)
    assert ended.code == 0, ended.err


def test_a_cancel_waits_for_a_controller_that_is_dead(own_cli: CommandLine, tmp_path: Path) -> None:
    """Until its lease has run out, and ends the job: one cancel is enough."""
    controller = begin(own_cli, tmp_path, "running")
    controller.process.kill()
    done = own_cli("jobs", "cancel", "j", "--reason", "stuck")
    assert done.text == "job j is cancelled\n"
    assert log(own_cli, "j").endswith("[cancelled: stuck]\n")
    assert state(own_cli, "j") == ("cancelled", False)


@pytest.mark.slow
def test_five_deploys_of_a_job_that_is_longer_than_the_grace(own_cli: CommandLine, tmp_path: Path) -> None:
    """It is given back each time, loses no attempt, and is run to its end by the sixth controller."""
    runs = tmp_path / "runs"
    script = f"echo run >> {runs}; [ $(wc -l < {runs}) -ge 6 ] || sleep 1000; echo done"
    submit(own_cli, "j", "--", "sh", "-c", script)
    for number in range(1, 6):
        controller = start_controller(own_cli, f"deploy-{number}", "--grace", "0")
        wait_until(lambda: runs.exists() and len(runs.read_text().split()) == number, f"run {number}")  # noqa: B023
        assert "job j ended: given back" in stop(controller)
    controller = start_controller(own_cli, "last")
    assert log(own_cli, "j") == "[begun again: it was given back]\n" * 5 + "done\n"
    assert state(own_cli, "j") == ("completed", True)
    stop(controller)
