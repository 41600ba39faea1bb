"""What clients ask of lists of jobs, and which jobs of a list that is. Pure."""

from collections.abc import Iterable
from typing import Annotated

from fastapi import Query
from pydantic import WithJsonSchema

from ci_common.models import Job, JobStatus
from ci_common.validation import check_id
from ci_eventstore.web.changes.listeners import Filter
from ci_eventstore.web.document import ID_SCHEMA

STATUS_SCHEMA = {"type": "string", "enum": list(JobStatus)}
Statuses = Annotated[
    list[str] | None,
    Query(alias="status", description="only jobs of these statuses"),
    WithJsonSchema({"type": "array", "items": STATUS_SCHEMA}),
]
Queue = Annotated[
    str | None, Query(description="only jobs of this queue"), WithJsonSchema({"type": "string", **ID_SCHEMA})
]
Text = Annotated[
    str | None, Query(min_length=1, description="only jobs with all these words in name, command, id, queue or user")
]


def wanted_of(statuses: Iterable[str] | None, queue: str | None) -> Filter:
    """Return which jobs a client wants; InvalidInputError."""
    wanted = None if statuses is None else frozenset(map(JobStatus.parse, statuses))
    return Filter(wanted, None if queue is None else check_id("queue", queue))


def has_text(job: Job, text: str) -> bool:
    """Return whether each word of a text is in a job's name, command, id, queue or user, in capitals or not.

    The page's filter has the same rule.
    """
    searched = "\n".join(filter(None, (job.name, *(job.command or ()), job.id, job.queue, job.user_id))).lower()
    return all(word in searched for word in text.lower().split())
