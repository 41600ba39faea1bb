"""What is sent to a receiver, and what is made of its answer."""

import pytest

from ci_eventstore.webhooks.delivery import Outcome
from ci_eventstore.webhooks.posting import request, status_in


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
        ("https://[2606:4700::1111]:8443/", b"POST / HTTP/1.1", b"host: [2606:4700::1111]:8443"),
    ],
)
def test_requests(url: str, line: bytes, host: bytes) -> None:
    """Host and path are the address's, and the body is as long as it says."""
    head, _, body = request(url, {"webhook-id": "msg_1"}, b"{}").partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[:2] == [line, host]
    assert {b"webhook-id: msg_1", b"content-length: 2", b"connection: close"} <= set(lines)
    assert body == b"{}"
