"""A server or store that can't be used: one clear error, and nothing written."""

import asyncio
import subprocess
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from ci_common.models import Job, JobEvent
from ci_eventstore.connection import node
from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import (
    AuthenticationError,
    ConfigurationError,
    NotInitializedError,
    StoreError,
    StoreFormatError,
    StoreFullError,
    StoreUnavailableError,
    UnsuitableServerError,
)
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.store_format import FORMAT_VERSION
from tests.servers import RealServer, find_redis7, find_valkey, free_port
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def other() -> Iterator[RealServer]:
    """A server that each test sets up wrongly."""
    with RealServer(find_valkey(), tcp=True) as started:
        yield started


async def refusal(url: str) -> StoreError:
    """Return the error that opening the store at a URL raises."""
    with pytest.raises(StoreError) as caught:
        await RedisJobRepository.from_url(url).initialize()
    return caught.value


@asynccontextmanager
async def configured(server: RealServer, name: str, value: str) -> AsyncIterator[Redis]:
    """Change a setting of a server for a while."""
    client = Redis(port=server.port)
    before = (await client.config_get(name))[name]
    await client.config_set(name, value)
    yield client
    await client.config_set(name, before or "")
    await client.aclose()


async def test_a_server_that_isnt_there() -> None:
    """A wrong address is told soon, with the address."""
    port = free_port()
    error = await refusal(f"redis://127.0.0.1:{port}")
    assert isinstance(error, StoreUnavailableError)
    assert str(port) in str(error)
    assert isinstance(await refusal("unix:///tmp/there/is/no/socket"), StoreUnavailableError)


async def test_a_server_that_asks_for_a_password(other: RealServer) -> None:
    """Without the password, or with a wrong one, the error says where it belongs."""
    async with configured(other, "requirepass", "sesame"):
        for credentials in ("", ":wrong@"):
            error = await refusal(f"redis://{credentials}127.0.0.1:{other.port}")
            assert isinstance(error, AuthenticationError)
            assert "URL" in str(error)
        async with RedisJobRepository.from_url(f"redis://:sesame@127.0.0.1:{other.port}") as repository:
            assert await repository.list_jobs() == []
        other_client = Redis(port=other.port, password="sesame")
        await other_client.config_set("requirepass", "")
        await other_client.aclose()


async def test_a_server_that_may_evict(other: RealServer) -> None:
    """A policy that throws keys away is refused before anything is written."""
    async with configured(other, "maxmemory-policy", "allkeys-lru") as changed:
        await changed.flushall()
        error = await refusal(other.url)
        assert isinstance(error, UnsuitableServerError)
        assert "allkeys-lru" in str(error)
        assert await changed.dbsize() == 0


async def test_a_server_of_version_6() -> None:
    """An old server is told by its version. None runs here, so one is played that says what Redis 6.2 says."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = b"# Nodes\r\nredis_version:6.2.14\r\nredis_mode:standalone\r\nrole:master\r\n"
        while request := await reader.read(4096):
            commands = request.upper().count(b"*")
            reply = b"$%d\r\n%s\r\n" % (len(said), said) if b"INFO\r\n" in request.upper() else b"+OK\r\n"
            writer.write(reply if b"INFO\r\n" in request.upper() and commands == 1 else b"+OK\r\n" * commands)
        writer.close()

    async with await asyncio.start_server(play, "127.0.0.1", 0) as played:
        error = await refusal(f"redis://127.0.0.1:{played.sockets[0].getsockname()[1]}")
    assert isinstance(error, UnsuitableServerError)
    assert "6.2.14" in str(error)


async def test_a_server_that_repeats_the_password() -> None:
    """A server that doesn't know AUTH repeats its arguments; what is told of that has no password."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(b"-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(play, "127.0.0.1", 0) as played:
        port = played.sockets[0].getsockname()[1]
        for url in (f"redis://:hunter2@127.0.0.1:{port}", f"redis://127.0.0.1:{port}?password=hunter2"):
            error = await refusal(url)
            assert "unknown command 'AUTH'" in str(error)
            assert "hunter2" not in "".join(traceback.format_exception(error))


async def test_a_store_of_another_format(other: RealServer) -> None:
    """Data of another format version is left alone; so is one of another partition count, unless none is asked for."""
    async with RedisJobRepository.from_url(other.url, prefix="old", partitions=4):
        pass
    async with RedisJobRepository.from_url(other.url, prefix="old", access="read") as repository:
        assert repository.engine.keys.partitions == 4
    plain = Redis(port=other.port)
    for partitions, says in [(1, "4 partitions, not 1"), (64, "partitions=4")]:
        with pytest.raises(StoreFormatError, match=says):
            await RedisJobRepository.from_url(other.url, prefix="old", partitions=partitions).initialize()
    for version, says in [
        (FORMAT_VERSION + 1, "program version that wrote it"),
        (1, "`ci-eventstore upgrade` once"),
        (0, "finishes it"),
    ]:
        await plain.hset("{old:accounts}:store", "format", version)
        for access in ("write", "read"):
            with pytest.raises(StoreFormatError, match=says):
                await RedisJobRepository.from_url(other.url, prefix="old", partitions=4, access=access).initialize()
    assert await plain.keys("{old:*") == [b"{old:accounts}:store"]
    await plain.aclose()


