"""Post a message to an address that may be reached, and read nothing of the answer but its head.

Each message has a connection of its own, to an address that was looked up and judged just before: whoever changes what
a name stands for gains nothing by it. Nothing else decides where it goes: no redirect, no proxy, no library's setting.
"""

import asyncio
import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import urlsplit

from ci_eventstore.webhooks.addresses import Network, may_be_reached
from ci_eventstore.webhooks.delivery import Outcome

#: From the look-up of the address to the end of the answer's head.
POST_SECONDS = 15.0
#: For one of several addresses.
CONNECT_SECONDS = 5.0
MAX_HEAD_BYTES = 16_384
#: Heads such as `100 Continue`, before the answer's own.
MAX_INTERIM = 5
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: |\r\n)")
_RETRY_AFTER = re.compile(rb"\r\nretry-after:[ \t]*([0-9]{1,6})[ \t]*\r\n", re.IGNORECASE)


class RefusedAddressError(Exception):
    """Raised when a name stands for no address that may be reached."""


def status_in(head: bytes) -> Outcome | None:
    """Return what an answer's head says, None if it can't be read. Pure."""
    status = _STATUS.match(head)
    if status is None:
        return None
    retry_after = _RETRY_AFTER.search(head)
    return Outcome(int(status[1]), retry_after_seconds=float(retry_after[1]) if retry_after else 0.0)


def request(url: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the bytes of a request. Pure."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [
        f"POST {target} HTTP/1.1",
        f"host: {parts.netloc}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "user-agent: ci-eventstore",
        "connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


class Poster:
    """Posts messages, to public addresses and to those that the operator allows."""

    def __init__(self, allowed: Collection[Network] = (), *, seconds: float = POST_SECONDS) -> None:
        self._allowed = allowed
        self._seconds = seconds
        self._tls = ssl.create_default_context()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Post once, within the time limit, and return what came of it; no failure raises."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._post(url, request(url, headers, body))
        except TimeoutError:
            return Outcome(error=f"no answer within {self._seconds:g} s")
        except RefusedAddressError as error:
            return Outcome(error=str(error))
        except ssl.SSLError as error:
            return Outcome(error=f"TLS failed: {getattr(error, 'verify_message', '') or error.reason or error}")
        except (OSError, ValueError) as error:
            return Outcome(error=f"it can't be reached: {error}")

    async def _post(self, url: str, sent: bytes) -> Outcome:
        reader, writer = await self._connect(url)
        try:
            writer.write(sent)
            # A receiver that answers before it has read everything has answered all the same.
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            return await _answer(reader)
        finally:
            writer.transport.abort()

    async def _connect(self, url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the first address that may be reached and can be; RefusedAddressError, OSError."""
        parts = urlsplit(url)
        is_plain = parts.scheme == "http"
        host = parts.hostname or ""
        port = parts.port or (80 if is_plain else 443)
        found = await _look_up(host, port)
        good = [address for address in found if may_be_reached(address, self._allowed, is_plain=is_plain)]
        if not good:
            why = "plain http is for allowed addresses" if is_plain else "it is no public address"
            raise RefusedAddressError(f"{host} may not be reached: {why}")
        failure: OSError | None = None
        for address in good:
            try:
                async with asyncio.timeout(CONNECT_SECONDS if len(good) > 1 else None):
                    return await asyncio.open_connection(
                        address,
                        port,
                        limit=MAX_HEAD_BYTES,
                        ssl=None if is_plain else self._tls,
                        server_hostname=None if is_plain else host,
                    )
            except OSError as error:
                # TimeoutError is one, too.
                failure = error
        raise failure or OSError("no address")


async def _answer(reader: asyncio.StreamReader) -> Outcome:
    """Return what a receiver answers; the heads that come before an answer are skipped."""
    for _ in range(MAX_INTERIM):
        try:
            found = status_in(await reader.readuntil(b"\r\n\r\n"))
        except asyncio.IncompleteReadError:
            return Outcome(error="the connection ended without an answer")
        except asyncio.LimitOverrunError:
            return Outcome(error=f"the answer's head is longer than {MAX_HEAD_BYTES} bytes")
        if found is None:
            return Outcome(error="the answer isn't HTTP")
        if found.status is None or found.status >= 200:
            return found
    return Outcome(error="there is no end of answers that announce another one")


async def _look_up(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a name; OSError.

    The thread is the look-up's own, so that a slow one keeps neither others waiting nor the process from ending.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def tell(found: list[str] | Exception) -> None:
        if not answer.done():
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

    def look() -> None:
        found: list[str] | Exception
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(info[4][0]) for info in infos))
        except (OSError, UnicodeError) as error:
            found = error
        # The loop may have ended.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, found)

    threading.Thread(target=look, name="webhook-look-up", daemon=True).start()
    return await answer
