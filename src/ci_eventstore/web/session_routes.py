"""`/login`, `/logout` and `/session`: browsers begin a session with a key, end it, and see whose it is."""

from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import Request, Response
from pydantic import BaseModel, Field

from ci_common.errors import InvalidInputError
from ci_common.models import hash_api_key, to_rfc3339
from ci_eventstore.accounts.store import SESSION_SECONDS
from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.web.authentication import KeyAuthentication, is_same_origin, unauthorized
from ci_eventstore.web.context import Web
from ci_eventstore.web.document import COOKIE, body
from ci_eventstore.web.errors import WebError

#: An API key in JSON or a form has less.
MAX_LOGIN_BYTES = 4096


class Login(BaseModel):
    """What a browser logs in with."""

    key: Annotated[str, Field(min_length=1, max_length=300)]


class CallerRoutes:
    """The route that names the caller, which is there however callers are authenticated."""

    def __init__(self, web: Web) -> None:
        self._web = web

    async def session(self, request: Request) -> dict[str, Any]:
        """Show who sends the request, until when a browser's session lasts, and which jobs the caller sees."""
        caller = await self._web.caller(request)
        return {
            "user_id": caller.user_id,
            "name": await self._name_of(caller.user_id),
            "expires": to_rfc3339(await self._end(request)),
            "sees": "everything" if caller.user_id is None else "own",
        }

    async def _name_of(self, user_id: str | None) -> str | None:
        """Return a user's name; None if the store doesn't know the user, or can't say now."""
        # An application's own users may have ids that no user of the store has. While the accounts are away, keys are
        # good for a while.
        with suppress(InvalidInputError, StoreUnavailableError):
            user = None if user_id is None else await self._web.repository.get_user(user_id)
            return None if user is None else user.name
        return None

    async def _end(self, request: Request) -> datetime | None:
        with suppress(StoreUnavailableError):
            return None if self._web.keys is None else await self._web.keys.session_end(request)
        return None


class SessionRoutes:
    """The routes of sessions; they are there where API keys are."""

    #: What the document says of a login's body.
    BODY = body(json=Login.model_json_schema(), form=Login.model_json_schema())

    def __init__(self, keys: KeyAuthentication) -> None:
        self._keys = keys
        self._repository = keys.repository

    async def login(self, request: Request) -> Response:
        """Begin a session with an API key: `{"key": "ci_…"}`, or a form with that field; the answer is the cookie."""
        _check_origin(request)
        await self._repository.initialize()
        key_hash = hash_api_key(await _read_key(request))
        if await self._keys.user_of(key_hash) is None:
            raise unauthorized()
        token = await self._repository.engine.sessions.create(key_hash)
        response = Response(status_code=204)
        response.set_cookie(
            COOKIE,
            token,
            max_age=SESSION_SECONDS,
            path=request.scope.get("root_path") or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    async def logout(self, request: Request) -> Response:
        """End the session, if there is one."""
        _check_origin(request)
        await self._repository.initialize()
        if token := request.cookies.get(COOKIE):
            await self._keys.end_session(token)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, path=request.scope.get("root_path") or "/", httponly=True, samesite="strict")
        return response


def _check_origin(request: Request) -> None:
    if not is_same_origin(request.headers, required=False):
        raise WebError(403, "foreign_origin", "this page may not log in or out here")


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
