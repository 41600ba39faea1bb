"""`run` when the store fails under it: the command goes on, and the user is told what isn't stored."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.acceptance.command_line import CommandLine, Running
from tests.acceptance.conftest import make_command_line
from tests.servers import RealServer, find_valkey


@pytest.fixture
def server() -> Iterator[RealServer]:
    """A server that may be killed, or made to refuse writes."""
    with RealServer(find_valkey(), "appendfsync always") as running:
        yield running


@pytest.fixture
def own_cli(server: RealServer) -> Iterator[CommandLine]:
    """The program with a store on that server."""
    command_line = make_command_line(server.url)
    try:
        yield command_line
    finally:
        command_line.kill_all()


def set_full(server: RealServer, is_full: bool) -> None:
    """Let the server be out of memory, so that it refuses writes at once, or not any more."""
    with redis.Redis(unix_socket_path=str(server.socket_path)) as client:
        client.config_set("maxmemory", "1" if is_full else "0")


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
    set_full(server, True)
    (folder / "first").write_text("go\n")
    running.wait_for_error("warning: from line 2 (byte 4) on, the output is not stored in the log of job it")
    return running


@pytest.mark.parametrize(("code", "exit_code"), [(0, 4), (3, 3)])
def test_the_command_goes_on_when_the_store_fails(
    own_cli: CommandLine, server: RealServer, tmp_path: Path, code: int, exit_code: int
) -> None:
    """All output reaches the terminal; one warning says from where on the log lacks it, another that it isn't ended."""
    running = fail_in_the_middle(own_cli, server, tmp_path, code)
    (tmp_path / "second").write_text("go\n")
    done = running.end()
    assert (done.code, done.out) == (exit_code, b"one\ntwo\nthree\n")
    assert len(done.err.splitlines()) == 3
    assert "job it could not be ended and still counts as running" in done.err.splitlines()[2]
    assert own_cli("tail", "it", "--no-follow").text == "one\n"


def test_the_log_says_what_is_missing_when_the_store_is_back(
    own_cli: CommandLine, server: RealServer, tmp_path: Path
) -> None:
    """The job ends with its result, and its log says from where on it lacks output."""
    running = fail_in_the_middle(own_cli, server, tmp_path, 0)
    set_full(server, False)
    (tmp_path / "second").write_text("go\n")
    done = running.end()
    assert (done.code, done.out) == (4, b"one\ntwo\nthree\n")
    log = own_cli("tail", "it")
    assert (log.code, log.text) == (0, "one\n\n[the output from byte 4 on is missing: the store failed]\n")
    assert own_cli("verify").code == 0


def test_a_restart_of_the_server_goes_unnoticed(own_cli: CommandLine, server: RealServer, tmp_path: Path) -> None:
    """A server that comes back within seconds costs nothing."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    running = own_cli.start("run", "--id", "it", "--", "sh", "-c", f"echo one; read line < {gate}; echo two")
    running.wait_for_output(b"one\n")
    tail = own_cli.start("tail", "it")
    tail.wait_for_output(b"one\n")
    server.kill()
    gate.write_text("go\n")
    running.wait_for_output(b"two\n")
    server.start()
    assert (running.end().code, tail.end().out) == (0, b"one\ntwo\n")
    assert own_cli("verify").code == 0
