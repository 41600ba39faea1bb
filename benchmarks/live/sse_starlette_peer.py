"""A server of live streams as the documents of sse-starlette have it: a `ServerSentEvent` for each event."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import ASGIApp

from benchmarks.live.xread import follow, open_client


@asynccontextmanager
async def open_app(url: str) -> AsyncIterator[ASGIApp]:
    """Connect, and yield the application."""
    client = open_client(url)
    app = FastAPI()

    async def frames(job_id: str) -> AsyncIterator[ServerSentEvent]:
        async for event in follow(client, job_id):
            data = {"type": event.type, "data": event.data}
            yield ServerSentEvent(json.dumps(data), id=str(event.id))

    # Without a type of its own, FastAPI would look for one in what the function returns.
    @app.get("/jobs/{job_id}/stream", response_class=EventSourceResponse)
    async def stream(job_id: str) -> EventSourceResponse:
        return EventSourceResponse(frames(job_id), sep="\n")

    try:
        yield app
    finally:
        await client.aclose()