async def test_a_full_server_takes_no_half_write(other: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory, a write is refused as a whole, and works again when there is room."""
    monkeypatch.setattr(node, "FULL_PATIENCE_SECONDS", 0.1)
    async with RedisJobRepository.from_url(other.url, prefix="full") as repository:
        await repository.create_job(Job(id="j", status="running"))
        async with configured(other, "maxmemory", "1mb"):
            for write in (
                repository.add_event("j", JobEvent("log", "x")),
                repository.update_job_status("j", "failed"),
                repository.create_job(Job(id="k", status="queued")),
            ):
                with pytest.raises(StoreFullError, match="maxmemory"):
                    await write
        assert await repository.verify() == []
        assert [job.status for job in await repository.list_jobs()] == ["running"]
        await repository.add_event("j", JobEvent("log", "x"))
        assert [event.id for event in await repository.get_events_since("j", 0)] == [1]


async def test_a_write_waits_for_room(other: RealServer) -> None:
    """A server that is out of memory for a moment costs a write time, and nothing else."""
    async with RedisJobRepository.from_url(other.url, prefix="brief") as repository:
        await repository.create_job(Job(id="j", status="running"))
        async with configured(other, "maxmemory", "1"):
            write = asyncio.create_task(repository.add_event("j", JobEvent("log", "x")))
            await wait_until(lambda: repository.engine.nodes.counters.retries > 2)
        await write
        assert [event.id for event in await repository.get_events_since("j", 0)] == [1]
        assert await repository.verify() == []


@pytest.mark.parametrize("prefix", ["", "a b", "{x}"])
def test_a_bad_prefix(prefix: str) -> None:
    """A prefix is refused before anything is connected."""
    with pytest.raises(ConfigurationError, match="prefix"):
        RedisJobRepository.from_url("redis://127.0.0.1:1", prefix=prefix)


async def test_a_repository_that_isnt_open(other: RealServer) -> None:
    """Before initialize() and after close(), every call says so."""
    repository = RedisJobRepository.from_url(other.url)
    with pytest.raises(NotInitializedError):
        await repository.list_jobs()
    async with repository:
        await repository.list_jobs()
    with pytest.raises(NotInitializedError):
        await repository.list_jobs()


async def test_redis_py_is_configured_in_one_way(other: RealServer) -> None:
    """Whatever a URL or a given client says, the settings that safety depends on are ours."""
    url = f"redis://127.0.0.1:{other.port}?decode_responses=True&protocol=3&socket_timeout=0.001&max_connections=1"
    given = Redis(port=other.port, decode_responses=True, protocol=3, socket_timeout=0.001, max_connections=1)
    for repository in (RedisJobRepository.from_url(url), RedisJobRepository(given)):
        [server] = Nodes(repository._engines.deployment).all
        for pooled in (server.link.commands, server.link.listening):
            connection = pooled.connection_pool.make_connection()
            assert connection.protocol == 2
            assert connection.socket_timeout == 10
            assert connection.retry.get_retries() == 0
            assert not connection.encoder.decode_responses
            assert not pooled.connection_pool.maint_notifications_enabled()
            assert pooled.connection_pool.max_connections >= 32
        await server.close()
        async with repository:
            await repository.list_jobs()
    await given.aclose()


async def test_a_url_of_a_unix_socket(other: RealServer) -> None:
    """`unix://` reaches the same server."""
    async with RedisJobRepository.from_url(f"unix://{other.socket_path}") as repository:
        assert await repository.list_users() == []
    assert from_url(f"unix://{other.socket_path}?db=3").connection_options["db"] == 3


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RealServer, Path]]:
    """A server that speaks TLS alone, with a certificate that it made itself."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = ["-keyout", str(key), "-out", str(certificate)]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made, *names]
    subprocess.run(command, check=True, capture_output=True)
    files = (f"tls-cert-file {certificate}", f"tls-key-file {key}", "tls-auth-clients no")
    with RealServer(find_redis7(), f"tls-port {free_port()}", *files) as started:
        yield started, certificate


@pytest.mark.needs("redis7")
async def test_certificates(secured: tuple[RealServer, Path]) -> None:
    """A certificate that nobody vouches for is told at once; one that is known is as good as a plain connection."""
    server, certificate = secured
    port = next(line.split()[1] for line in server.configuration if line.startswith("tls-port"))
    began = time.monotonic()
    for scheme in ("rediss", "valkeys"):
        error = await refusal(f"{scheme}://localhost:{port}")
        assert isinstance(error, StoreUnavailableError)
        assert "certificate isn't accepted, self-signed certificate" in str(error)
    assert time.monotonic() - began < 2
    error = await refusal(f"redis://localhost:{port}")
    assert isinstance(error, StoreUnavailableError)
    async with RedisJobRepository.from_url(f"valkeys://localhost:{port}?ssl_ca_certs={certificate}") as repository:
        await repository.create_job(Job(id="j", status="running"))
        await repository.add_event("j", JobEvent("log", "x"))
        assert await repository.verify() == []
