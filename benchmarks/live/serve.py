"""A process that serves jobs' live streams over HTTP: the store's own server, or one made with another library.

All of them run in the same uvicorn with the same event loop and the same parser.
"""

import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module

import uvicorn
import uvloop
from starlette.types import ASGIApp

from benchmarks.live.processes import read_plan, say
from ci_eventstore import RedisJobRepository
from ci_eventstore.web import create_app, this_machine_sees_everything

Open = Callable[[str], AbstractAsyncContextManager[ASGIApp]]


@asynccontextmanager
async def open_ours(url: str) -> AsyncIterator[ASGIApp]:
    """Yield the store's own server."""
    async with RedisJobRepository.from_url(url) as repository:
        yield create_app(repository, authenticate=this_machine_sees_everything)


def open_peer(module: str) -> Open:
    """Return what opens a server of another library, which is imported only then: ours is measured without it, too."""
    return lambda url: import_module(f"benchmarks.live.{module}").open_app(url)


#: Each streams a job's events from the first one on, to the job's end, at `/jobs/<id>/stream?from_beginning=1`.
SERVERS: dict[str, Open] = {
    "ours": open_ours,
    "sse-starlette": open_peer("sse_starlette_peer"),
    "FastAPI": open_peer("fastapi_peer"),
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
