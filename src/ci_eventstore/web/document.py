"""The parts of `/openapi.json`: shapes of requests and answers, errors, and how clients authenticate.

The routes make their answers without these classes, which only describe them.
"""

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from types import GenericAlias
from typing import Annotated, Any, Final, Literal, Union

from fastapi import Path, Query
from fastapi.security import APIKeyCookie, HTTPBearer
from pydantic import BaseModel, Field, create_model

from ci_common.models import EventType, JobFields, JobStatus
from ci_common.validation import MAX_ID_LENGTH
from ci_eventstore.job_fields import JOB_FIELDS, JobField
from ci_eventstore.web.streams.sse import MAX_NUMBER

COOKIE = "ci_session"
#: Printable characters without braces; no slash either, which would end the id in an address.
ID_SCHEMA: Final = {"minLength": 1, "maxLength": MAX_ID_LENGTH, "pattern": r"^[^\x00-\x1f\x7f-\x9f{}/]+$"}
POSITION_SCHEMA: Final = {"type": "integer", "minimum": 0, "maximum": MAX_NUMBER}

#: What a route answers, by status.
Responses = dict[int | str, dict[str, Any]]

JobId = Annotated[str, Path(description="The job's id.", json_schema_extra=dict(ID_SCHEMA))]

KnownIncarnation = Annotated[str | None, Query(description="that the job has to have; another one: 409")]

bearer = HTTPBearer(scheme_name="key", description="An API key, `ci_…`.", auto_error=False)
session = APIKeyCookie(
    name=COOKIE,
    scheme_name="session",
    description="A browser's session, from `POST /login`. Changes need the server's own `Origin` header.",
    auto_error=False,
)


def _answer_of(name: str, field: JobField) -> Any:
    kind = list[str] if field.type is list else field.type
    shape: Any = kind | None if name in _OPTIONAL else kind
    return Annotated[shape, Field(description=field.about)] if field.about else shape


_OPTIONAL = {field.name for field in fields(JobFields) if field.default is None}
#: In answers, the fields of a job's summary come first.
_SUMMARY = ("success", "start_time", "end_time")
_PUBLIC = {name: _answer_of(name, field) for name, field in JOB_FIELDS.items() if field.is_public}
_TRUNCATED = Annotated[bool, Field(description="the log has outgrown its budget: its middle isn't kept")]
_DELETED = Annotated[bool, Field(description="the log was deleted: requests for it are answered with 410")]
_INCARNATION = Annotated[str, Field(description="which life of the job and its store a position belongs to")]
_ANSWER: dict[str, Any] = {
    "job_id": str,
    "status": JobStatus,
    **{name: _PUBLIC[name] for name in _SUMMARY},
    **_PUBLIC,
    "attempts": Annotated[int, Field(description="how often it was tried; an attempt given back does not count")],
    "log_truncated": _TRUNCATED,
    "log_deleted": _DELETED,
    "incarnation": _INCARNATION,
}
#: pydantic 2.9 takes no bare type as a field.
_FIELDS: dict[str, Any] = {name: (shape, ...) for name, shape in _ANSWER.items()}
JobAnswer: type[BaseModel] = create_model("JobAnswer", __doc__="A job; more keys may follow.", **_FIELDS)


class Totals(BaseModel):
    """How much text a job's log has, its kept beginning alone while a longer one grows."""

    lines: Annotated[int, Field(description="an open last line included")]
    bytes: int
    is_open: Annotated[bool | None, Field(description="the last line has no newline; null if that isn't known")]
    position: Annotated[int, Field(description="of the last event that is counted")]


class SessionAnswer(BaseModel):
    """Who sends a request."""

    user_id: Annotated[str | None, Field(description="null if the caller may see all jobs")]
    name: str | None
    expires: Annotated[datetime | None, Field(description="when the browser's session ends; null with a key")]
    sees: Literal["own", "everything"]


