"""One message to one receiver: by TLS, to the address that was judged, and with an end."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ci_eventstore.webhooks.addresses import networks_of
from ci_eventstore.webhooks.delivery import Outcome
from ci_eventstore.webhooks.posting import MAX_HEAD_BYTES, Poster
from tests.deployments.certificates import Authority, Certificate
from tests.receivers import Received, Receiver, receiver, status

SECONDS = 20.0
TOO_LONG = f"the answer's head is longer than {MAX_HEAD_BYTES} bytes"
Addresses = dict[str, list[str]]


@cache
def poster(*allowed: str, seconds: float = SECONDS) -> Poster:
    return Poster(networks_of(allowed or ("127.0.0.1",)), seconds=seconds)


async def post(url: str, by: Poster | None = None) -> Outcome:
    return await (by or poster()).post(url, {"webhook-id": "msg_1"}, b"{}")


def tls_of(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Addresses]:
    """What names stand for; names that aren't there wait until the test ends."""
    found: Addresses = {}
    is_over = threading.Event()

    def look_up(host: str, port: int, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        if host not in found:
            is_over.wait(60)
            raise socket.gaierror("nobody knows")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield found
    is_over.set()


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    return made


async def test_a_verified_certificate_is_needed(authority: Authority, tmp_path: Path) -> None:
    """For that name, by an authority that is known, and not expired."""
    folder = tmp_path / "other"
    folder.mkdir()
    good, other_name = authority.issue("good"), authority.issue("elsewhere", hosts=["elsewhere.example"])
    unknown = Authority(folder).issue("unknown")
    outcomes, by = [], Poster(networks_of(["127.0.0.1"]), seconds=SECONDS)
    for certificate in (good, other_name, unknown):
        async with receiver(tls=tls_of(certificate)) as opened:
            outcomes.append(await post(f"https://localhost:{opened.port}/hook", by))
            assert len(opened.received) == (certificate is good)
    assert outcomes[0] == Outcome(204)
    assert ["TLS failed" in outcome.error for outcome in outcomes[1:]] == [True, True]


async def test_what_was_judged_is_what_is_connected_to(names: Addresses) -> None:
    """A name that stands for several addresses leads to the good ones alone, and is looked up once."""
    async with receiver(host="127.0.0.2") as allowed, receiver() as private:
        names["a.example"] = ["127.0.0.1", "127.0.0.2"]
        assert await post(f"http://a.example:{allowed.port}/", poster("127.0.0.2")) == Outcome(204)
        assert allowed.received[0].headers["host"] == f"a.example:{allowed.port}"
        names["a.example"] = ["127.0.0.1"]
        refused = await post(f"http://a.example:{private.port}/", poster("127.0.0.2"))
        assert "may not be reached" in refused.error
        # The next one is tried if nobody is at the first.
        names["a.example"] = ["127.0.0.3", "127.0.0.2"]
        assert await post(f"http://a.example:{allowed.port}/", poster("127.0.0.0/8")) == Outcome(204)
        assert private.connections == 0


async def test_proxies_of_the_environment_are_not_asked(names: Addresses, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message goes to its address, and has nothing of this machine's with it."""
    async with receiver() as proxy, receiver(host="127.0.0.2") as opened:
        for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://ada:secret@127.0.0.1:{proxy.port}")
        names["a.example"] = ["127.0.0.2"]
        assert await post(f"http://a.example:{opened.port}/", poster("127.0.0.2")) == Outcome(204)
        assert (proxy.connections, [name for name in opened.received[0].headers if "auth" in name]) == (0, [])


async def test_a_slow_look_up_keeps_nobody_waiting(names: Addresses) -> None:
    """Not even a hundred of them, and the time limit is for them, too."""
    async with receiver() as opened:
        names["a.example"] = ["127.0.0.1"]
        shared = poster()
        slow = [asyncio.create_task(post(f"https://slow-{number}.example/", shared)) for number in range(100)]
        assert await post(f"http://a.example:{opened.port}/", shared) == Outcome(204)
        assert not any(task.done() for task in slow)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert "no answer within" in (await post("https://slow.example/", poster(seconds=0.05))).error


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n" + status(200), Outcome(200)),
        (status(302, "location: http://127.0.0.1:1/"), Outcome(302)),
        (status(503, "retry-after: 7"), Outcome(503, retry_after_seconds=7)),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 100, Outcome(error="there is no end of answers that announce another one")),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * MAX_HEAD_BYTES, Outcome(error=TOO_LONG)),
        (b"", Outcome(error="the connection ended without an answer")),
        (b"HTTP/1.1 200 OK\r\n", Outcome(error="the connection ended without an answer")),
        (b"220 mail.example ESMTP\r\n\r\n", Outcome(error="the answer isn't HTTP")),
    ],
)  # fmt: skip
async def test_answers(answer: bytes, expected: Outcome) -> None:
    """The first head that is an answer counts; nothing else is believed."""

    async def give(request: Received) -> bytes:
        return answer

    async with receiver(give) as opened:
        assert await post(opened.url) == expected


async def test_an_endless_body_is_not_read() -> None:
    """The message is accepted with the head, and the connection ends."""
    ended = asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
        except OSError:
            ended.set()

    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    async with server:
        assert await post(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/") == Outcome(200)
        await asyncio.wait_for(ended.wait(), 30)


async def test_a_dripping_answer_has_an_end(free_receiver: Receiver) -> None:
    """However often something comes, the time limit is for all of it."""

    async def never(request: Received) -> bytes:
        await asyncio.Event().wait()
        return b""

    free_receiver.answer = never
    outcome = await post(free_receiver.url, poster(seconds=0.1))
    assert outcome == Outcome(error="no answer within 0.1 s")


@pytest.fixture
async def free_receiver() -> Any:
    async with receiver() as opened:
        yield opened


async def test_nobody_is_there(free_receiver: Receiver) -> None:
    """An address where nobody listens is a failure like others."""
    async with receiver() as gone:
        url = gone.url
    assert "it can't be reached" in (await post(url)).error
