"""Where messages may go, and what is made of answers."""

import pytest

from ci_eventstore.webhooks.delivery import Outcome
from ci_eventstore.webhooks.posting import may_be_reached, networks_of, request, status_in

PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
PRIVATE = [
    *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "fec0::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::1", "::127.0.0.1"),
    *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "", "a.example", "127.1"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_for_tls(address: str) -> None:
    """Plain ones would be read by whoever is in between."""
    assert may_be_reached(address, [])
    assert not may_be_reached(address, [], is_plain=True)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_for_nobody(address: str) -> None:
    """In whatever form they are written."""
    assert not may_be_reached(address, [])


def test_the_operator_may_allow_some() -> None:
    """One address or a network of them, also without TLS; others stay as they are."""
    allowed = networks_of(["10.1.0.0/16", "127.0.0.1", "fd00::/8"])
    for address in ("10.1.2.3", "127.0.0.1", "::ffff:10.1.2.3", "fd00::1"):
        assert may_be_reached(address, allowed, is_plain=True)
    for address in ("10.2.0.1", "127.0.0.2", "fe80::1"):
        assert not may_be_reached(address, allowed)


@pytest.mark.parametrize("text", ["10.1.2.3/16", "localhost", "", "10.0.0.0/33"])
def test_what_is_no_network(text: str) -> None:
    """An operator's mistake is no network that allows more."""
    with pytest.raises(ValueError, match=r"IPv4 or IPv6 network|host bits set"):
        networks_of([text])


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", Outcome(204)),
        (b"HTTP/1.0 500\r\nRetry-After: 7\r\n\r\n", Outcome(500, retry_after_seconds=7)),
        (b"HTTP/1.1 503 x\r\na: b\r\nretry-after:120 \r\nc: d\r\n\r\n", Outcome(503, retry_after_seconds=120)),
        (b"HTTP/1.1 503 x\r\nretry-after: Fri, 31 Dec 1999 23:59:59 GMT\r\n\r\n", Outcome(503)),
        (b"HTTP/2 200\r\n\r\n", None),
        (b"HTTP/1.1 2000\r\n\r\n", None),
        (b"SSH-2.0-OpenSSH\r\n\r\n", None),
        (b"\r\n\r\n", None),
    ],
)
def test_heads_of_answers(head: bytes, expected: Outcome | None) -> None:
    """The status counts, and for how long to wait."""
    assert status_in(head) == expected


@pytest.mark.parametrize(
    ("url", "line", "host"),
    [
        ("https://a.example", b"POST / HTTP/1.1", b"host: a.example"),
        ("https://a.example:8443/x/y?z=1", b"POST /x/y?z=1 HTTP/1.1", b"host: a.example:8443"),
        ("http://10.1.2.3/?q", b"POST /?q HTTP/1.1", b"host: 10.1.2.3"),
    ],
)
def test_requests(url: str, line: bytes, host: bytes) -> None:
    """Host and path are the address's, and the body is as long as it says."""
    head, _, body = request(url, {"webhook-id": "msg_1"}, b"{}").partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[:2] == [line, host]
    assert {b"webhook-id: msg_1", b"content-length: 2", b"connection: close"} <= set(lines)
    assert body == b"{}"