_ALONE: dict[str, Any] = {
    "log_archived": (Annotated[bool, Field(description="its log, or the beginning of it, is in the archive")], ...),
    "totals": (Totals, ...),
    "position": (Annotated[int, Field(description="of the last event, as a stream's clients count")], ...),
    "place": (Annotated[int | None, Field(description="while it waits: the jobs before it, if that is known")], None),
}
OneJobAnswer: type[BaseModel] = create_model("OneJobAnswer", __doc__="A job by itself.", **_FIELDS, **_ALONE)
_UNAVAILABLE = Annotated[list[int], Field(description="partitions of a cluster that are away: their jobs are missing")]
_MORE: dict[str, Any] = {"jobs": (GenericAlias(list, (JobAnswer,)), ...), "unavailable": (_UNAVAILABLE, ...)}
PartialAnswer: type[BaseModel] = create_model("PartialAnswer", __doc__="The jobs that there are now.", **_MORE)
#: Several jobs; an object if the request asks for a `partial` list.
JobsAnswer: Any = Union[GenericAlias(list, (JobAnswer,)), PartialAnswer]  # noqa: UP007 - of types made at run time


class EventAnswer(BaseModel):
    """A visible event of a job: text of its log, or its end."""

    id: Annotated[int, Field(description="the event's position: 1, 2, 3 …")]
    type: EventType
    data: Annotated[str, Field(default="", description="the text of a log event")]
    success: Annotated[bool, Field(default=False, description="of a complete event")]
    time: datetime
    line: Annotated[int, Field(default=1, description="the line of the log that the text begins in, from 1")]


class LineAnswer(BaseModel):
    """A line of a log."""

    n: Annotated[int, Field(description="its number, from 1")]
    t: Annotated[datetime | None, Field(description="when its beginning was written")]
    text: Annotated[str, Field(description="without its newline; cut if it is long")]
    bytes: Annotated[int, Field(default=0, description="the whole length of a line that was cut")]


class LinesAnswer(BaseModel):
    """Some lines of a log, and how far that goes at this moment."""

    first: Annotated[int, Field(description="the number of the first of these lines")]
    lines: list[LineAnswer]
    total: Annotated[int, Field(description="lines of the whole log, an open last line included")]
    is_open: Annotated[bool, Field(description="the log's last line has no newline")]
    position: Annotated[int, Field(description="of the last event that `total` counts: a stream goes on after it")]
    ended: Annotated[bool, Field(description="the job has ended")]
    incarnation: _INCARNATION
    log_truncated: Annotated[bool, Field(default=False, description="of a running job: as the job has it")]


class PageAnswer(BaseModel):
    """A page of a job's events."""

    events: list[EventAnswer]
    next: Annotated[int, Field(description="what to ask for with `after`; without events, this is the end for now")]
    log_truncated: Annotated[bool, Field(default=False, description="of a running job: as the job has it")]


class GroupAnswer(BaseModel):
    """A group of lines, as the output marks it."""

    line: int
    end: int | None
    title: str
    depth: Annotated[int, Field(description="in how many groups it lies")]
    is_open: bool
    t: datetime
    seconds: float | None


class RemarkAnswer(BaseModel):
    """An error, a warning or a notice."""

    kind: Literal["error", "warning", "notice"]
    text: str


class MarkAnswer(RemarkAnswer):
    """A line that the output marks."""

    line: int


class OutlineAnswer(BaseModel):
    """Groups and marks that are new, or changed, after an event."""

    groups: list[GroupAnswer]
    marks: list[MarkAnswer]
    index: Annotated[list[list[int | datetime]], Field(description="now and then a line, its byte and its time")]
    total: Annotated[int, Field(description="of the log's lines that have ended")]
    position: Annotated[int, Field(description="of the last event that was read: ask again after it")]
    is_whole: Annotated[bool, Field(description="all of the log was read; else ask again at once")]
    is_limited: Annotated[bool, Field(description="groups or marks are left out, as there are too many")]
    provisional: Annotated[
        list[RemarkAnswer] | None,
        Field(description="marks in the end so far of a running job's log that has outgrown its budget"),
    ] = None


class HealthAnswer(BaseModel):
    """The server's health."""

    status: str


class ErrorDetail(BaseModel):
    """An error: a code for programs, a message for people."""

    code: str
    message: str


class ErrorAnswer(BaseModel):
    """The answer to a request that failed."""

    error: ErrorDetail


class Kind(StrEnum):
    """The kinds of text that routes answer with; the values are media types."""

    TEXT = "text/plain"
    STREAM = "text/event-stream"
    LINES = "application/x-ndjson"


