"""A log as a response: one that breaks off is seen to be cut off, whatever stands between it and the client."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, NoReturn

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ci_eventstore.web.errors import ANSWERED, ResponseCutError, error_response

MEDIA_TYPE = "text/plain; charset=utf-8"


class LogResponse(StreamingResponse):
    """Sends pieces of a log; an error if not even the first can be had, and no regular end if a later one can't."""

    def __init__(self, pieces: AsyncGenerator[bytes], status_code: int, headers: Mapping[str, str]) -> None:
        super().__init__(pieces, status_code, headers, MEDIA_TYPE)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, or the answer to what went wrong before its first byte."""
        try:
            first = await anext(self._pieces, b"")
        except ANSWERED as error:
            await error_response(error)(scope, receive, send)
            return
        async with aclosing(self._pieces), aclosing(self._all(first)) as self.body_iterator:
            await super().__call__(scope, receive, send)

    async def _all(self, first: bytes) -> AsyncGenerator[Any]:
        try:
            if first:
                yield first
            async for piece in self._pieces:
                yield piece
        except ANSWERED as error:
            cut = ResponseCutError(f"a log was cut off: {error}")
            cut.__cause__ = error
            yield _Broken(cut)
            raise cut from error


class _Broken(bytes):
    """A piece of a body that can't be sent: whoever tries raises the error.

    Middleware such as Starlette's `BaseHTTPMiddleware` runs the application in a task, and ends the response regularly
    when that fails. A body reaches the code that sends it.
    """

    def __new__(cls, error: Exception) -> "_Broken":
        """Return one that isn't empty."""
        return super().__new__(cls, b"?")

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __len__(self) -> NoReturn:
        """Raise the error."""
        raise self._error

    def __bool__(self) -> NoReturn:
        """Raise the error."""
        raise self._error
