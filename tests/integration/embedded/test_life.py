"""An embedded server runs as long as anyone uses it."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ci_eventstore.embedded import EmbeddedServer, watchdog
from ci_eventstore.embedded.file_lock import FileLock
from ci_eventstore.embedded.start import Answer, probe
from ci_eventstore.errors import EmbeddedServerError
from tests.integration.embedded.children import Child
from tests.integration.embedded.clients import client_of
from tests.integration.embedded.processes import freeze, has_open, processes_in, servers_of, watchdogs_of
from tests.servers import wait_until

Start = Callable[..., Child]

pytestmark = pytest.mark.needs("/proc")


async def test_the_first_connection_starts_the_server(directory: Path, server: EmbeddedServer) -> None:
    """Nothing runs before somebody connects; then one server does, which keeps what it is given before it answers."""
    async with client_of(server) as client:
        assert servers_of(directory) == []
        await client.set("key", "value")
        (pid,) = servers_of(directory)
        wanted = {"port": "0", "appendonly": "yes", "appendfsync": "no", "maxmemory-policy": "noeviction", "save": ""}
        assert (await client.config_get(*wanted)) == wanted
        assert (await client.info("server"))["process_id"] == pid


async def test_the_data_is_there_the_next_time(directory: Path, server: EmbeddedServer) -> None:
    """What was written is read after the last user left and a new one came."""
    async with client_of(server) as client:
        await client.set("key", "value")
    server.release()
    wait_until(lambda: not processes_in(directory), "the end of the server")
    async with client_of(server) as client:
        assert await client.get("key") == b"value"


def test_watchdog_and_server_share_the_lock(directory: Path, server: EmbeddedServer) -> None:
    """No second server can start before both are dead, whichever of them dies first."""
    server.ensure_running()
    for pid in (*watchdogs_of(directory), *servers_of(directory)):
        assert has_open(pid, directory / "server.lock")
    assert FileLock.take(directory / "server.lock", shared=False) is None


def test_asking_twice_is_harmless(directory: Path, server: EmbeddedServer) -> None:
    """A server that runs isn't started again; after one release nobody holds on to it any more."""
    server.ensure_running()
    found = servers_of(directory)
    server.ensure_running()
    assert servers_of(directory) == found
    server.release()
    server.release()
    wait_until(lambda: not processes_in(directory), "the end of the server")


# Ten interpreters start.
@pytest.mark.slow
def test_ten_processes_at_once_get_one_server(directory: Path, start: Start) -> None:
    """They all come to the same one, and no other was started beside it."""
    children = [start() for _ in range(10)]
    for child in children:
        child.send("use")
    assert [child.answer() for child in children] == ["ok"] * 10
    assert (len(servers_of(directory)), len(watchdogs_of(directory))) == (1, 1)
    assert (directory / "server.log").read_text().lower().count("ready to accept connections") == 1


def test_the_last_user_stops_it(directory: Path, start: Start) -> None:
    """It stays for whoever is left, in whatever order they go and whoever started it; its socket goes with it."""
    first, second = start(), start()
    assert (first.ask("use"), second.ask("use")) == ("ok", "ok")
    found, socket = servers_of(directory), EmbeddedServer(directory).socket_path
    assert first.ask("release") == "ok"
    assert (first.ask("use"), second.ask("release"), servers_of(directory)) == ("ok", "ok", found)
    first.ask("release")
    wait_until(lambda: not processes_in(directory), "the end of the server")
    assert not socket.parent.exists()


def test_the_last_users_death_stops_it(directory: Path, start: Start) -> None:
    """A user that is killed has let go."""
    first, second = start(), start()
    assert (first.ask("use"), second.ask("use")) == ("ok", "ok")
    found = servers_of(directory)
    first.kill()
    assert (probe(EmbeddedServer(directory).socket_path), servers_of(directory)) == (Answer.READY, found)
    second.kill()
    wait_until(lambda: not processes_in(directory), "the end of the server")


