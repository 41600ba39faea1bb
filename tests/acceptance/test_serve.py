"""`serve` as a process: followers survive its end, a proxy in front of it, and a user's own application around it."""

import asyncio
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ci_common.models import Job, JobEvent, utc_now
from tests.acceptance.command_line import CommandLine, Running, start_serving
from tests.needs import find_nginx
from tests.servers import free_port, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
LINES = 400
#: What nginx has folders for, which by default belong to Debian's service.
KEPT = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def create_key(cli: CommandLine) -> str:
    """Create a user, and return an API key."""
    cli("user", "create", "Ada", "ada@example.com", "--id", "ada")
    return cli("key", "create", "ada").text.strip()


def start_follower(cli: CommandLine, url: str, job_id: str, key: str) -> Running:
    """Start the example that follows a job."""
    cli.environment = {**cli.environment, "CI_KEY": key}
    return cli.start_program(sys.executable, str(EXAMPLES / "follow_job.py"), url, job_id)


class Writing(threading.Thread):
    """Writes a job's lines, one by one, from a thread; goes on after so many lines only when it is told to."""

    def __init__(self, cli: CommandLine, pauses: int) -> None:
        super().__init__()
        self._cli = cli
        self.pauses = [threading.Event() for _ in range(pauses)]
        self.written = 0

    def run(self) -> None:
        asyncio.run(self._write())

    async def _write(self) -> None:
        async with self._cli.repository() as repository:
            for number in range(LINES):
                await repository.add_event("j", JobEvent("log", f"line {number}\n"))
                self.written += 1
                step = LINES // (len(self.pauses) + 1)
                if self.written % step == 0 and self.written // step <= len(self.pauses):
                    await asyncio.to_thread(self.pauses[self.written // step - 1].wait)
            await repository.complete_job("j", True, utc_now())


async def create_running_job(cli: CommandLine) -> None:
    async with cli.repository() as repository:
        await repository.create_job(Job(id="j", user_id="ada", status="running"))


async def create_long_job(cli: CommandLine) -> None:
    """Create a job whose log fills all buffers on its way."""
    await create_running_job(cli)
    async with cli.repository() as repository:
        for _ in range(20):
            await repository.add_event("j", JobEvent("log", "x" * 1_000_000))


def expected_log() -> bytes:
    return b"".join(b"line %d\n" % number for number in range(LINES))


@pytest.mark.slow  # It takes over a second of a CPU.
def test_streams_go_on_at_the_next_server(cli: CommandLine) -> None:
    """SIGTERM ends a server with open streams at once; their clients lose and double nothing at the next one."""
    port = str(free_port())
    key = create_key(cli)
    asyncio.run(create_running_job(cli))
    first, url = start_serving(cli, "--port", port)
    followers = [start_follower(cli, url, "j", key) for _ in range(3)]
    writing = Writing(cli, pauses=2)
    writing.start()
    for follower in followers:
        follower.wait_for_output(b"line 100\n")
    first.send(signal.SIGTERM)
    ended = first.end()
    assert (ended.code, ended.err.count("\n")) == (0, 1), ended.err
    writing.pauses[0].set()
    second, _ = start_serving(cli, "--port", port)
    for follower in followers:
        follower.wait_for_output(b"line 200\n")
    second.send(signal.SIGKILL)
    second.end()
    writing.pauses[1].set()
    third, _ = start_serving(cli, "--port", port)
    for follower in followers:
        done = follower.end()
        assert (done.out, done.code, done.err) == (expected_log(), 0, "")
    writing.join()
    third.send(signal.SIGINT)
    assert third.end().code == 0


def test_a_client_that_reads_nothing_keeps_no_server_alive(cli: CommandLine) -> None:
    """It is cut off in the end, without a traceback."""
    asyncio.run(create_long_job(cli))
    running, url = start_serving(cli, "--no-auth")
    address, port = url.removeprefix("http://").split(":")
    with socket.create_connection((address, int(port))) as connection:
        connection.sendall(b"GET /jobs/j/stream?from_beginning=true HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
        running.send(signal.SIGTERM)
        ended = running.end()
    assert ended.code == 0
    assert "Traceback" not in ended.err


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """The example's nginx, and the port that it expects a server at."""
    port, upstream = free_port(), free_port()
    text = (EXAMPLES / "nginx.conf").read_text()
    for old, new in {
        "listen 80;": f"listen 127.0.0.1:{port};",
        "127.0.0.1:8000": f"127.0.0.1:{upstream}",
        "/run/nginx.pid": str(tmp_path / "pid"),
        "http {": "\n    ".join(
            ["http {", "access_log off;", *(f"{name}_temp_path {tmp_path}/{name};" for name in KEPT)]
        ),
    }.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "nginx.conf").write_text(text)
    command = [find_nginx(), "-p", str(tmp_path), "-c", "nginx.conf", "-e", str(tmp_path / "log"), "-g", "daemon off;"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: (tmp_path / "pid").exists() or process.poll() is not None, "nginx")
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield port, upstream
    finally:
        process.terminate()
        process.wait(30)


def fetch(url: str, key: str) -> Any:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.read()


@pytest.mark.needs("nginx")
def test_behind_nginx_events_come_at_once(cli: CommandLine, nginx: tuple[int, int]) -> None:
    """The proxy keeps nothing back: each line is there before the next is written, and the log is what was written."""
    port, upstream = nginx
    key = create_key(cli)
    asyncio.run(create_running_job(cli))
    start_serving(cli, "--port", str(upstream))
    url = f"http://127.0.0.1:{port}"
    follower = start_follower(cli, url, "j", key)
    writing = Writing(cli, pauses=7)
    writing.start()
    for place, pause in enumerate(writing.pauses, 1):
        follower.wait_for_output(b"line %d\n" % (50 * place - 1))
        pause.set()
    done = follower.end()
    assert (done.out, done.code) == (expected_log(), 0)
    writing.join()
    assert fetch(f"{url}/jobs/j/log", key) == expected_log()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch(f"{url}/metrics", key)


@asynccontextmanager
async def relay(port: int, target: int) -> AsyncIterator[list[str]]:
    """Pass connections on from one port to another; yields the list of those, as "open" or who closed it first."""
    connections: list[str] = []
    writers: list[asyncio.StreamWriter] = []
    tasks: list[asyncio.Task[None]] = []

    async def pump(number: int, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        connections[number] = name if connections[number] == "open" else connections[number]
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        number = len(connections)
        connections.append("open")
        writers.extend((writer, far_writer))
        tasks.append(asyncio.create_task(pump(number, "proxy", reader, far_writer)))
        tasks.append(asyncio.create_task(pump(number, "server", far_reader, writer)))

    async with await asyncio.start_server(connect, "127.0.0.1", port):
        yield connections
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), *tasks, return_exceptions=True)


@pytest.mark.slow  # It waits for longer than servers commonly keep idle connections.
@pytest.mark.needs("nginx")
async def test_behind_nginx_the_server_closes_no_idle_connection(cli: CommandLine, nginx: tuple[int, int]) -> None:
    """One that it closes while nginx sends the next request over it is a 502: nginx has to be the one that closes."""
    port, upstream = nginx
    key = create_key(cli)
    _, url = start_serving(cli)
    async with relay(upstream, int(url.rsplit(":", 1)[1])) as connections:
        for _ in range(3):
            assert await asyncio.to_thread(fetch, f"http://127.0.0.1:{port}/jobs", key) == b"[]"
            await asyncio.sleep(6)
        assert connections == ["open"]


async def forget_everything(cli: CommandLine) -> None:
    """Take the damage away."""
    async with cli.repository() as repository:
        await repository.engine.nodes.read("FLUSHALL")


async def create_cut_log(cli: CommandLine) -> None:
    """Create a job whose log breaks off in its second mebibyte."""
    await create_running_job(cli)
    async with cli.repository() as repository:
        await repository.add_events("j", [JobEvent("log", "x" * 1000) for _ in range(5000)])
        await repository.engine.nodes.read("XDEL", repository.engine.keys.job("j").stream, "4000-0")


@pytest.mark.needs("nginx")
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("query", ["", "?timestamps=1"])
def test_behind_nginx_a_log_that_breaks_off_is_seen_to(
    cli: CommandLine, nginx: tuple[int, int], query: str, encoding: str
) -> None:
    """The client isn't left with a part that it takes for the whole."""
    port, upstream = nginx
    key = create_key(cli)
    asyncio.run(create_cut_log(cli))
    running, _ = start_serving(cli, "--port", str(upstream))
    headers = {"Authorization": f"Bearer {key}", "Accept-Encoding": encoding}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/jobs/j/log{query}", headers=headers)
    with (
        urllib.request.urlopen(request, timeout=30) as response,
        pytest.raises((http.client.IncompleteRead, ConnectionResetError)),
    ):
        response.read()
    asyncio.run(forget_everything(cli))
    running.wait_for_error("a log was cut off")
    assert "Traceback" not in running.told


def test_inside_of_another_application(cli: CommandLine) -> None:
    """The example's routes are under its prefix, its users see their jobs."""
    asyncio.run(create_running_job(cli))
    port = str(free_port())
    arguments = ["examples.embed_in_fastapi:app", "--port", port, "--timeout-graceful-shutdown", "5"]
    running = cli.start_program(sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES.parent), *arguments)
    running.wait_for_error("Uvicorn running on")
    request = urllib.request.Request(f"http://127.0.0.1:{port}/ci/jobs", headers={"X-Token": "token-of-ada"})
    with urllib.request.urlopen(request, timeout=30) as response:
        assert [job["job_id"] for job in json.load(response)] == ["j"]
    running.send(signal.SIGTERM)
    running.end()


def test_without_keys_only_on_this_machine(cli: CommandLine) -> None:
    """`--no-auth` takes no other address; on its own it shows all jobs."""
    refused = cli("serve", "--no-auth", "--host", "0.0.0.0")
    assert (refused.code, "--no-auth is for this machine alone" in refused.err) == (2, True)
    asyncio.run(create_running_job(cli))
    _, url = start_serving(cli, "--no-auth")
    assert [job["job_id"] for job in json.loads(fetch(f"{url}/jobs", ""))] == ["j"]


def test_a_port_that_is_taken(cli: CommandLine) -> None:
    """One line says so."""
    _, url = start_serving(cli)
    refused = cli("serve", "--port", url.rsplit(":", 1)[1])
    assert refused.code == 74
    assert refused.err.count("\n") == 1
    assert "in use" in refused.err


def test_without_the_extra_it_says_what_to_install(cli: CommandLine) -> None:
    """An installation with the command line alone has the command, too."""
    code = "import sys; sys.modules['fastapi'] = None; sys.argv[1:] = ['serve']"
    code += "; from ci_eventstore.cli import main; main()"
    refused = cli.start_program(sys.executable, "-c", code).end()
    assert refused.code == 1
    assert "install ci-eventstore with its extra [server]" in refused.err
