"""Clients as people write them, cut off after every message: none loses or doubles anything, whatever the log has.

A browser is one more: `test_browser.py`.
"""

import asyncio
import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import httpx
import httpx_sse
import pytest
import requests

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web.streams.sse import readable
from tests.integration.web.serving import Account, Served
from tests.separators import SEPARATORS, text_with

pytestmark = pytest.mark.slow  # A connection for each message, of each client.

TEXTS = [text_with(separator) for separator in SEPARATORS]
EXPECTED = [{"type": "log", "data": readable(text)} for text in TEXTS] + [{"type": "complete", "success": True}]


class Client:
    """One that comes back after each message with what it knows; it knows nothing but what it was sent."""

    def __init__(self, web: Served, account: Account, *, from_beginning: bool) -> None:
        self.url = f"{web.url}/jobs/j/stream"
        self.headers = account.headers
        self.seen: list[Any] = []
        #: How `EventSource` counts, and how those do that only parse lines.
        self.last_id = ""
        self.position: int | None = 0 if from_beginning else None
        self.address = self.url + ("?from_beginning=true" if from_beginning else "")

    def read_one(self, *, only_state: bool = False) -> bool:
        """Connect, read up to the next visible event, or up to `state`, and leave; False: there is no more."""
        raise NotImplementedError

    def take(self, data: str, *, only_state: bool) -> bool:
        """Take a message; True: it is one to leave after."""
        message = json.loads(data)
        if message["type"] == "state":
            self.position = message["position"]
            return only_state
        if message["type"] in ("log", "complete"):
            assert self.position is not None
            self.position += 1
            self.seen.append(message)
            return True
        return False

    def take_lines(self, lines: Iterator[str], *, only_state: bool) -> bool:
        """Take what lines have that begin with `data: `."""
        return any(self.take(line[6:], only_state=only_state) for line in lines if line.startswith("data: "))

    @property
    def counted_address(self) -> str:
        """The address with the number of events that it has."""
        return self.url if self.position is None else f"{self.url}?last_event_id={self.position}"


class HttpxSse(Client):
    """httpx-sse, with the newest id."""

    def read_one(self, *, only_state: bool = False) -> bool:
        """Read with its iterator of events."""
        headers = {**self.headers, **({"Last-Event-ID": self.last_id} if self.last_id else {})}
        with (
            httpx.Client(trust_env=False, timeout=30) as client,
            httpx_sse.connect_sse(client, "GET", self.address, headers=headers) as source,
        ):
            if source.response.status_code == 204:
                return False
            for event in source.iter_sse():
                self.last_id = event.id
                if self.take(event.data, only_state=only_state):
                    return True
        return False


class HttpxLines(Client):
    """httpx's lines."""

    def read_one(self, *, only_state: bool = False) -> bool:
        """Read with `iter_lines`."""
        with (
            httpx.Client(trust_env=False, timeout=30) as client,
            client.stream("GET", self.counted_address, headers=self.headers) as response,
        ):
            return self.take_lines(response.iter_lines(), only_state=only_state)


class RequestsText(Client):
    """The lines of requests, as text."""

    def read_one(self, *, only_state: bool = False) -> bool:
        """Read with `iter_lines`."""
        with requests.get(self.counted_address, headers=self.headers, stream=True, timeout=30) as response:
            return self.take_lines(response.iter_lines(1, decode_unicode=True), only_state=only_state)


class RequestsBytes(Client):
    """The lines of requests, as bytes."""

    def read_one(self, *, only_state: bool = False) -> bool:
        """Read with `iter_lines`."""
        with requests.get(self.counted_address, headers=self.headers, stream=True, timeout=30) as response:
            return self.take_lines((line.decode() for line in response.iter_lines(1)), only_state=only_state)


class Plain(Client):
    """The standard library's connection, line by line."""

    def read_one(self, *, only_state: bool = False) -> bool:
        """Read with `readline`."""
        address = urlsplit(self.counted_address)
        with closing(http.client.HTTPConnection(address.netloc, timeout=30)) as connection:
            connection.request("GET", f"{address.path}?{address.query}", headers=self.headers)
            response = connection.getresponse()
            lines = iter(response.readline, b"")
            return self.take_lines((line.decode() for line in lines), only_state=only_state)


class Splitting(Client):
    """One that puts everything together and splits it as Python splits text."""

    def read_one(self, *, only_state: bool = False) -> bool:
        """Read pieces, and look at all lines that are whole."""
        with requests.get(self.counted_address, headers=self.headers, stream=True, timeout=30) as response:
            return self.take_lines(split(response.iter_content(7)), only_state=only_state)


def split(pieces: Iterator[bytes]) -> Iterator[str]:
    """Yield the lines of some pieces, as `str.splitlines` finds them."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for part in whole:
            yield from part.decode().splitlines()


CLIENTS: list[Callable[..., Client]] = [HttpxSse, HttpxLines, RequestsText, RequestsBytes, Plain, Splitting]


@pytest.mark.parametrize("kind", CLIENTS)
async def test_cut_off_after_each_message_of_a_job_that_has_ended(
    web: Served, ada: Account, repository: RedisJobRepository, kind: Callable[..., Client]
) -> None:
    """Each event comes once, in order, as it was printed, then there is no more."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    await repository.add_events("j", [JobEvent("log", text) for text in TEXTS])
    await repository.complete_job("j", True, utc_now())
    client = kind(web, ada, from_beginning=True)
    assert await asyncio.to_thread(client.read_one, only_state=True)
    while await asyncio.to_thread(client.read_one):
        pass
    assert client.seen == EXPECTED


@pytest.mark.parametrize("old", [0, 3])
@pytest.mark.parametrize("kind", CLIENTS)
async def test_cut_off_after_each_message_from_now_on(
    web: Served, ada: Account, repository: RedisJobRepository, kind: Callable[..., Client], old: int
) -> None:
    """A client that joins a running job and is away whenever something comes gets it, and nothing from before."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    await repository.add_events("j", [JobEvent("log", "old") for _ in range(old)])
    client = kind(web, ada, from_beginning=False)
    assert await asyncio.to_thread(client.read_one, only_state=True)
    for text in TEXTS:
        await repository.add_event("j", JobEvent("log", text))
        assert await asyncio.to_thread(client.read_one)
    await repository.complete_job("j", True, utc_now())
    assert await asyncio.to_thread(client.read_one)
    assert not await asyncio.to_thread(client.read_one)
    assert client.seen == EXPECTED
