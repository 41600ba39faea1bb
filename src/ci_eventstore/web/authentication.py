"""Who asks: API keys as bearer tokens, and browsers' sessions that stand for one."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request

from ci_common.api_keys import hash_api_key
from ci_common.errors import RepositoryError
from ci_common.models import APIKey, as_utc, utc_now
from ci_eventstore.accounts.sessions import SessionStore
from ci_eventstore.connection.background import begin
from ci_eventstore.connection.outage_log import OutageLog
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web.document import COOKIE
from ci_eventstore.web.errors import WebError

logger = logging.getLogger("ci_eventstore.web")

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORTS = {"http": "80", "https": "443"}

#: How long a good key is accepted without asking the store again, and so how late a revoked one ends.
TRUST_SECONDS = 5.0
TRUSTED_KEYS = 10_000
#: The last use of a key is noted at most this often.
NOTE_EVERY = timedelta(minutes=1)


def is_safe(method: str) -> bool:
    """Tell whether a method changes nothing."""
    return method in _SAFE


def is_same_origin(headers: Mapping[str, str], *, required: bool) -> bool:
    """Tell whether a request's `Origin` is the host that it was sent to.

    Browsers send one with all that may change something. Without one, the answer is no if it is `required`.
    """
    origin = headers.get("origin")
    if origin is None:
        return not required
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    port = _DEFAULT_PORTS.get(parts.scheme, "")
    host = headers.get("host", "").lower()
    return bool(host) and host.removesuffix(f":{port}") == parts.netloc.lower().removesuffix(f":{port}")


def is_loopback(host: str) -> bool:
    """Tell whether a `Host` header names the machine that the client is on."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name in LOOPBACK


class Everything(Enum):
    """The type of `EVERYTHING`."""

    EVERYTHING = "everything"


#: Instead of a user's id: whoever asks may see all jobs, those without a user too.
EVERYTHING: Final = Everything.EVERYTHING

#: Says whose jobs a request is about: a user's id, `EVERYTHING`, or None for who isn't known. May raise what it likes.
Authenticate = Callable[[Request], Awaitable[str | Everything | None]]


async def this_machine_sees_everything(request: Request) -> Everything:
    """Let everybody see and do everything who is on this machine: for one person's own.

    WebError 403 for pages of other sites in that person's browser, those too whose name leads to this machine.
    """
    is_ours = is_safe(request.method) or is_same_origin(request.headers, required=False)
    if not is_ours or not is_loopback(request.headers.get("host", "")):
        raise WebError(403, "foreign_origin", "without keys, only this machine's own pages and programs are served")
    return EVERYTHING


class ForeignError(Exception):
    """Holds what an application's own `authenticate` raised, on its way to that application."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    #: None: all jobs may be seen.
    user_id: str | None
    #: Asks the same again; for what takes long.
    is_still_allowed: Callable[[], Awaitable[bool]]


def unauthorized() -> WebError:
    """Return the answer to who isn't known; it doesn't say why."""
    text = "an API key is needed that is valid: send it as `Authorization: Bearer ci_…`"
    return WebError(401, "unauthorized", text, {"WWW-Authenticate": "Bearer"})


class OwnAuthentication:
    """Uses what the foreign application says."""

    def __init__(self, authenticate: Authenticate) -> None:
        self._authenticate = authenticate

    async def caller(self, request: Request) -> Caller:
        """Return who asks; WebError 401, and ForeignError for what the application raises."""
        try:
            user = await self._authenticate(request)
        except WebError:
            raise
        except Exception as error:
            raise ForeignError(error) from error
        if user is None:
            raise unauthorized()
        return Caller(None if isinstance(user, Everything) else user, _is_allowed)


class KeyAuthentication:
    """Knows users by their API keys, given as bearer tokens or by the session that a browser's cookie names."""

    def __init__(self, repository: RedisJobRepository, sessions: Callable[[], SessionStore]) -> None:
        self._repository = repository
        self._sessions = sessions
        self._trusted: dict[str, tuple[float, str]] = {}
        self._unnoted = OutageLog(logger, "the use of API keys can't be noted: %s")
        self._noting: dict[str, asyncio.Task[None]] = {}

    async def caller(self, request: Request) -> Caller:
        """Return who asks; WebError 401, and 403 for a page of another origin that uses a browser's session."""
        key_hash = self._bearer(request)
        token = None if key_hash else request.cookies.get(COOKIE)
        if token:
            if not is_safe(request.method) and not is_same_origin(request.headers, required=True):
                raise WebError(403, "foreign_origin", "this page may not use the session of another one")
            key_hash = await self._sessions().find(token)
        if not key_hash:
            raise unauthorized()
        user_id = await self.user_of(key_hash)
        if user_id is None:
            raise unauthorized()

        async def is_still_allowed() -> bool:
            if token and await self._sessions().find(token) is None:
                return False
            return await self.user_of(key_hash) is not None

        return Caller(user_id, is_still_allowed)

    async def user_of(self, key_hash: str) -> str | None:
        """Return the user of a key that is good, None for any other."""
        now = time.monotonic()
        until, user_id = self._trusted.get(key_hash, (0.0, ""))
        if now < until:
            return user_id
        self._trusted.pop(key_hash, None)
        api_key = await self._repository.get_api_key_by_hash(key_hash)
        if api_key is None or not api_key.is_active:
            return None
        user = await self._repository.get_user(api_key.user_id)
        if user is None or not user.is_active:
            return None
        if len(self._trusted) >= TRUSTED_KEYS:
            self._trusted.clear()
        self._trusted[key_hash] = now + TRUST_SECONDS, user.id
        self._note_use(api_key)
        return user.id

    @staticmethod
    def _bearer(request: Request) -> str | None:
        scheme, _, api_key = request.headers.get("authorization", "").partition(" ")
        # Other schemes are a proxy's in front. Whatever is no key is looked up in vain.
        return hash_api_key(api_key.strip()) if scheme.lower() == "bearer" else None

    def _note_use(self, api_key: APIKey) -> None:
        """Note in the background that a key is used, if that wasn't noted within the last minute."""
        last = api_key.last_used_at
        if api_key.id in self._noting or (last is not None and utc_now() - as_utc(last) < NOTE_EVERY):
            return
        task = begin(self._write_use(api_key.id), logger, "noting the use of an API key")
        self._noting[api_key.id] = task
        task.add_done_callback(lambda _: self._noting.pop(api_key.id, None))

    async def _write_use(self, key_id: str) -> None:
        try:
            await self._repository.update_api_key_last_used(key_id, utc_now())
        except RepositoryError as error:
            self._unnoted.failed(error, {"key_id": key_id})


async def _is_allowed() -> bool:
    return True
