"""Log a browser in and out: its cookie names a session that stands for an API key."""

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import Request, Response
from pydantic import BaseModel, Field

from ci_common.api_keys import hash_api_key
from ci_eventstore.accounts.sessions import SESSION_SECONDS
from ci_eventstore.web.authentication import KeyAuthentication, is_same_origin, unauthorized
from ci_eventstore.web.context import Web
from ci_eventstore.web.document import COOKIE, body
from ci_eventstore.web.errors import WebError

#: An API key in JSON or a form has less.
MAX_LOGIN_BYTES = 4096


class Login(BaseModel):
    """What a browser logs in with."""

    key: Annotated[str, Field(min_length=1, max_length=300)]


class SessionRoutes:
    """The routes of sessions; they are there where API keys are."""

    #: What the document says of a login's body.
    BODY = body(json=Login.model_json_schema(), form=Login.model_json_schema())

    def __init__(self, web: Web, keys: KeyAuthentication) -> None:
        self._web = web
        self._keys = keys

    async def login(self, request: Request) -> Response:
        """Begin a session with an API key: `{"key": "ci_…"}`, or a form with that field; the answer is the cookie."""
        _check_origin(request)
        await self._web.repository.initialize()
        key_hash = hash_api_key(await _read_key(request))
        if await self._keys.user_of(key_hash) is None:
            raise unauthorized()
        token = await self._web.sessions.create(key_hash)
        response = Response(status_code=204)
        response.set_cookie(
            COOKIE,
            token,
            max_age=SESSION_SECONDS,
            path=_path(request),
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    async def logout(self, request: Request) -> Response:
        """End the session, if there is one."""
        _check_origin(request)
        await self._web.repository.initialize()
        if token := request.cookies.get(COOKIE):
            await self._web.sessions.end(token)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, path=_path(request), httponly=True, samesite="strict")
        return response


def _check_origin(request: Request) -> None:
    if not is_same_origin(request.headers, required=False):
        raise WebError(403, "foreign_origin", "this page may not log in or out here")


def _path(request: Request) -> str:
    return str(request.scope.get("root_path") or "/")


async def _read_key(request: Request) -> str:
    """Return the key in a request's body; WebError 400, 413."""
    sent = await request.body()
    try:
        if request.headers.get("content-type", "").startswith("application/json"):
            return Login.model_validate_json(sent).key.strip()
        [key] = parse_qs(sent.decode(), strict_parsing=True)["key"]
        return key.strip()
    except (ValueError, KeyError):
        text = 'an API key is needed: {"key": "ci_…"}, or a form with the field key'
        raise WebError(400, "invalid", text) from None
