"""How every route answers: with a limit to its body, one shape of errors, and `HEAD` as `GET` without a body."""

from collections.abc import Callable, Coroutine, Mapping
from copy import copy
from functools import cache
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute
from starlette.types import Message, Receive, Scope, Send

from ci_eventstore.web.authentication import ForeignError
from ci_eventstore.web.context import Web
from ci_eventstore.web.document import Responses
from ci_eventstore.web.errors import WebError, error_response, invalid

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

#: The largest body that a route takes unless it has a limit of its own.
MAX_BODY_BYTES = 64 * 1024


def route_class(web: Web, max_body_bytes: Mapping[str, int]) -> type[APIRoute]:
    """Return the class of routes that answer alike in whichever application they are.

    `max_body_bytes` maps operation ids to the largest body of the route.
    """
    methods: dict[str, set[str]] = {}

    class Route(APIRoute):
        def __init__(self, path: str, endpoint: Callable[..., Any], *, responses: Responses, **options: Any) -> None:
            models = {status: answer.get("model") for status, answer in responses.items()}
            shared = {status: _field_of(model) for status, model in models.items() if isinstance(model, type)}
            own = {status: answer for status, answer in responses.items() if status not in shared}
            super().__init__(path, endpoint, responses=own, **options)
            self.responses = responses
            self.response_fields |= shared
            its = self.methods or set()
            methods.setdefault(path, set()).update(its, {"HEAD"} if "GET" in its else ())

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            """Answer a request for this path; 405 if no route of this path has its method."""
            if scope["method"] in (self.methods or ()):
                await super().handle(scope, receive, send)
                return
            headers = {"Allow": ", ".join(sorted(methods[self.path]))}
            refusal = WebError(405, "method_not_allowed", f"{scope['method']} isn't for this address", headers)
            await error_response(refusal)(scope, receive, send)

        def get_route_handler(self) -> Handler:
            """Return the handler that the framework calls."""
            handle = super().get_route_handler()
            limit = max_body_bytes.get(self.operation_id or "", MAX_BODY_BYTES)

            async def answer(request: Request) -> Response:
                response = await _answer(web, handle, request, limit)
                if request.method != "HEAD":
                    return response
                # A response of its own, so that the body isn't even begun.
                head = Response(status_code=response.status_code, background=response.background)
                head.raw_headers = response.raw_headers
                return head

            return answer

    return Route


def head_of(route: BaseRoute) -> APIRoute:
    """Return a copy of a route for `GET` that answers `HEAD`, and isn't in the document."""
    assert isinstance(route, APIRoute)
    head = copy(route)
    head.methods, head.include_in_schema, head.responses, head.response_fields = {"HEAD"}, False, {}, {}
    return head


@cache
def _field_of(model: type) -> Any:
    """Return what the framework makes of an answer's model, once for all routes: it takes longer than their rest."""
    return APIRoute("/", lambda: None, responses={200: {"model": model}}).response_fields[200]


async def _answer(web: Web, handle: Handler, request: Request, limit: int) -> Response:
    """Return the response to a request, whatever happens; raise only an application's own errors."""
    response: Response
    try:
        return await handle(limited(request, limit))
    except RequestValidationError as error:
        # The first word is where it stood: in the query, a header or the path.
        response = error_response(invalid(error.errors(), skipped=1))
    except ClientDisconnect:
        # Nobody reads it.
        response = Response(status_code=400)
    except ForeignError as foreign:
        raise foreign.error from None
    except HTTPException:
        raise
    except Exception as error:  # noqa: BLE001 - it is logged with its traceback, and the server goes on
        response = error_response(error)
    web.errors += response.status_code >= 500
    return response


def limited(request: Request, limit: int) -> Request:
    """Return the request, whose body raises WebError 413 when it grows too long; raise now if its length says so."""
    length = request.headers.get("content-length", "")
    # A number of more digits than Python reads is too long as well.
    if length.isdecimal() and (len(length) > 18 or int(length) > limit):
        raise _too_large(limit)
    count = 0

    async def receive() -> Message:
        nonlocal count
        message = await request.receive()
        count += len(message.get("body", b""))
        if count > limit:
            raise _too_large(limit)
        return message

    return Request(request.scope, receive)


def _too_large(limit: int) -> WebError:
    return WebError(413, "too_large", f"the body may have up to {limit} bytes")
