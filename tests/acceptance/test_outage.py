"""`run` when the store fails under it: the command goes on, and the user is told what isn't stored."""

import os
import platform
import shlex
import signal
import stat
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from tests.acceptance.command_line import CommandLine, Running, is_alive, python, wait_for_file
from tests.servers import RealServer, wait_until

pytestmark = pytest.mark.slow


def hide_projection(cli: CommandLine, server: RealServer, is_hidden: bool) -> None:
    """Take the hash of the job away, so that its writes are refused at once, or bring it back."""
    key = f"{{{cli.environment['CI_EVENTSTORE_PREFIX']}:0}}:job:it"
    names = (key, f"{key}:hidden") if is_hidden else (f"{key}:hidden", key)
    with redis.Redis(unix_socket_path=str(server.socket_path)) as client:
        client.rename(*names)


def rescue_file(cli: CommandLine) -> Path:
    """Return the only rescue file that there is."""
    [path] = Path(cli.environment["TMPDIR"]).iterdir()
    return path


def fail_in_the_middle(cli: CommandLine, server: RealServer, folder: Path, code: int) -> Running:
    """Start a job that prints before and after the store begins to fail, and leave it waiting at the second gate."""
    for gate in ("first", "second"):
        os.mkfifo(folder / gate)
    script = f"cd {folder}; echo one; read line < first; echo two; read line < second; echo three; exit {code}"
    running = cli.start("run", "--id", "it", "--", "sh", "-c", script)
    running.wait_for_output(b"one\n")
    tail = cli.start("tail", "it")
    tail.wait_for_output(b"one\n")
    tail.process.kill()
    hide_projection(cli, server, True)
    (folder / "first").write_text("go\n")
    running.wait_for_error("warning: the rest of the output is not stored in the log of job it, but kept in ")
    return running


def lose_the_store(cli: CommandLine, server: RealServer, folder: Path) -> tuple[Running, int]:
    """Start a job, kill its server, and let it print more; return it with the id of its command's process.

    The command ends with success at SIGUSR1.
    """
    os.mkfifo(folder / "gate")
    program = (
        "import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL);"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]);"
        f"print('one', flush=True); open({str(folder / 'gate')!r}).read();"
        "os.write(1, b'two'); signal.sigwait([signal.SIGUSR1])"
    )
    running = cli.start(
        "run",
        "--id",
        "it",
        "--",
        "sh",
        "-c",
        'echo $$ > "$1"; shift; exec "$@"',
        "sh",
        folder / "pid",
        *python(program),
    )
    running.wait_for_output(b"one\n")
    tail = cli.start("tail", "it")
    tail.wait_for_output(b"one\n")
    tail.process.kill()
    server.kill()
    (folder / "gate").write_text("go\n")
    running.wait_for_output(b"two")
    return running, int(wait_for_file(folder / "pid"))


@pytest.mark.parametrize(("code", "exit_code"), [(0, 4), (3, 3)])
def test_the_command_goes_on_when_the_store_fails(
    own_cli: CommandLine, server: RealServer, tmp_path: Path, code: int, exit_code: int
) -> None:
    """All output reaches the terminal; one warning says where the rest of the log is, another that it isn't ended."""
    running = fail_in_the_middle(own_cli, server, tmp_path, code)
    (tmp_path / "second").write_text("go\n")
    done = running.end()
    assert (done.code, done.out) == (exit_code, b"one\ntwo\nthree\n")
    assert len(done.err.splitlines()) == 3
    assert "job it could not be ended, and fails when its lease has run out" in done.err.splitlines()[2]
    rescued = rescue_file(own_cli)
    assert f"kept in {rescued}; the command goes on: " in done.err
    assert rescued.read_text() == "two\nthree\n"
    assert stat.S_IMODE(rescued.stat().st_mode) == 0o600


def test_the_log_says_what_is_missing_when_the_store_is_back(
    own_cli: CommandLine, server: RealServer, tmp_path: Path
) -> None:
    """The job ends with its result, and its log says what it lacks, and where that is."""
    running = fail_in_the_middle(own_cli, server, tmp_path, 0)
    hide_projection(own_cli, server, False)
    (tmp_path / "second").write_text("go\n")
    done = running.end()
    assert (done.code, done.out) == (4, b"one\ntwo\nthree\n")
    log = own_cli("tail", "it")
    where = f"they are in {rescue_file(own_cli)} on {platform.node()}"
    note = f"[the last 10 bytes of the output are missing here: the store failed; {where}]"
    assert (log.code, log.text) == (0, f"one\n\n{note}\n")
    assert own_cli("verify").code == 0


