"""All routes together: as a router for applications that exist, and as an application of their own."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web.authentication import Authenticate
from ci_eventstore.web.errors import ANSWERED, WebError, error_response
from ci_eventstore.web.event_routes import EventRoutes
from ci_eventstore.web.health import HealthRoutes
from ci_eventstore.web.job_routes import JobRoutes
from ci_eventstore.web.log_routes import LogRoutes
from ci_eventstore.web.metrics import MetricsRoutes
from ci_eventstore.web.session_routes import SessionRoutes
from ci_eventstore.web.settings import WebSettings
from ci_eventstore.web.state import Web

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class JobsRouter(APIRouter):
    """The routes, to be included in any application, under any prefix."""

    def __init__(self, web: Web) -> None:
        super().__init__(route_class=_route_class(web))
        self._web = web

    def stop(self) -> None:
        """End all live streams, so that the server can stop: their clients come back, and lose nothing."""
        self._web.streams.stop()


def create_router(
    repository: RedisJobRepository, *, authenticate: Authenticate | None = None, settings: WebSettings | None = None
) -> JobsRouter:
    """Return the routes for an application that exists.

    The repository is opened by the first request if it isn't open yet; closing it is the caller's. Without
    `authenticate`, users are known by their API keys, and `/login` and `/logout` are there.
    """
    web = Web(repository, authenticate, settings or WebSettings())
    router = JobsRouter(web)
    jobs, events, log, health = JobRoutes(web), EventRoutes(web), LogRoutes(web), HealthRoutes(web)
    router.add_api_route("/jobs", jobs.list_jobs, methods=["GET"])
    router.add_api_route("/jobs", jobs.create, methods=["POST"], status_code=201)
    router.add_api_route("/jobs/{job_id}", jobs.show, methods=["GET"])
    router.add_api_route("/jobs/{job_id}/cancel", jobs.cancel, methods=["POST"])
    router.add_api_route("/jobs/{job_id}/stream", events.stream, methods=["GET"], response_class=Response)
    router.add_api_route("/jobs/{job_id}/events", events.events, methods=["GET"])
    router.add_api_route("/jobs/{job_id}/log", log.log, methods=["GET", "HEAD"], response_class=Response)
    router.add_api_route("/health", health.health, methods=["GET"])
    router.add_api_route("/ready", health.ready, methods=["GET"])
    router.add_api_route("/metrics", MetricsRoutes(web).metrics, methods=["GET"], response_class=Response)
    if web.keys is not None:
        sessions = SessionRoutes(web, web.keys)
        router.add_api_route("/login", sessions.login, methods=["POST"], status_code=204, response_class=Response)
        router.add_api_route("/logout", sessions.logout, methods=["POST"], status_code=204, response_class=Response)
    return router


def create_app(
    repository: RedisJobRepository, *, authenticate: Authenticate | None = None, settings: WebSettings | None = None
) -> FastAPI:
    """Return an application with nothing but the routes, to run or to mount under a prefix.

    Its lifespan, if it is run, ends live streams. `app.state.router` is the `JobsRouter`.
    """
    router = create_router(repository, authenticate=authenticate, settings=settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        router.stop()

    # The framework's own pages of documents would load scripts from elsewhere.
    app = FastAPI(title="ci_eventstore", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.include_router(router)
    app.state.router = router
    return app


def _route_class(web: Web) -> type[APIRoute]:
    """Return routes that answer errors in our own shape, whichever application they are part of."""

    class Route(APIRoute):
        def get_route_handler(self) -> Handler:
            """Return the handler that the framework calls."""
            handle = super().get_route_handler()

            async def answer(request: Request) -> Response:
                try:
                    return await handle(request)
                except RequestValidationError as error:
                    return error_response(_as_web_error(error))
                except ANSWERED as error:
                    response = error_response(error)
                    web.errors += response.status_code >= 500
                    return response

            return answer

    return Route


def _as_web_error(error: RequestValidationError) -> WebError:
    said = [f"{detail['loc'][-1]}: {detail['msg']}" for detail in error.errors()]
    return WebError(400, "invalid", "; ".join(said))
