"""All routes together: as a router for applications that exist, and as an application of their own."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response, Security
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web.authentication import Authenticate
from ci_eventstore.web.changes.routes import ChangeRoutes
from ci_eventstore.web.context import Web, WebSettings
from ci_eventstore.web.document import (
    ASKED,
    CHANGES_TEXT,
    EXPORTED,
    SEARCH_TEXT,
    STREAM_TEXT,
    HealthAnswer,
    JobAnswer,
    JobsAnswer,
    Kind,
    LinesAnswer,
    OneJobAnswer,
    OutlineAnswer,
    PageAnswer,
    Responses,
    SessionAnswer,
    answers,
    bearer,
    session,
)
from ci_eventstore.web.errors import WebError, error_response
from ci_eventstore.web.job_view import JobViews
from ci_eventstore.web.jobs.events import EventRoutes
from ci_eventstore.web.jobs.routes import JobRoutes
from ci_eventstore.web.jobs.submission import MAX_FIELDS_BYTES
from ci_eventstore.web.logs.lines import LineRoutes
from ci_eventstore.web.logs.routes import LogRoutes
from ci_eventstore.web.logs.search import SearchRoutes
from ci_eventstore.web.monitoring import HealthRoutes, MetricsRoutes
from ci_eventstore.web.page_routes import add_page
from ci_eventstore.web.route import head_of, route_class
from ci_eventstore.web.session_routes import MAX_LOGIN_BYTES, CallerRoutes, SessionRoutes
from ci_eventstore.web.webhook_routes import add_webhooks

#: The headers that pages of other sites may send and see, beside those that all may.
CORS_HEADERS: Final[dict[str, Any]] = {
    "allow_headers": [
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "If-None-Match",
        "If-Range",
        "Last-Event-ID",
        "Range",
    ],
    "expose_headers": [
        *("Accept-Ranges", "Content-Range", "ETag", "Jobs-Searched", "Location", "Log-Truncated", "Retry-After"),
    ],
}


class JobsRouter(APIRouter):
    """The routes, for any application, under any prefix."""

    def __init__(self, web: Web) -> None:
        limits = {"create_job": web.settings.max_project_bytes + MAX_FIELDS_BYTES, "login": MAX_LOGIN_BYTES}
        super().__init__(route_class=route_class(web, limits), lifespan=self._live)
        self._web = web
        self.changes = ChangeRoutes(web)

    @property
    def settings(self) -> WebSettings:
        """The settings of the routes."""
        return self._web.settings

    def start(self) -> None:
        """Allow streams again after `stop`; the lifespan of an application with these routes calls this."""
        self._web.streams.start()

    def stop(self) -> None:
        """End all live streams, so that the server can stop; their clients come back, and lose nothing."""
        self._web.streams.stop()
        self.changes.stop()

    @asynccontextmanager
    async def _live(self, app: object) -> AsyncIterator[None]:
        self.start()
        yield
        self.stop()
        await self.changes.stopped()


def create_router(
    repository: RedisJobRepository,
    *,
    authenticate: Authenticate | None = None,
    settings: WebSettings | None = None,
    has_page: bool = False,
) -> JobsRouter:
    """Return the routes for an application that exists; with the page for people at `/` only if it `has_page`.

    The first request opens the repository if it isn't open yet; the caller closes it. Without `authenticate`, API keys
    identify users, and there are `/login` and `/logout`.
    """
    web = Web(repository, authenticate, settings or WebSettings())
    router = JobsRouter(web)
    add = partial(_add, router, [Security(bearer), Security(session)] if web.keys is not None else [])
    views = JobViews(web)
    _add_jobs(add, JobRoutes(web, views))
    changing = answers(Kind.STREAM, *ASKED, 429, says=CHANGES_TEXT)
    add("GET", "/changes", router.changes.changes, "stream_changes", changing, response_class=Response)
    _add_logs(add, EventRoutes(web, views), LogRoutes(web))
    _add_lines(add, LineRoutes(web), SearchRoutes(web))
    add("GET", "/session", CallerRoutes(web).session, "show_session", answers(SessionAnswer, *ASKED))
    add_webhooks(add, web)
    _add_open(partial(_add, router, []), web)
    if has_page:
        add_page(router)
    return router


def _add_jobs(add: Callable[..., None], jobs: JobRoutes) -> None:
    add("GET", "/jobs", jobs.list_jobs, "list_jobs", answers(JobsAnswer, *ASKED, 404))
    created: Responses = {200: {"model": JobAnswer, "description": "As it stands: the same request came before"}}
    created |= answers(JobAnswer, *ASKED, 409, 410, 415, 422, status=201)
    add("POST", "/jobs", jobs.create, "create_job", created, status_code=201, openapi_extra=jobs.submission_body())
    add("GET", "/jobs/{job_id}", jobs.show, "show_job", answers(OneJobAnswer, *ASKED, 404, 410))
    add(
        "POST",
        "/jobs/{job_id}/again",
        jobs.again,
        "submit_again",
        {**created, **answers(JobAnswer, *ASKED, 404, 409, 410, 422, status=201)},
        status_code=201,
    )
    delete = partial(add, "DELETE", status_code=204, response_class=Response)
    deleted = answers(None, *ASKED, 404, 409, status=204, says="It is gone, or was before")
    delete("/jobs/{job_id}", jobs.delete, "delete_job", deleted)
    deleted = answers(None, *ASKED, 404, 409, 410, status=204, says="Its log is gone, or was before; the job stays")
    delete("/jobs/{job_id}/log", jobs.delete_log, "delete_log", deleted)
    cancelled, reason = answers(OneJobAnswer, *ASKED, 404, 409, 410), JobRoutes.CANCEL_BODY
    add("POST", "/jobs/{job_id}/cancel", jobs.cancel, "cancel_job", cancelled, openapi_extra=reason)


def _add_logs(add: Callable[..., None], events: EventRoutes, log: LogRoutes) -> None:
    streamed: Responses = {204: {"description": "The job has ended, and the client has everything"}}
    streamed |= answers(Kind.STREAM, *ASKED, 404, 410, 429, says=STREAM_TEXT)
    add("GET", "/jobs/{job_id}/stream", events.stream, "stream_job", streamed, response_class=Response)
    add("GET", "/jobs/{job_id}/events", events.events, "list_events", answers(PageAnswer, *ASKED, 404, 409, 410))
    text = answers(Kind.TEXT, *ASKED, 404, 409, 410, 416, says="The log, byte for byte")
    text[304] = {"description": "The log is the one that the client has"}
    text[206] = {"description": "The bytes of the log that were asked for", "content": text[200]["content"]}
    asked = {"response_class": Response, "openapi_extra": LogRoutes.READ_HEADERS}
    add("GET", "/jobs/{job_id}/log", log.log, "read_log", text, **asked)
    add("GET", "/jobs/{job_id}/export", log.export, "export_job", EXPORTED, response_class=Response)


def _add_lines(add: Callable[..., None], lines: LineRoutes, whole: SearchRoutes) -> None:
    asked = (*ASKED, 404, 409, 410)
    add("GET", "/jobs/{job_id}/lines", lines.lines, "list_lines", answers(LinesAnswer, *asked))
    text = answers(Kind.TEXT, *asked, 416, says="The bytes of the line from `offset` on, a mebibyte at most")
    add("GET", "/jobs/{job_id}/lines/{n}", lines.line, "read_line", text, response_class=Response)
    found = answers(Kind.LINES, *asked, 429, says=SEARCH_TEXT)
    add("GET", "/jobs/{job_id}/search", whole.search, "search_log", found, response_class=Response)
    add("GET", "/jobs/{job_id}/outline", whole.outline, "outline_log", answers(OutlineAnswer, *asked, 429))


def _add_open(add: Callable[..., None], web: Web) -> None:
    """Add the routes that need neither key nor session."""
    health = HealthRoutes(web)
    add("GET", "/health", health.health, "health", answers(HealthAnswer))
    add("GET", "/ready", health.ready, "ready", answers(HealthAnswer, 503))
    add("GET", "/metrics", MetricsRoutes(web).metrics, "metrics", answers(Kind.TEXT), response_class=Response)
    if web.keys is not None:
        sessions = SessionRoutes(web.keys)
        begun = answers(None, *ASKED, status=204)
        empty = {"status_code": 204, "response_class": Response}
        add("POST", "/login", sessions.login, "login", begun, openapi_extra=SessionRoutes.BODY, **empty)
        add("POST", "/logout", sessions.logout, "logout", answers(None, 403, 503, status=204), **empty)


def create_app(
    repository: RedisJobRepository, *, authenticate: Authenticate | None = None, settings: WebSettings | None = None
) -> FastAPI:
    """Return an application with nothing but the routes and the page, to run or to mount under a prefix.

    If its lifespan runs, that ends live streams. `app.state.router` is the `JobsRouter`.
    """
    router = create_router(repository, authenticate=authenticate, settings=settings, has_page=True)
    # FastAPI's own pages of documents would load scripts from other sites; `include_router` would make each route anew.
    app = FastAPI(
        title="ci_eventstore", docs_url=None, redoc_url=None, routes=router.routes, lifespan=router.lifespan_context
    )
    app.state.router = router
    app.add_exception_handler(HTTPException, _answer_none)
    origins = router.settings.cors_origins
    if origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["DELETE", "GET", "HEAD", "POST"], **CORS_HEADERS
        )
    return app


def _add(
    router: JobsRouter,
    security: list[Any],
    method: str,
    path: str,
    endpoint: Callable[..., Any],
    operation_id: str,
    responses: Responses,
    **options: Any,
) -> None:
    """Add a route with its part of the document, and one for `HEAD` to each for `GET`."""
    options |= {"responses": responses, "response_model": None, "dependencies": security}
    router.add_api_route(path, endpoint, methods=[method], operation_id=operation_id, **options)
    if method == "GET":
        router.routes.append(head_of(router.routes[-1]))


async def _answer_none(request: Request, error: Exception) -> Response:
    """Answer a request for which there is no route, in the shape of all errors."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "_")
    return error_response(WebError(status, code, status.phrase, dict(error.headers or {})))
