"""Authenticate clients by API keys as bearer tokens, and by browsers' sessions, each of which stands for a key."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request

from ci_common.errors import RepositoryError
from ci_common.models import APIKey, as_utc, hash_api_key, utc_now
from ci_eventstore.connection.absence import is_absence
from ci_eventstore.connection.outage_log import OutageLog
from ci_eventstore.connection.way import in_a_hurry
from ci_eventstore.errors import StoreUnavailableError
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.tasks import begin
from ci_eventstore.web.document import COOKIE
from ci_eventstore.web.errors import WebError

logger = logging.getLogger("ci_eventstore.web")

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
#: Methods that change nothing.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORTS = {"http": "80", "https": "443"}

#: How long a good key is accepted without asking the store again, and so how late a revoked one ends.
TRUST_SECONDS = 5.0
TRUSTED_KEYS = 10_000
#: The same, from when it was found good, while the partition of accounts is away and others of a cluster are there.
CACHE_SECONDS = 60.0
#: The last use of a key is noted at most this often.
NOTE_EVERY = timedelta(minutes=1)


def is_same_origin(headers: Mapping[str, str], *, required: bool) -> bool:
    """Return whether a request's `Origin` is the host that it was sent to.

    Browsers send one with every request that may change something. Without one, the answer is no if it is `required`.
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
    """Return whether a `Host` header names the machine that the client is on."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name in LOOPBACK


class Everything(Enum):
    """The type of `EVERYTHING`."""

    EVERYTHING = "everything"


#: Stands for a user who may see all jobs, also those without an owner.
EVERYTHING: Final = Everything.EVERYTHING

#: Returns whose jobs a request may see: a user's id, `EVERYTHING`, or None for nobody's. It may raise any exception.
Authenticate = Callable[[Request], Awaitable[str | Everything | None]]


async def this_machine_sees_everything(request: Request) -> Everything:
    """Let everybody on this machine see and do everything: for one person's own machine.

    WebError 403 for pages of other sites in that person's browser, even if a site's name leads to this machine.
    """
    is_ours = request.method in _SAFE or is_same_origin(request.headers, required=False)
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
    """The user who sent a request."""

    #: None: the caller may see all jobs.
    user_id: str | None
    #: Looks it up again, for streams that take long.
    is_still_allowed: Callable[[], Awaitable[bool]]


def unauthorized() -> WebError:
    """Return the answer to a caller that isn't known; it doesn't give the reason away."""
    text = "an API key is needed that is valid: send it as `Authorization: Bearer ci_…`"
    return WebError(401, "unauthorized", text, {"WWW-Authenticate": "Bearer"})


async def caller_of(authenticate: Authenticate, request: Request) -> Caller:
    """Return the caller that an application's own function names; WebError 401, ForeignError for what it raises."""
    try:
        user = await authenticate(request)
    except WebError:
        raise
    except Exception as error:
        raise ForeignError(error) from error
    if user is None:
        raise unauthorized()
    return Caller(None if isinstance(user, Everything) else user, _is_allowed)


class _Cache:
    """What was looked up in the partition of accounts: it counts for a while when that is away."""

    def __init__(self, repository: RedisJobRepository, trust_seconds: float) -> None:
        self._repository = repository
        self._trust_seconds = trust_seconds
        #: What was found, and when, by the monotonic clock.
        self._kept: dict[str, tuple[str, float]] = {}
        self._outage = OutageLog(logger, "keys and sessions that were good a minute ago are accepted: %s")

    async def find(self, name: str, look_up: Callable[[], Awaitable[str | None]]) -> str | None:
        """Return what `look_up` finds, or found within CACHE_SECONDS; StoreUnavailableError."""
        now = time.monotonic()
        kept, found_at = self._kept.get(name, ("", -math.inf))
        if now < found_at + self._trust_seconds:
            return kept
        is_known = now < found_at + CACHE_SECONDS and self._repository.engine.nodes.is_divided
        try:
            with in_a_hurry() if is_known else nullcontext():
                found = await look_up()
        except StoreUnavailableError as error:
            if not is_known or not is_absence(error) or time.monotonic() >= found_at + CACHE_SECONDS:
                raise
            self._outage.failed(error)
            return kept
        self.forget(name)
        if found is not None:
            if len(self._kept) >= TRUSTED_KEYS:
                self._kept.clear()
            self._kept[name] = found, now
        return found

    def forget(self, name: str) -> None:
        """Let what was found count no more."""
        self._kept.pop(name, None)


