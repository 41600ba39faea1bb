"""TLS with Debian's redis-server: what is accepted, and what is said when it isn't."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ci_common.models import Job, JobEvent
from ci_eventstore.connection.connections import PINNED
from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.repository import RedisJobRepository
from tests.contract.deployments import new_prefix
from tests.deployments import TLSServer, running_tls_server
from tests.deployments.certificates import Authority
from tests.deployments.members import Member, launch_all, remove_all
from tests.servers import RealServer, find_redis7
from tests.waiting import wait_until

pytestmark = pytest.mark.needs("redis7")


@pytest.fixture(scope="module")
def server() -> Iterator[TLSServer]:
    """A server that wants a certificate of each client."""
    with running_tls_server() as started:
        yield started


async def why_refused(url: str) -> str:
    """Return in one line why the store at a URL can't be opened."""
    with pytest.raises(StoreUnavailableError) as caught:
        await RedisJobRepository.from_url(url).initialize()
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


async def use(url: str) -> None:
    """Write a job and follow it to its end."""
    async with RedisJobRepository.from_url(url, prefix=new_prefix()) as repository:
        await repository.create_job(Job(id="j", status="running"))
        await repository.add_event("j", JobEvent("log", "line\n"))
        following = repository.follow_events("j")
        assert (await anext(following)).data == "line\n"
        await following.aclose()
        assert await repository.verify() == []


async def test_a_store_over_tls(server: TLSServer) -> None:
    """With its authority known and a certificate of its own, a client works as over a plain connection."""
    await use(server.url)
    await use(server.url.replace("rediss", "valkeys").replace("127.0.0.1", "localhost"))


async def test_an_authority_that_nobody_named(server: TLSServer, tmp_path: Path) -> None:
    """A certificate of an unknown authority isn't accepted, nor is one of another one than is named."""
    plain = f"rediss://{server.address}?ssl_certfile={server.client.certificate}&ssl_keyfile={server.client.key}"
    assert "certificate isn't accepted, self-signed certificate in certificate chain" in await why_refused(plain)
    other = Authority(tmp_path, "other")
    assert "name the file of its authority by ssl_ca_certs" in await why_refused(f"{plain}&ssl_ca_certs={other.file}")


async def test_a_client_without_a_certificate_or_with_anothers(server: TLSServer, tmp_path: Path) -> None:
    """The server's refusal is told as such, whether it says why or just hangs up."""
    url = f"rediss://{server.address}?ssl_ca_certs={server.authority.file}"
    assert "client's certificate" in await why_refused(url)
    mine = Authority(tmp_path, "mine").issue("client", hosts=())
    assert "client's certificate" in await why_refused(f"{url}&ssl_certfile={mine.certificate}&ssl_keyfile={mine.key}")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_certificate_for_another_host(host: str) -> None:
    """It is refused by name and by address, unless the check is switched off."""
    with running_tls_server(hosts=("store.example",), asks_clients=False) as started:
        url = f"rediss://{host}:{started.port}?ssl_ca_certs={started.authority.file}"
        why = await why_refused(url)
        assert f"certificate is not valid for '{host}': use a name that it has" in why
        await use(f"{url}&ssl_check_hostname=no")


async def test_a_certificate_that_has_expired() -> None:
    """It says what to do."""
    with running_tls_server(valid_for=timedelta(hours=-1)) as started:
        assert "certificate has expired: renew it" in await why_refused(started.url)


@pytest.mark.slow
async def test_tls_on_one_side_only(server: TLSServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that speaks TLS alone has no plain port; each side's silence is told with what it may mean."""
    assert "perhaps it speaks TLS" in await why_refused(f"redis://{server.address}")
    monkeypatch.setitem(PINNED, "socket_connect_timeout", 0.5)
    with RealServer(find_redis7(), tcp=True) as plain:
        assert "doesn't speak TLS" in await why_refused(f"rediss://127.0.0.1:{plain.port}")


async def test_a_certificate_that_is_renewed_while_the_store_is_open(server: TLSServer) -> None:
    """New connections read the files again: the certificate of before isn't needed any more."""
    async with RedisJobRepository.from_url(server.url) as repository:
        certificate, key = (path.read_bytes() for path in server.client)
        renewed = server.authority.issue("client", hosts=())
        assert renewed == server.client
        assert renewed.certificate.read_bytes() != certificate
        server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await repository.create_job(Job(id="renewed", status="running"))
    assert key != server.client.key.read_bytes()


@pytest.fixture
async def watched(server: TLSServer) -> AsyncIterator[str]:
    """The options of the server's URL, and a Sentinel that speaks TLS too."""
    own = server.authority.issue("sentinel")
    files = (
        f"tls-cert-file {own.certificate}",
        f"tls-key-file {own.key}",
        f"tls-ca-cert-file {server.authority.file}",
    )
    sentinel = Member(find_redis7())
    sentinel.configuration = [*files, "tls-replication yes", f"sentinel monitor ci 127.0.0.1 {server.port} 1"]
    sentinel.arguments = ["--sentinel", "--port", "0", "--tls-port", str(sentinel.port)]
    try:
        launch_all([sentinel])
        await wait_until(lambda: sentinel.ask("SENTINEL", "CKQUORUM", "ci"))
        yield f"rediss+sentinel://{sentinel.address}/ci?{server.url.partition('?')[2]}"
    finally:
        remove_all([sentinel])


@pytest.mark.slow
async def test_sentinels_over_tls(watched: str, server: TLSServer) -> None:
    """Certificates are for the Sentinels as for the server that they name, by its address."""
    await use(watched)
    why = await why_refused(watched.partition("?")[0] + f"?ssl_ca_certs={server.authority.file}")
    assert "client's certificate" in why


@pytest.mark.slow
async def test_a_cluster_over_tls() -> None:
    """Nodes are known by addresses, which their certificates have to be for."""
    configuration = ("cluster-enabled yes", "tls-cluster yes", "cluster-announce-ip 127.0.0.1")
    with running_tls_server(hosts=("127.0.0.1",), configuration=configuration) as node:
        node.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
        url = node.url.replace("rediss", "valkeys+cluster")
        await use(url)
        # One that knows the node by a name is led to its address; the name isn't in the certificate.
        assert "not valid for 'localhost'" in await why_refused(url.replace("127.0.0.1", "localhost"))
        await use(url.replace("127.0.0.1", "localhost:1,127.0.0.1"))
        assert "client's certificate" in await why_refused(
            f"rediss+cluster://{node.address}?ssl_ca_certs={node.authority.file}"
        )
