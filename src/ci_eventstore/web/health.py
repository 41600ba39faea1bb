"""Whether the server lives, and whether its store can be used."""

import asyncio
import time

from fastapi.responses import JSONResponse

from ci_common.errors import RepositoryError
from ci_eventstore.loop_locks import LoopLocks
from ci_eventstore.web.context import Web
from ci_eventstore.web.errors import WebError

#: How long the store may take to answer.
PATIENCE_SECONDS = 2.0
#: An answer is repeated for this long, however many ask for it.
TRUST_SECONDS = 1.0


class HealthRoutes:
    """The routes that load balancers ask; they need no key."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._asking = LoopLocks()
        self._asked_at: float | None = None
        self._problem: str | None = None

    async def health(self) -> dict[str, str]:
        """Say that the server lives."""
        return {"status": "ok"}

    async def ready(self) -> JSONResponse:
        """Say whether Redis can be reached and takes writes."""
        async with self._asking.current:
            now = time.monotonic()
            if self._asked_at is None or now - self._asked_at > TRUST_SECONDS:
                self._problem = await self._ask()
                self._asked_at = time.monotonic()
        if self._problem is not None:
            raise WebError(503, "unavailable", self._problem, {"Retry-After": "2"})
        return JSONResponse({"status": "ready"})

    async def _ask(self) -> str | None:
        """Return what is the matter."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._web.ready()
        except TimeoutError:
            return "the store gives no answer"
        except RepositoryError:
            return "the store can't be reached, or takes no writes"
        return None