#: An error's status and what it means here.
MEANINGS: Mapping[int, str] = {
    400: "A parameter or the body is invalid.",
    401: "No API key, or no valid one.",
    403: "A page of another site used a browser's session; or the store was opened for reading.",
    404: "There is no such job or webhook, or it is another user's.",
    409: "The job's state forbids it; or another incarnation was named; or there may be no more webhooks.",
    410: "The job was deleted.",
    413: "The body is too long.",
    415: "The body's type isn't accepted here.",
    416: "There are no such bytes.",
    422: "The `Idempotency-Key` was used for another job.",
    429: "Too many streams are open, or too much is searched or read of archived logs.",
    500: "Something is wrong on the server.",
    503: "The store is away; `Retry-After` says when to ask again.",
}
#: Errors that every request with a key or a session may get.
ASKED = (400, 401, 403, 413, 500, 503)

STREAM_TEXT = """Server-sent events. A visible event (`log`, `complete`) has an `id`, its position, and no name; all
others have a name. `data` is one line of JSON, whose `type` says which message it is: `docs/server.md` lists them."""
CHANGES_TEXT = """Server-sent events: `jobs` with the newest 1,000 of the caller's jobs, then `job` with each one that
changes, as it is now, and `deleted`. A client that comes back with the newest `id` gets what has changed since."""
SEARCH_TEXT = """An object of JSON on each line: `{"n", "t", "text", "at"}` for a line with hits, whose places count
UTF-16 code units; `{"progress": {"scanned"}}` now and then; at the end `{"done", "next", "hits", "scanned",
"position"}`: if it isn't done, the search goes on with line `next`. Of a running job whose log has outgrown its budget,
`{"provisional": {"t", "text", "at"}}` is a line of the end so far, which has no number yet."""
#: One event of a stream, in the words of OpenAPI 3.2, which FastAPI uses, too.
STREAM_ITEM: Final = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string"},
        "retry": {"type": "integer"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {
                "type": "object",
                "required": ["type"],
                "properties": {"type": {"type": "string"}, "data": {"type": "string"}},
            },
        },
    },
}
STREAM_EXAMPLE = """id: 18
data: {"type": "log", "data": "line\\n"}

id: 19
data: {"type": "complete", "success": true}

"""
STREAM: Final = {"itemSchema": STREAM_ITEM, "example": STREAM_EXAMPLE}


def answers(found: object, *statuses: int, status: int = 200, says: str = "") -> Responses:
    """Return the responses of a route: its answer, which is a model, a kind of text or nothing, and its errors."""
    good: dict[str, Any] = {"description": says or HTTPStatus(status).phrase}
    if isinstance(found, Kind):
        text = {"schema": {"type": "string"}}
        good["content"] = {found.value: STREAM if found is Kind.STREAM else text}
    elif found is not None:
        good["model"] = found
    found_errors = sorted({*statuses, 413, 500})
    described: Responses = {status: good}
    described |= {error: {"model": ErrorAnswer, "description": MEANINGS[error]} for error in found_errors}
    if 422 not in statuses:
        # Otherwise the framework documents its own 422 for unreadable requests, which these routes never send.
        described["4XX"] = {"description": "Another refusal, by a proxy or by the application around the routes."}
    return described


#: The responses of an export, in one of several formats.
EXPORTED = answers(Kind.TEXT, *ASKED, 404, 410, says="The job's visible events in that format")
for media_type in ("application/x-ndjson", "application/x-asciicast"):
    EXPORTED[200]["content"][media_type] = {"schema": {"type": "string"}}


def headers(*named: tuple[str, str]) -> dict[str, Any]:
    """Describe headers, given by name and purpose, that a route reads without the framework."""
    shape = {"in": "header", "required": False, "schema": {"type": "string"}}
    return {"parameters": [{"name": name, "description": text, **shape} for name, text in named]}


def body(is_needed: bool = True, **schemas: dict[str, Any]) -> dict[str, Any]:
    """Describe a body as `json`, `form` and `multipart`, which the route reads without the framework."""
    names = {
        "json": "application/json",
        "form": "application/x-www-form-urlencoded",
        "multipart": "multipart/form-data",
    }
    return {
        "requestBody": {
            "required": is_needed,
            "content": {names[kind]: {"schema": schema} for kind, schema in schemas.items()},
        }
    }
