"""All routes together: as a router for applications that exist, and as an application of their own."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException

from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web.authentication import Authenticate
from ci_eventstore.web.errors import WebError, error_response
from ci_eventstore.web.event_routes import EventRoutes
from ci_eventstore.web.health import HealthRoutes
from ci_eventstore.web.index import IndexRoute
from ci_eventstore.web.job_routes import JobRoutes
from ci_eventstore.web.log_routes import LogRoutes
from ci_eventstore.web.metrics import MetricsRoutes
from ci_eventstore.web.route import route_class
from ci_eventstore.web.session_routes import MAX_LOGIN_BYTES, SessionRoutes
from ci_eventstore.web.settings import WebSettings
from ci_eventstore.web.state import Web
from ci_eventstore.web.submission import MAX_FIELDS_BYTES


class JobsRouter(APIRouter):
    """The routes, to be included in any application, under any prefix."""

    def __init__(self, web: Web) -> None:
        limits = {"create_job": web.settings.max_project_bytes + MAX_FIELDS_BYTES, "login": MAX_LOGIN_BYTES}
        super().__init__(route_class=route_class(web, limits), lifespan=self._live)
        self._web = web

    def start(self) -> None:
        """Let streams be opened again after `stop`; the lifespan of an application with these routes does so."""
        self._web.streams.start()

    def stop(self) -> None:
        """End all live streams, so that the server can stop: their clients come back, and lose nothing."""
        self._web.streams.stop()

    @asynccontextmanager
    async def _live(self, app: object) -> AsyncIterator[None]:
        self.start()
        yield
        self.stop()


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
    _add(router, "GET", "/jobs", jobs.list_jobs, "list_jobs")
    _add(router, "POST", "/jobs", jobs.create, "create_job", status_code=201)
    _add(router, "GET", "/jobs/{job_id}", jobs.show, "show_job")
    _add(router, "POST", "/jobs/{job_id}/cancel", jobs.cancel, "cancel_job")
    _add(router, "GET", "/jobs/{job_id}/stream", events.stream, "stream_job", response_class=Response)
    _add(router, "GET", "/jobs/{job_id}/events", events.events, "list_events")
    _add(router, "GET", "/jobs/{job_id}/log", log.log, "read_log", response_class=Response)
    _add(router, "GET", "/health", health.health, "health")
    _add(router, "GET", "/ready", health.ready, "ready")
    _add(router, "GET", "/metrics", MetricsRoutes(web).metrics, "metrics", response_class=Response)
    if web.keys is not None:
        sessions = SessionRoutes(web, web.keys)
        _add(router, "POST", "/login", sessions.login, "login", status_code=204, response_class=Response)
        _add(router, "POST", "/logout", sessions.logout, "logout", status_code=204, response_class=Response)
    return router


def create_app(
    repository: RedisJobRepository, *, authenticate: Authenticate | None = None, settings: WebSettings | None = None
) -> FastAPI:
    """Return an application with nothing but the routes, to run or to mount under a prefix.

    Its lifespan, if it is run, ends live streams. `app.state.router` is the `JobsRouter`.
    """
    router = create_router(repository, authenticate=authenticate, settings=settings)
    # The framework's own pages of documents would load scripts from elsewhere.
    app = FastAPI(title="ci_eventstore", docs_url=None, redoc_url=None)
    app.include_router(router)
    app.add_api_route("/", IndexRoute(router.routes).index, methods=["GET", "HEAD"], include_in_schema=False)
    app.state.router = router
    app.add_exception_handler(HTTPException, _answer_none)
    return app


def _add(
    router: JobsRouter, method: str, path: str, endpoint: Callable[..., Any], operation_id: str, **options: Any
) -> None:
    """Add a route, and one for `HEAD` to each for `GET`."""
    router.add_api_route(path, endpoint, methods=[method], operation_id=operation_id, **options)
    if method == "GET":
        router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False, **options)


async def _answer_none(request: Request, error: Exception) -> Response:
    """Answer a request that no route is for, in the shape that all errors have."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "_")
    return error_response(WebError(status, code, status.phrase, dict(error.headers or {})))