def test_a_restart_of_the_server_goes_unnoticed(own_cli: CommandLine, server: RealServer, tmp_path: Path) -> None:
    """A server that comes back within seconds costs nothing; the job has ended when its command did."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    running = own_cli.start("run", "--id", "it", "--", "sh", "-c", f"echo one; read line < {gate}; echo two")
    running.wait_for_output(b"one\n")
    tail = own_cli.start("tail", "it")
    tail.wait_for_output(b"one\n")
    server.kill()
    gate.write_text("go\n")
    running.wait_for_output(b"two\n")
    time.sleep(1.0)
    back = datetime.now(UTC)
    server.start()
    assert (running.end().code, tail.end().out) == (0, b"one\ntwo\n")
    end_time = own_cli.job("it").end_time
    assert end_time is not None
    assert end_time < back
    assert own_cli("verify").code == 0


def test_ctrl_c_while_the_store_is_away(own_cli: CommandLine, server: RealServer, tmp_path: Path) -> None:
    """The user waits seconds, not minutes, and is told what wasn't stored and that the job isn't ended."""
    running, child = lose_the_store(own_cli, server, tmp_path)
    started = time.monotonic()
    running.send(signal.SIGINT)
    done = running.end()
    assert time.monotonic() - started < 20
    assert (done.code, done.out, is_alive(child)) == (130, b"one\ntwo", False)
    assert f"but kept in {rescue_file(own_cli)}" in done.err
    assert "job it could not be ended, and fails when its lease has run out: the store gave no answer" in done.err
    assert rescue_file(own_cli).read_text() == "two"
    server.start()
    assert own_cli("tail", "it", "--no-follow").text == "one\n"


def test_a_second_ctrl_c_ends_the_wait_for_the_store(own_cli: CommandLine, server: RealServer, tmp_path: Path) -> None:
    """Once the command has ended, who asks again isn't kept; what wasn't stored is kept in the file."""
    running, child = lose_the_store(own_cli, server, tmp_path)
    running.send(signal.SIGINT)
    wait_until(lambda: not is_alive(child), "the end of the command")
    started = time.monotonic()
    running.send(signal.SIGINT)
    done = running.end()
    assert time.monotonic() - started < 4
    assert (done.code, rescue_file(own_cli).read_text()) == (130, "two")


def test_ctrl_c_after_a_command_that_ended_while_the_store_was_away(
    own_cli: CommandLine, server: RealServer, tmp_path: Path
) -> None:
    """The command's success stays one, but the code says that the store failed."""
    running, child = lose_the_store(own_cli, server, tmp_path)
    os.kill(child, signal.SIGUSR1)
    wait_until(lambda: not is_alive(child), "the end of the command")
    running.send(signal.SIGINT)
    running.send(signal.SIGTERM)
    done = running.end()
    assert (done.code, rescue_file(own_cli).read_text()) == (4, "two")


def test_a_second_ctrl_c_kills_a_command_that_waits_for_the_store(
    own_cli: CommandLine, server: RealServer, tmp_path: Path
) -> None:
    """It prints more than may wait, so it is held up; it is killed, and what it printed is in the log or the file."""
    shown = tmp_path / "shown"
    script = f"trap '' INT TERM; echo one; read line < {tmp_path}/gate; seq 4000000; sleep 1000"
    os.mkfifo(tmp_path / "gate")
    running = own_cli.start_shell(f"exec ci-eventstore run --id it -- sh -c {shlex.quote(script)} > {shown}")
    wait_until(lambda: shown.exists() and shown.stat().st_size == 4, "the first line")
    wait_until(lambda: own_cli("tail", "it", "--no-follow").text == "one\n", "the first event")
    server.kill()
    (tmp_path / "gate").write_text("go\n")
    wait_until(lambda: shown.stat().st_size > 16 * 1024 * 1024, "a full spool")
    running.send(signal.SIGINT)
    running.wait_for_error("a second signal kills it")
    running.send(signal.SIGINT)
    assert running.end().code == 137
    whole = shown.read_bytes()
    assert len(whole) < 20 * 1024 * 1024
    assert b"one\n" + rescue_file(own_cli).read_bytes() == whole
    server.start()


def test_a_store_that_comes_back_gets_everything(own_cli: CommandLine, server: RealServer, tmp_path: Path) -> None:
    """After a Ctrl-C, too, what waited is stored if the store comes back in time."""
    running, _ = lose_the_store(own_cli, server, tmp_path)
    running.send(signal.SIGINT)
    running.wait_for_error("a second signal kills it")
    server.start()
    assert running.end().code == 130
    log = own_cli("tail", "it")
    assert (log.code, log.text) == (1, "one\ntwo\n[cancelled: stopped by SIGINT]\n")
    assert list(Path(own_cli.environment["TMPDIR"]).iterdir()) == []
    assert own_cli("verify").code == 0