async def test_a_connection_holds_on(directory: Path, server: EmbeddedServer, start: Start) -> None:
    """Who came to a running server keeps it after the others have left."""
    other = start()
    assert other.ask("use") == "ok"
    found = servers_of(directory)
    async with client_of(server) as client:
        await client.ping()
        other.kill()
        assert server.is_in_use
        assert (await client.ping(), servers_of(directory)) == (True, found)


def test_a_newcomer_waits_for_the_end(directory: Path, server: EmbeddedServer, start: Start) -> None:
    """Who comes while the server is being stopped gets a new one as soon as the old one is gone."""
    server.ensure_running()
    (old,) = servers_of(directory)
    freeze(old)
    server.release()
    log = directory / "server.log"
    newcomer = start().send("use")
    wait_until(lambda: _has_pending(old, signal.SIGTERM), "the watchdog to end the server")
    os.kill(old, signal.SIGCONT)
    assert newcomer.answer() == "ok"
    (new,) = servers_of(directory)
    assert new != old
    assert log.read_text().count("ready to exit") == 1


def test_a_server_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end can be delayed, but not prevented."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(watchdog, "_STOP_SECONDS", 0)
    stubborn = ["sh", "-c", "trap '' TERM; echo ready; while :; do read line; done"]
    with subprocess.Popen(stubborn, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        watchdog._end_after_last_user(process, threading.Event())
        assert process.wait() == -signal.SIGKILL


def test_a_link_leads_to_the_same_server(directory: Path, server: EmbeddedServer) -> None:
    """The directory counts, not the name by which it is reached."""
    directory.mkdir()
    link = directory.with_name("link")
    link.symlink_to(directory)
    other = EmbeddedServer(link)
    server.ensure_running()
    other.ensure_running()
    assert (other.socket_path, len(servers_of(directory))) == (server.socket_path, 1)
    other.release()


async def test_two_directories_have_two_servers(directory: Path, server: EmbeddedServer) -> None:
    """What is written to one isn't in the other."""
    other = EmbeddedServer(directory / "inner")
    async with client_of(server) as first, client_of(other) as second:
        await first.set("key", "value")
        assert await second.get("key") is None
    other.release()
    wait_until(lambda: not processes_in(directory / "inner"), "the end of the second server")


def test_processes_of_different_sessions_share_it(directory: Path, start: Start, tmp_path: Path) -> None:
    """Where the socket is doesn't depend on who asks: cron has no XDG_RUNTIME_DIR, a login session has one."""
    session = Path(f"/tmp/ci-test-{os.getpid()}")
    session.mkdir(mode=0o700)
    try:
        with_session, without = start(XDG_RUNTIME_DIR=str(session)), start(HOME=str(tmp_path))
        assert (with_session.ask("use"), without.ask("use")) == ("ok", "ok")
        assert len(servers_of(directory)) == 1
        assert EmbeddedServer(directory).socket_path.is_relative_to(session)
    finally:
        subprocess.run(["rm", "-r", session], check=True)


@pytest.mark.parametrize("name", ["with space", "100%s", "grün 💚", "line\nbreak", "quo'te\"s", "x" * 200, "a/" * 60])
async def test_any_name_will_do(directory: Path, name: str) -> None:
    """Odd and long names of data directories work."""
    server = EmbeddedServer(directory / name)
    async with client_of(server) as client:
        assert await client.set("key", "value")
    assert list((directory / name).glob("appendonlydir/*.incr.aof"))
    server.release()


def test_the_environment_does_not_matter(directory: Path, start: Start) -> None:
    """A locale that isn't installed, and a Python path to nowhere, do no harm."""
    assert start(LC_ALL="xx_XX.nowhere").ask("use") == "ok"
    assert len(servers_of(directory)) == 1


def test_blocked_signals_are_not_inherited(directory: Path, server: EmbeddedServer) -> None:
    """The server ends at once although the process that started it had blocked SIGTERM."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        server.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    server.release()
    wait_until(lambda: not processes_in(directory), "the end of the server")
    assert "ready to exit" in (directory / "server.log").read_text()


def test_closed_standard_streams_do_no_harm(directory: Path) -> None:
    """A lock that the system would make standard input of doesn't get lost on the way to the server."""
    program = (
        "import sys, pathlib; from ci_eventstore.embedded import EmbeddedServer, file_lock;"
        "directory = pathlib.Path(sys.argv[1]); EmbeddedServer(directory).ensure_running();"
        "sys.exit(file_lock.FileLock.take(directory / 'server.lock', shared=False) is not None)"
    )
    line = 'exec "$0" -c "$1" "$2" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", line, sys.executable, program, directory], check=False).returncode == 0


def test_a_forked_child_does_not_hold_on(directory: Path, start: Start) -> None:
    """A child that its parent leaves behind doesn't keep the server running."""
    user = start()
    assert user.ask("use") == "ok"
    child = int(user.ask("fork"))
    user.kill()
    try:
        wait_until(lambda: not processes_in(directory), "the end of the server")
    finally:
        os.kill(child, signal.SIGKILL)


def test_the_user_gets_no_child(directory: Path, server: EmbeddedServer) -> None:
    """Whoever waits for its children doesn't find ours among them, and Ctrl-C at its terminal doesn't reach them."""
    server.ensure_running()
    assert os.getsid(0) not in {os.getsid(pid) for pid in processes_in(directory)}
    assert str(os.getpid()) not in {
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] for pid in processes_in(directory)
    }


