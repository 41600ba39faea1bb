"""`GET /`: what there is at this address, for whoever looks at it with a browser or curl."""

from collections.abc import Iterable

from fastapi import Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

INTRODUCTION = """\
ci_eventstore: jobs and their live logs.

Send an API key with each request: curl -H "Authorization: Bearer $KEY" …
Each key sees the jobs of its user; jobs that are nobody's are seen by no key.
"""


class IndexRoute:
    """The page that lists the other routes."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._routes = [route for route in routes if isinstance(route, APIRoute) and route.include_in_schema]

    async def index(self, request: Request) -> Response:
        """List the endpoints, each with what it does."""
        root = request.scope.get("root_path", "").rstrip("/")
        rows = [(*sorted(route.methods or ()), root + route.path, _first_line(route)) for route in self._routes]
        rows.append(("GET", f"{root}/openapi.json", "Describe all of this for programs."))
        width = max(len(path) for _, path, _ in rows)
        lines = [f"{method:4} {path:{width}}  {text}".rstrip() for method, path, text in rows]
        return PlainTextResponse(INTRODUCTION + "\n" + "\n".join(lines) + "\n")


def _first_line(route: APIRoute) -> str:
    return (route.description or "").split("\n", maxsplit=1)[0]
