"""Jobs inside an application that exists: under its prefix, with its users, beside its own routes.

uvicorn examples.embed_in_fastapi:app --timeout-graceful-shutdown 5
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request

from ci_eventstore import RedisJobRepository
from ci_eventstore.web import WebSettings, create_router

#: The server is the one that CI_EVENTSTORE_URL says.
repository = RedisJobRepository.from_url(prefix=os.environ.get("CI_EVENTSTORE_PREFIX", "ci"))

#: In place of whatever this application knows its users by.
USERS = {"token-of-ada": "ada"}


async def current_user(request: Request) -> str | None:
    """Return the id of who asks; None is answered with 401."""
    return USERS.get(request.headers.get("x-token", ""))


router = create_router(repository, authenticate=current_user, settings=WebSettings(max_streams_per_user=20))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the repository with the application; without a lifespan, the first request opens it."""
    async with repository:
        yield


app = FastAPI(lifespan=lifespan)
app.include_router(router, prefix="/ci")


@app.get("/")
async def home() -> dict[str, str]:
    """One of the application's own routes."""
    return {"jobs": "/ci/jobs"}