def test_a_deleted_socket_is_made_again(directory: Path, server: EmbeddedServer) -> None:
    """Whatever cleans up /tmp can't cut users off for good: the server ends, and the next one has a socket."""
    server.ensure_running()
    (old,) = servers_of(directory)
    # The watchdog opens its users.lock as it begins to watch.
    (watchdog,) = watchdogs_of(directory)
    wait_until(lambda: has_open(watchdog, directory / "users.lock"), "the watchdog to watch")
    server.socket_path.unlink()
    server.ensure_running()
    assert servers_of(directory) != [old]


def test_a_deleted_directory_ends_its_server(directory: Path, server: EmbeddedServer) -> None:
    """Nothing stays behind, and who still held on to the old one gets a new one."""
    server.ensure_running()
    (old,) = servers_of(directory)
    subprocess.run(["rm", "-r", directory], check=True)
    wait_until(lambda: not Path(f"/proc/{old}/exe").exists(), "the end of the server")
    server.ensure_running()
    assert len(servers_of(directory)) == 1


def test_release_ends_the_waiting(directory: Path, server: EmbeddedServer, start: Start) -> None:
    """A start that is under way is given up when the server isn't wanted any more."""
    directory.mkdir()
    # It looks as if another container's server ran.
    other = FileLock.take(directory / "server.lock", shared=False)
    assert other is not None
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(server.ensure_running) for _ in range(2)]
        wait_until(lambda: has_open(os.getpid(), directory / "users.lock"), "the start")
        server.release()
        for one in waiting:
            with pytest.raises(EmbeddedServerError, match="was released while it was waited for"):
                one.result()
    other.close()
    assert not has_open(os.getpid(), directory / "users.lock")


def test_release_ends_a_start_that_waits_its_turn(server: EmbeddedServer, start: Start) -> None:
    """One that another thread's start holds up doesn't take hold of the server after the release."""
    assert start().ask("use") == "ok"
    with ThreadPoolExecutor() as pool:
        with server._mutex:
            waiting = pool.submit(server.ensure_running)
            wait_until(_is_before_the_mutex, "the second start")
            server.release()
        with pytest.raises(EmbeddedServerError, match="was released while it was waited for"):
            waiting.result()
    assert not server.is_in_use


def _is_before_the_mutex() -> bool:
    frames = sys._current_frames().values()
    return any(frame.f_code.co_name == "ensure_running" and "releases" in frame.f_locals for frame in frames)


def _has_pending(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    pending = next(line for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(int(pending.split()[1], 16) & 1 << (number - 1))
