"""The page for people: one document at `/` and what it loads, all of it without login.

The page asks the other routes, as every client does. Their cookie, which is `SameSite=Strict`, comes with its requests,
and not when somebody follows a link to it.
"""

import gzip
import hashlib
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute

from ci_eventstore.web.conditions import has_tag, tag_of
from ci_eventstore.web.errors import WebError
from ci_eventstore.web.json_answer import accepts_gzip

FOLDER: Final = Path(__file__).with_name("page")
DOCUMENT: Final = "index.html"
#: Stand for the version in the document, and for the links to all modules.
VERSION: Final = "{version}"
MODULES: Final = "<!-- modules -->\n"
MAIN: Final = "js/main.js"
#: What a module imports; imports in comments are types.
_IMPORTED: Final = re.compile(r'(?:^|;)(?:import|export|\})[^"\n]*?from ?"([^"]+)"', re.MULTILINE)
#: A year, which is as long as caches keep anything.
FOR_EVER: Final = "public, max-age=31536000, immutable"

#: Nothing runs, loads or connects that isn't this server's own, and no text becomes code. Workers have the policy of
#: their own file.
POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types lit-html ci-eventstore",
    ]
)
PROTECTED: Final = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # With "no-referrer", the origin of forms would be null, and no login.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

INTRODUCTION: Final = """\
ci_eventstore: jobs and their live logs. A browser gets a page here.

Send an API key with each request: curl -H "Authorization: Bearer $KEY" …
Each key sees the jobs of its user; jobs that are nobody's are seen by no key.
"""


@dataclass(frozen=True, slots=True)
class File:
    """A file of the page, as it is sent."""

    media_type: str
    body: bytes
    packed: bytes

    def response(self, request: Request, caching: str) -> Response:
        """Return the file, packed if the client takes that; 304 if it has it."""
        is_packed = accepts_gzip(request.headers.get("accept-encoding"))
        body = self.packed if is_packed else self.body
        tag = tag_of(body)
        # One address may have a page and a text.
        headers = {**PROTECTED, "Cache-Control": caching, "ETag": tag, "Vary": "Accept, Accept-Encoding"}
        if has_tag(request.headers.get("if-none-match"), tag):
            return Response(status_code=304, headers=headers)
        if is_packed:
            headers["Content-Encoding"] = "gzip"
        return Response(body, media_type=self.media_type, headers=headers)


@dataclass(frozen=True, slots=True)
class PageFiles:
    """All files of the page, read once. What isn't one of them can't be asked for."""

    document: File
    files: dict[str, File]
    #: Changes with every file, so that browsers may keep a file for ever.
    version: str


@cache
def read_page() -> PageFiles:
    """Return the page that this package brings along; OSError."""
    texts = {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()}
    whole = hashlib.sha256()
    for name, text in sorted(texts.items()):
        whole.update(b"%s %d\n%s" % (name.encode(), len(text), text))
    version = whole.hexdigest()[:16]
    document = texts.pop(DOCUMENT).decode()
    # Else each module would be asked for only when the one that imports it has come.
    links = [f'<link rel="modulepreload" href="assets/{VERSION}/{name}">\n' for name in modules_of(texts)]
    document = document.replace(MODULES, "".join(links)).replace(VERSION, version)
    files = {name: _file(name, text) for name, text in texts.items()}
    return PageFiles(_file(DOCUMENT, document.encode()), files, version)


def modules_of(texts: Mapping[str, bytes]) -> list[str]:
    """Return the names of the modules that the page needs, those first that others wait for. Pure."""
    found = [MAIN]
    for name in found:
        paths = (match[1] for match in _IMPORTED.finditer(texts[name].decode()))
        imported = (posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) for path in paths)
        found += [one for one in dict.fromkeys(imported) if one not in found]
    return found


def _file(name: str, body: bytes) -> File:
    # Licences are texts without an ending.
    return File(MEDIA_TYPES.get(Path(name).suffix, "text/plain; charset=utf-8"), body, gzip.compress(body, mtime=0))


def add_page(router: APIRouter) -> None:
    """Add the page at `/` and its files; whoever asks for no HTML there gets a list of the router's addresses."""
    listed = [route for route in router.routes if isinstance(route, APIRoute) and route.include_in_schema]

    async def page(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return read_page().document.response(request, "no-cache")
        return PlainTextResponse(_index(listed, request), headers={"Vary": "Accept"})

    async def asset(request: Request, version: str, name: str) -> Response:
        found = read_page().files.get(name)
        if found is None:
            raise WebError(404, "not_found", "Not Found")
        # While a newer server takes over, either may be asked for the other's files: better its own than none.
        return found.response(request, FOR_EVER if version == read_page().version else "no-store")

    methods = ["GET", "HEAD"]
    router.add_api_route("/", page, methods=methods, include_in_schema=False, response_model=None)
    path = "/assets/{version}/{name:path}"
    router.add_api_route(path, asset, methods=methods, include_in_schema=False, response_model=None)


def _index(listed: Sequence[APIRoute], request: Request) -> str:
    """Return the list of addresses, as a client types them after the server's name."""
    root, path = request.scope.get("root_path", "").rstrip("/"), request.scope["path"]
    above = (path if path.startswith(f"{root}/") else root + path).removesuffix("/")
    rows = [
        (*sorted(route.methods or ()), above + route.path, route.description.partition("\n")[0]) for route in listed
    ]
    rows.append(("GET", f"{root}/openapi.json", "Describe all of this for programs."))
    width = max(len(path) for _, path, _ in rows)
    lines = [f"{method:6} {path:{width}}  {text}".rstrip() for method, path, text in rows]
    return INTRODUCTION + "\n" + "\n".join(lines) + "\n"
