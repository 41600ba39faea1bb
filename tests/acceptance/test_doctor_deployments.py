"""`ci-eventstore doctor` on servers that Sentinels watch, and on one that speaks TLS. Slow, as they start servers."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from tests.acceptance.command_line import Ended
from tests.deployments import TLSServer, Watched, running_sentinels, running_tls_server
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
def encrypted() -> Iterator[TLSServer]:
    """A server whose certificate, and that of its clients, holds for some hours."""
    with running_tls_server(valid_for=timedelta(hours=12)) as started:
        yield started


def examined(here: Here, url: str) -> list[tuple[str, str, str]]:
    """Return check, severity and text of each finding."""
    findings = json.loads(here("doctor", "--json", "--url", url).out)
    return [(one["check"], one["severity"], one["what"]) for one in findings]


def of_check(found: list[tuple[str, str, str]], check: str) -> list[tuple[str, str]]:
    """Return severities and texts of one check."""
    return [(severity, what) for its, severity, what in found if its == check]


def test_sentinels(here: Here, watched: Watched) -> None:
    """All is well with three; one that is away is a warning, and a URL that names some of them a note."""
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
