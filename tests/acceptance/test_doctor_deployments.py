"""`ci-eventstore doctor` on a cluster, with Sentinels, and with TLS. Slow, as they start servers."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from ci_eventstore import RedisJobRepository
from ci_eventstore.keys import Keys
from tests.acceptance.command_line import Ended
from tests.deployments import Cluster, TLSServer, Watched, running_cluster, running_sentinels, running_tls_server
from tests.servers import wait_until

Here = Callable[..., Ended]
#: What a primary needs that doctor has nothing to say of.
CAREFUL = ("min-replicas-to-write 1", "min-replicas-max-lag 10")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    """A primary, a replica and three Sentinels."""
    with running_sentinels(replicas=1, configuration=CAREFUL) as started:
        yield started


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three masters without replicas."""
    with running_cluster(replicas=0) as started:
        yield started


@pytest.fixture(scope="module")
def encrypted() -> Iterator[TLSServer]:
    """A server whose certificate, and that of its clients, holds for some hours."""
    with running_tls_server(valid_for=timedelta(hours=12)) as started:
        yield started


def examined(here: Here, url: str) -> list[tuple[str, str, str]]:
    """Return check, severity and text of each finding."""
    findings = json.loads(here("doctor", "--json", "--url", url).out)
    return [(one["check"], one["severity"], one["what"]) for one in findings]


def lines_of(here: Here, url: str) -> list[str]:
    """Return what people see."""
    return here("doctor", "--url", url).text.splitlines()


def of_check(found: list[tuple[str, str, str]], check: str) -> list[tuple[str, str]]:
    """Return severities and texts of one check."""
    return [(severity, what) for its, severity, what in found if its == check]


def test_sentinels(here: Here, watched: Watched) -> None:
    """All is well with three; a URL that names some of them is a note, one that is away a warning, two an error."""
    whole = [("ok", f"3 Sentinels can make a failover; the primary is {watched.primary.address}")]
    near = [("ok", "1 replica, 1 of them near enough to count")]

    def is_whole() -> bool:
        found = examined(here, watched.url)
        return (of_check(found, "sentinels"), of_check(found, "replication")) == (whole, near)

    # They have to find each other first.
    wait_until(is_whole, "the Sentinels")
    found = examined(here, watched.url)
    assert of_check(found, "channels") == [("ok", "a message is heard")]
    first = watched.sentinels[0]
    one = f"redis+sentinel://{first.address}/{watched.url.rpartition('/')[2]}"
    assert of_check(examined(here, one), "sentinels") == [("note", "the URL names 1 of 3 Sentinels")]
    first.kill()
    away = f"the Sentinel {first.address} gives no answer: "
    told = of_check(examined(here, watched.url), "sentinels")
    assert any(severity == "warning" and what.startswith(away) for severity, what in told), told
    watched.sentinels[1].kill()
    alone = ("error", f"the Sentinel {watched.sentinels[2].address} sees 1 of 3 Sentinels: a failover takes 2")
    wait_until(lambda: alone in of_check(examined(here, watched.url), "sentinels"), "that the last one notices")


def test_a_cluster(here: Here, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each server is looked at; one that is away takes only its own partitions with it."""
    names = {node.address for node in cluster.primaries()}
    assert here("run", "--url", cluster.url, "--", "true").code == 0
    findings = json.loads(here("doctor", "--json", "--url", cluster.url).out)
    for check in ("connection", "version", "replication", "latency", "channels", "forecast"):
        assert {one["node"] for one in findings if one["check"] == check} == names, check
    found = examined(here, cluster.url)
    assert of_check(found, "partitions") == [("ok", "64 partitions on 3 servers")]
    assert {severity for severity, _ in of_check(found, "channels")} == {"ok"}
    assert {severity for severity, _ in of_check(found, "replication")} == {"warning"}
    assert of_check(found, "unsealed") == [("ok", "1 job of 1 that have ended aren't sealed")]
    assert any(line.startswith("ok       version       all servers: ") for line in lines_of(here, cluster.url))
    monkeypatch.setenv("CI_EVENTSTORE_PREFIX", "small")

    async def make() -> None:
        async with RedisJobRepository.from_url(cluster.url, prefix="small", partitions=1):
            pass

    asyncio.run(make())
    [(severity, what)] = of_check(examined(here, cluster.url), "partitions")
    assert (severity, what) == ("warning", "1 partition on 3 servers: some servers have none")


def test_a_cluster_whose_node_is_away(here: Here, cluster: Cluster) -> None:
    """It is named, and what the others have is looked at all the same; nothing takes long."""
    assert here("run", "--url", cluster.url, "--", "true").code == 0
    keeper = cluster.owner_of_key(Keys(os.environ["CI_EVENTSTORE_PREFIX"]).store)
    away = next(node for node in cluster.primaries() if node is not keeper)
    away.kill()
    found = examined(here, cluster.url)
    assert sorted(severity for severity, _ in of_check(found, "connection")) == ["error", "ok", "ok"]
    [(severity, what)] = of_check(found, "partitions")
    assert severity == "error"
    assert what.endswith("of 64 partitions are away: their jobs can't be used")
    assert [severity for severity, _ in of_check(found, "channels")] == ["ok", "ok"]
    assert [severity for severity, _ in of_check(found, "queues")] == ["warning"]
    assert [severity for severity, _ in of_check(found, "unsealed")] == ["ok"]
    assert [severity for severity, _ in of_check(found, "archive")] == ["ok"]


@pytest.mark.needs("redis7")
def test_certificates_that_expire_soon(here: Here, encrypted: TLSServer) -> None:
    """That of the server, and that of the client, which both hold for hours."""
    found = of_check(examined(here, encrypted.url), "certificates")
    assert [(severity, what.partition(" certificate expires on ")[0]) for severity, what in found] == [
        ("error", "the server's"),
        ("error", "the client's"),
    ]


@pytest.mark.needs("redis7")
def test_a_server_whose_certificate_isnt_trusted(here: Here, encrypted: TLSServer) -> None:
    """It is a finding of the connection, and no traceback."""
    [(check, severity, what)] = examined(here, f"rediss://127.0.0.1:{encrypted.port}")
    assert (check, severity) == ("connection", "error")
    assert "certificate" in what
