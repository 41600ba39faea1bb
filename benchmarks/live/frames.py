"""Read what an HTTP server streamed, as bytes: chunks, then server-sent events. Pure."""

import json
from collections.abc import Iterator


def body_of(response: bytes) -> bytes:
    """Return the body of a chunked response that came whole; ValueError if it isn't one."""
    head, blank, rest = response.partition(b"\r\n\r\n")
    if not blank or b" 200 " not in head.split(b"\r\n", 1)[0] or b"transfer-encoding: chunked" not in head.lower():
        raise ValueError(f"not a chunked response: {head[:200]!r}")
    return b"".join(_chunks(rest))


def _chunks(rest: bytes) -> Iterator[bytes]:
    start = 0
    while True:
        end = rest.index(b"\r\n", start)
        size = int(rest[start:end], 16)
        if not size:
            return
        yield rest[end + 2 : end + 2 + size]
        start = end + 2 + size + 2


def log_of(body: bytes) -> tuple[str, int]:
    """Return the log that a stream carried, and how many events with an id; ValueError if their ids have holes."""
    texts, last = [], 0
    for frame in body.decode().replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in frame.split("\n") if ": " in line and not line.startswith(":"))
        # What has a name is no event, though it may have an id: a client goes on after it.
        if "id" not in fields or "event" in fields:
            continue
        if int(fields["id"]) != last + 1:
            raise ValueError(f"event {fields['id']} comes after {last}")
        last += 1
        event = json.loads(fields["data"])
        if event["type"] == "log":
            texts.append(event["data"])
    return "".join(texts), last
