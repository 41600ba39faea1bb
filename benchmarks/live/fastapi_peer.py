"""A server of live streams as FastAPI's documents have it: an endpoint yields a `ServerSentEvent` for each event."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.types import ASGIApp

from benchmarks.live.xread import follow, open_client


@asynccontextmanager
async def open_app(url: str) -> AsyncIterator[ASGIApp]:
    """Connect, and yield the application."""
    client = open_client(url)
    app = FastAPI()

    @app.get("/jobs/{job_id}/stream", response_class=EventSourceResponse)
    async def stream(job_id: str) -> AsyncIterator[ServerSentEvent]:
        async for event in follow(client, job_id):
            yield ServerSentEvent(data={"type": event.type, "data": event.data}, id=str(event.id))

    try:
        yield app
    finally:
        await client.aclose()
