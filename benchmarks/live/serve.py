"""A process that serves jobs' live streams over HTTP: the store's own server, or one made with another library.

All of them run in the same uvicorn with the same event loop and the same parser.
"""

import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import uvicorn
import uvloop
from starlette.types import ASGIApp

from benchmarks.live import fastapi_peer, sse_starlette_peer
from benchmarks.live.processes import read_plan, say
from ci_eventstore import RedisJobRepository
from ci_eventstore.web import create_app, this_machine_sees_everything


@asynccontextmanager
async def open_ours(url: str) -> AsyncIterator[ASGIApp]:
    """Yield the store's own server."""
    async with RedisJobRepository.from_url(url) as repository:
        yield create_app(repository, authenticate=this_machine_sees_everything)


#: Each streams a job's events from the first one on, to the job's end, at `/jobs/<id>/stream?from_beginning=1`.
SERVERS: dict[str, Callable[[str], AbstractAsyncContextManager[ASGIApp]]] = {
    "ours": open_ours,
    "sse-starlette": sse_starlette_peer.open_app,
    "FastAPI": fastapi_peer.open_app,
}


async def serve(name: str, url: str) -> None:
    """Serve until told to stop by a signal, and say where."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(2048)
        async with SERVERS[name](url) as app:
            config = uvicorn.Config(app, log_level="warning", access_log=False, http="httptools", ws="none")
            say(port=listening.getsockname()[1])
            await uvicorn.Server(config).serve(sockets=[listening])


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], read_plan().url))
