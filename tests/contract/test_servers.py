"""The servers that tests start: they come up, die, come back with their data, and leave nothing behind."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.servers import BINARIES, RealServer, wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=BINARIES)
def binary(request: pytest.FixtureRequest) -> Path:
    find: Callable[[], Path] = request.param
    return find()


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that is dead but not yet collected has no command line any more."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


@pytest.mark.parametrize("tcp", [True, False], ids=["TCP", "Unix socket"])
def test_a_server_comes_back_with_its_data(binary: Path, tcp: bool) -> None:
    """At the same address, after `kill` and after `restart`; with `appendfsync always` a kill loses nothing."""
    with RealServer(binary, "appendfsync always", tcp=tcp) as server:
        assert server.url.startswith("redis://" if tcp else "unix://")
        with redis.Redis.from_url(server.url) as client:
            client.set("key", "value")
            first = server.pid
            server.kill()
            assert not is_alive(first)
            with pytest.raises(redis.ConnectionError):
                client.get("key")
            server.start()
            assert client.get("key") == b"value"
            server.restart()
            assert client.get("key") == b"value"
            assert server.pid != first
        last, folder = server.pid, server.folder
    assert not is_alive(last)
    assert not folder.exists()


def test_a_test_may_configure_its_server(binary: Path) -> None:
    """Its lines win over the usual ones, and may change before a restart."""
    with RealServer(binary, "maxmemory-policy allkeys-lru") as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}
        server.configuration.append("requirepass secret")
        server.restart()
        with pytest.raises(redis.AuthenticationError):
            client.ping()


def test_a_server_that_does_not_start_says_why(binary: Path) -> None:
    """The error ends with what the server said, and its folder is gone."""
    server = RealServer(binary, "no-such-directive yes")
    with pytest.raises(RuntimeError, match="no-such-directive"), server:
        pass
    assert not server.folder.exists()


def test_a_server_does_not_outlive_its_tests(binary: Path) -> None:
    """A run of tests that is killed takes its servers with it, and their folders."""
    program = (
        "import pathlib, sys, tests.servers as s\n"
        "server = s.RealServer(pathlib.Path(sys.argv[1]))\n"
        "server.start()\n"
        "print(server.pid, server.folder, flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(binary)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid, folder = run.stdout.readline().split()
        assert is_alive(int(pid))
        run.kill()
    wait_until(lambda: not is_alive(int(pid)) and not Path(folder).exists(), "the end of the server")