class KeyAuthentication:
    """Knows users by their API keys, given as bearer tokens or by the session that a browser's cookie names."""

    def __init__(self, repository: RedisJobRepository) -> None:
        self.repository = repository
        self._users = _Cache(repository, TRUST_SECONDS)
        self._sessions = _Cache(repository, 0.0)
        self._unnoted = OutageLog(logger, "the use of API keys can't be noted: %s")
        self._noting: dict[str, asyncio.Task[None]] = {}

    async def caller(self, request: Request) -> Caller:
        """Return the caller; WebError 401, and 403 for a page of another origin that uses a browser's session."""
        key_hash = self._bearer(request)
        token = None if key_hash else request.cookies.get(COOKIE)
        if token:
            if request.method not in _SAFE and not is_same_origin(request.headers, required=True):
                raise WebError(403, "foreign_origin", "this page may not use the session of another one")
            key_hash = await self._key_of(token)
        if not key_hash:
            raise unauthorized()
        user_id = await self.user_of(key_hash)
        if user_id is None:
            raise unauthorized()

        async def is_still_allowed() -> bool:
            try:
                if token and await self._key_of(token) is None:
                    return False
                return await self.user_of(key_hash) is not None
            except StoreUnavailableError:
                if not self.repository.engine.nodes.is_divided:
                    raise
                # Jobs are read from other servers, which don't know whether the key is still good.
                return False

        return Caller(user_id, is_still_allowed)

    async def end_session(self, token: str) -> None:
        """End a browser's session; StoreError."""
        await self.repository.engine.sessions.end(token)
        self._sessions.forget(token)

    async def session_end(self, request: Request) -> datetime | None:
        """Return when the session ends by which a request was let in; None if that was a key. StoreError."""
        token = None if self._bearer(request) else request.cookies.get(COOKIE)
        left = await self.repository.engine.sessions.seconds_left(token) if token else None
        return None if left is None else utc_now() + timedelta(seconds=round(left))

    async def _key_of(self, token: str) -> str | None:
        """Return the hash of the key that a session stands for."""
        return await self._sessions.find(token, lambda: self.repository.engine.sessions.find(token))

    async def user_of(self, key_hash: str) -> str | None:
        """Return the user of a valid key, None for any other.

        The answer is trusted for TRUST_SECONDS, and on a cluster whose partition of accounts is away CACHE_SECONDS.
        """
        return await self._users.find(key_hash, lambda: self._look_up(key_hash))

    async def _look_up(self, key_hash: str) -> str | None:
        api_key = await self.repository.get_api_key_by_hash(key_hash)
        if api_key is None or not api_key.is_active:
            return None
        user = await self.repository.get_user(api_key.user_id)
        if user is None or not user.is_active:
            return None
        self._note_use(api_key)
        return user.id

    @staticmethod
    def _bearer(request: Request) -> str | None:
        scheme, _, api_key = request.headers.get("authorization", "").partition(" ")
        # Other schemes are those of a proxy in front. A text that is no key is looked up in vain.
        return hash_api_key(api_key.strip()) if scheme.lower() == "bearer" else None

    def _note_use(self, api_key: APIKey) -> None:
        """Store in the background that a key is used, unless that was done within the last minute."""
        last = api_key.last_used_at
        if api_key.id in self._noting or (last is not None and utc_now() - as_utc(last) < NOTE_EVERY):
            return
        task = begin(self._write_use(api_key.id), logger, "noting the use of an API key")
        self._noting[api_key.id] = task
        task.add_done_callback(lambda _: self._noting.pop(api_key.id, None))

    async def _write_use(self, key_id: str) -> None:
        try:
            await self.repository.update_api_key_last_used(key_id, utc_now())
        except RepositoryError as error:
            self._unnoted.failed(error, {"key_id": key_id})


async def _is_allowed() -> bool:
    return True
