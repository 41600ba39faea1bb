"""Which error is answered with which status, in one place, and in one shape.

{"error": {"code": "not_found", "message": "there is no job 'x'"}}
"""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi.responses import JSONResponse

from ci_common.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    JobGoneError,
    LogDeletedError,
    NotFoundError,
    RepositoryError,
)
from ci_eventstore.connection.outage_log import Outages
from ci_eventstore.errors import (
    AcknowledgedEventsLostError,
    ArchiveUnavailableError,
    NotInitializedError,
    OutcomeUnknownError,
    ProjectionDamagedError,
    ProjectionMissingError,
    ReadOnlyAccessError,
    StoreUnavailableError,
)

logger = logging.getLogger("ci_eventstore.web")
#: Of all applications in this process.
_OUTAGES = Outages()

RETRY_SECONDS = 2
_RETRY = {"Retry-After": str(RETRY_SECONDS)}


class WebError(Exception):
    """Raised when a request can't be answered as it was asked; it holds what the response says."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


class ResponseCutError(Exception):
    """Raised when a response that has begun can't be sent to its end: its connection has to break off."""


UNAVAILABLE = WebError(503, "unavailable", "the store can't be used at the moment: try again", _RETRY)
ARCHIVE_UNAVAILABLE = WebError(
    503, "archive_unavailable", "the archive that has this log can't be used at the moment: try again", _RETRY
)
UNKNOWN = WebError(503, "outcome_unknown", "the store gave no answer: the change was made, or never will be", _RETRY)
INTERNAL = WebError(500, "internal", "something is wrong on the server")

#: The answer to an error is the first that fits. A status and a code come with the error's own message; clients aren't
#: told what concerns the server alone.
ANSWERS: tuple[tuple[type[RepositoryError], tuple[int, str] | WebError], ...] = (
    (JobGoneError, (410, "gone")),
    (LogDeletedError, (410, "log_deleted")),
    (NotFoundError, (404, "not_found")),
    (InvalidInputError, (400, "invalid")),
    (ConflictError, (409, "conflict")),
    (AlreadyExistsError, (409, "conflict")),
    (OutcomeUnknownError, UNKNOWN),
    (StoreUnavailableError, UNAVAILABLE),
    (ArchiveUnavailableError, ARCHIVE_UNAVAILABLE),
    (NotInitializedError, UNAVAILABLE),
    (AcknowledgedEventsLostError, UNAVAILABLE),
    (ProjectionMissingError, UNAVAILABLE),
    (ProjectionDamagedError, UNAVAILABLE),
    (ReadOnlyAccessError, (403, "read_only")),
    (RepositoryError, INTERNAL),
)


def invalid(problems: Sequence[Any], *, skipped: int = 0) -> WebError:
    """Return the answer to what pydantic found wrong: each part's name, without its first words, and why. Pure."""
    said = [f"{'.'.join(map(str, one['loc'][skipped:])) or 'the body'}: {one['msg']}" for one in problems]
    return WebError(400, "invalid", "; ".join(said))


def failure_of(error: Exception) -> WebError:
    """Return the answer to an error. Pure."""
    if isinstance(error, WebError):
        return error
    answer = next((answer for kind, answer in ANSWERS if isinstance(error, kind)), INTERNAL)
    return answer if isinstance(answer, WebError) else WebError(*answer, str(error))


def error_response(error: Exception) -> JSONResponse:
    """Return the response to an error, and log an error that is no user's fault."""
    failure = failure_of(error)
    if failure.status == 500:
        logger.warning("answered with 500: %s", error, exc_info=error)
    elif failure.status > 500:
        # An outage is one cause, whatever its errors say; each kind of damage is another.
        kind = "" if isinstance(error, StoreUnavailableError | OutcomeUnknownError | WebError) else str(error)
        _OUTAGES.of(logger, "answered with 503: %s", kind=kind).failed(error)
    content = {"error": {"code": failure.code, "message": str(failure)}}
    return JSONResponse(content, failure.status, failure.headers)


#: The errors that `error_response` is for; any other exception is a bug, and flies.
ANSWERED = (WebError, RepositoryError)
