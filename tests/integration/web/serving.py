"""Run the web server in the test's own event loop, on a port of this machine, and talk to it."""

import asyncio
import json
import logging
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from ci_common.models import APIKey, Job, JobEvent, User, generate_api_key, hash_api_key, utc_now
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web.server import WebServer, listen, server_config


@dataclass(frozen=True)
class Account:
    """A user and an API key."""

    user_id: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        """What the user's requests carry."""
        return {"Authorization": f"Bearer {self.key}"}


async def create_account(repository: RedisJobRepository, name: str) -> Account:
    """Create a user with a key, both called so."""
    await repository.create_user(User(id=name, name=name, email=f"{name}@example.com", created_at=utc_now()))
    key = generate_api_key()
    await repository.create_api_key(APIKey(id=f"key-{name}", user_id=name, key_hash=hash_api_key(key)))
    return Account(name, key)


@dataclass(frozen=True)
class Served:
    """A running web server."""

    url: str
    app: FastAPI

    def client(self, account: Account | None = None, **options: Any) -> httpx.AsyncClient:
        """Return a client that uses an account's key."""
        headers = {**({} if account is None else account.headers), **options.pop("headers", {})}
        # Nothing is encrypted, and to load the system's certificates takes longer than most tests.
        options = {"timeout": 30, "trust_env": False, "verify": False, **options}
        return httpx.AsyncClient(base_url=self.url, headers=headers, **options)

    @property
    def open_streams(self) -> int:
        """How many live streams there are."""
        return len(self.app.state.router._web.streams)


@asynccontextmanager
async def serve(app: FastAPI, path: str = "") -> AsyncIterator[Served]:
    """Serve an application until this is left."""
    # The port is ours from here on. Were it taken, uvicorn would exit, and pytest keeps no fixture that has done that.
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        config = uvicorn.Config(app, port=port, log_config=None, lifespan="on", timeout_graceful_shutdown=5)
        async with _running(uvicorn.Server(config), [listening]):
            yield Served(f"http://127.0.0.1:{port}{path}", app)


@asynccontextmanager
async def serve_as_cli(app: FastAPI) -> AsyncIterator[Served]:
    """Serve an application of our own as `ci-eventstore serve` does, until this is left."""
    with listen("127.0.0.1", 0) as listening:
        server = WebServer(app, server_config(app))
        # What uvicorn logs is to be seen by tests.
        logging.getLogger("uvicorn").propagate = True
        async with _running(server, [listening]):
            yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", app)


@asynccontextmanager
async def _running(server: uvicorn.Server, sockets: list[socket.socket]) -> AsyncIterator[None]:
    # Without the signals, which are the tests'.
    task = asyncio.create_task(server._serve(sockets))
    while not server.started:
        assert not task.done(), task
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task


async def read_lines(client: httpx.AsyncClient, path: str, count: int | None = None, **options: Any) -> list[Any]:
    """Read so many visible events of a stream as the simplest clients do: parse what stands behind `data: `."""
    seen: list[Any] = []
    async with client.stream("GET", path, **options) as response:
        assert response.status_code == 200, await response.aread()
        if count == 0:
            return seen
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                if event["type"] in ("log", "complete"):
                    seen.append(event)
                    if len(seen) == count:
                        break
    return seen


async def create_ended_job(repository: RedisJobRepository, job_id: str, lines: int, user_id: str = "ada") -> list[Any]:
    """Create a job with so many lines and its end, and return its events as clients get them."""
    await repository.create_job(Job(id=job_id, user_id=user_id, status="running"))
    await repository.add_events(job_id, [JobEvent("log", f"line {number}\n") for number in range(1, lines + 1)])
    await repository.complete_job(job_id, True, utc_now())
    return [event.to_dict() for event in await repository.get_events_since(job_id, 0)]


def scattered_texts(count: int) -> list[str]:
    """Return pieces of a log that begin and end anywhere in its lines."""
    chance = random.Random(count)
    return ["".join(chance.choices("ab\r\udcff€\n", (6, 6, 1, 1, 1, 3), k=chance.randrange(8))) for _ in range(count)]
