"""Routes of jobs: list, show, create, cancel."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import IO, Annotated, Any

from fastapi import Depends, Header, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, WithJsonSchema

from ci_common.errors import JobAlreadyExistsError, JobGoneError
from ci_common.models import Job, JobStatus
from ci_eventstore.errors import OutcomeUnknownError
from ci_eventstore.jobs.listings import checked_page
from ci_eventstore.web.changes.listing import Queue, Statuses, Text, has_text, wanted_of
from ci_eventstore.web.conditions import PRIVATE, has_tag, tag_of
from ci_eventstore.web.context import Web
from ci_eventstore.web.document import ID_SCHEMA, JobId, body
from ci_eventstore.web.errors import WebError
from ci_eventstore.web.job_view import JobViews, summary
from ci_eventstore.web.jobs.submission import Arguments, Submission, job_id_for, keep, received, resubmitted

#: A search looks through this many jobs; no list has more.
SEARCHED = 1_000

IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", min_length=1, max_length=255, description="makes one job of many requests"),
]


class CancelRequest(BaseModel):
    """Why a job is cancelled."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class JobsAsked:
    """Which part of a list is asked for."""

    limit: Annotated[int, Query(ge=1, le=SEARCHED)] = 100
    before: Annotated[
        str | None,
        Query(description="only jobs that come after this one, by its id"),
        WithJsonSchema({"type": "string", **ID_SCHEMA}),
    ] = None
    partial: Annotated[
        bool, Query(description="an object, which has what there is while a part of a cluster is away")
    ] = False


class JobRoutes:
    """The routes under `/jobs` that answer at once."""

    #: What the document says of a cancel's body.
    CANCEL_BODY = body(is_needed=False, json=CancelRequest.model_json_schema())

    def __init__(self, web: Web, views: JobViews) -> None:
        self._web = web
        self._views = views
        self._repository = web.repository

    async def list_jobs(
        self,
        request: Request,
        asked: Annotated[JobsAsked, Depends()],
        status: Statuses = None,
        queue: Queue = None,
        text: Text = None,
    ) -> Response:
        """List jobs, the newest first.

        An array has all jobs that there are; while a partition is away, only a `partial` list can be had. By `queue`
        and `text`, the newest 1,000 are looked through, of the statuses that are asked for: `Jobs-Searched` says so.
        """
        caller = await self._web.caller(request)
        wanted = wanted_of(status, queue)
        is_search = queue is not None or text is not None
        page = checked_page(caller.user_id, status, SEARCHED if is_search else asked.limit, asked.before)
        found = await self._web.engine.listings.page(*page, is_partial=asked.partial)
        jobs = [
            job for job in found.jobs if wanted.queue in (None, job.queue) and (text is None or has_text(job, text))
        ]
        shown = await self._summaries(jobs[: asked.limit])
        answer = {"jobs": shown, "unavailable": found.unavailable} if asked.partial else shown
        return _unless_known(request, answer, {"Jobs-Searched": str(len(found.jobs))} if is_search else {})

    async def _summaries(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        incarnations = await self._web.incarnations([job.id for job in jobs])
        return list(map(summary, jobs, incarnations))

    async def show(self, request: Request, job_id: JobId) -> dict[str, Any]:
        """Show a job, with its log's totals and, while it waits, its place in the queue."""
        caller = await self._web.caller(request)
        return await self._views.show(job_id, await self._web.state(job_id, caller.user_id))

    async def cancel(self, request: Request, job_id: JobId) -> dict[str, Any]:
        """Cancel a job; a controller that has it is asked to stop it."""
        caller = await self._web.caller(request)
        sent = await request.body()
        try:
            reason = CancelRequest.model_validate_json(sent).reason if sent else None
        except ValidationError:
            raise WebError(400, "invalid", 'the body is empty or {"reason": "…"}') from None
        await self._repository.cancel_job(job_id, reason, caller.user_id)
        return await self.show(request, job_id)

    async def delete(self, request: Request, job_id: JobId) -> Response:
        """Delete a job that has ended, and its log; doing so again does nothing."""
        caller = await self._web.caller(request)
        await self._repository.delete_job(job_id, caller.user_id)
        return Response(status_code=204)

    async def delete_log(self, request: Request, job_id: JobId) -> Response:
        """Delete the log of a job that has ended, which stays; doing so again does nothing."""
        caller = await self._web.caller(request)
        await self._repository.delete_log(job_id, caller.user_id)
        return Response(status_code=204)

    async def create(
        self,
        request: Request,
        key: IdempotencyKey = None,
    ) -> Response:
        """Put a job into a queue; with an `Idempotency-Key` once, however often it is asked for."""
        caller = await self._web.caller(request)
        settings = self._web.settings
        job_id = token_hex(8) if key is None else job_id_for(caller.user_id, key)
        async with received(request, settings.max_project_bytes) as (submission, project):
            self._check_queue(submission.queue, caller.user_id)
            path = None if project is None else await self._keep(project, job_id)
        job = Job(
            id=job_id,
            user_id=caller.user_id,
            status=JobStatus.QUEUED,
            zip_file_path=None if path is None else str(path),
            name=submission.name,
            queue=submission.queue,
            command=submission.arguments,
        )
        created = await self._create(job, is_repeatable=key is not None)
        return await self._created(created, is_new=created is job, folder=request.url.path)

    async def again(self, request: Request, job_id: JobId, key: IdempotencyKey = None) -> Response:
        """Submit a job's command again: as another job with the same queue, name, user and project.

        With an `Idempotency-Key` once, however often it is asked for.
        """
        caller = await self._web.caller(request)
        state = await self._web.state(job_id, caller.user_id)
        new_id = token_hex(8) if key is None else job_id_for(caller.user_id, key)
        job = await asyncio.to_thread(resubmitted, new_id, state)
        self._check_queue(job.queue, caller.user_id)
        created = await self._create(job, is_repeatable=key is not None, has_own_project=False)
        return await self._created(created, is_new=created is job, folder=request.url.path.rsplit("/", 2)[0])

    async def _created(self, job: Job, *, is_new: bool, folder: str) -> Response:
        [incarnation] = await self._web.incarnations([job.id])
        return JSONResponse(summary(job, incarnation), 201 if is_new else 200, {"Location": f"{folder}/{job.id}"})

    def submission_body(self) -> dict[str, Any]:
        """Return what the document says of a submission's body."""
        queues = self._web.settings.queues
        queue = {"type": "string", **ID_SCHEMA} if queues is None else {"type": "string", "enum": sorted(queues)}
        default = {"default": "default"} if queues is None or "default" in queues else {}
        as_json = Submission.model_json_schema()
        as_json["properties"]["queue"] = {**queue, **default, "title": "Queue"}
        file = {"type": "string", "format": "binary", "contentMediaType": "application/zip"}
        command = TypeAdapter(Arguments).json_schema() | {"title": "Command"}
        fields = {**as_json["properties"], "command": command, "name": {"type": "string"}, "project": file}
        as_form = {**as_json, "title": "SubmissionForm", "properties": fields}
        described = body(json=as_json, multipart=as_form)
        described["requestBody"]["content"]["multipart/form-data"]["encoding"] = {
            "project": {"contentType": "application/zip"}
        }
        return described

    def _check_queue(self, queue: str, user_id: str | None) -> None:
        allowed = self._web.settings.queues
        if user_id is not None and allowed is not None and queue not in allowed:
            raise WebError(
                400, "invalid", f"the queue {queue!r} isn't one of this server's: {', '.join(sorted(allowed))}"
            )

    async def _keep(self, project: IO[bytes], job_id: str) -> Path:
        folder = self._web.settings.project_folder
        if folder is None:
            raise WebError(415, "media_type", "this server takes no zip files")
        return await asyncio.to_thread(keep, project, folder, job_id)

    async def _create(self, job: Job, *, is_repeatable: bool, has_own_project: bool = True) -> Job:
        """Store a job and return it, or an equal one that was stored before; without it, its own project goes."""
        try:
            await self._repository.create_job(job)
        except JobAlreadyExistsError:
            stored = await self._repository.get_job_summary(job.id, job.user_id) if is_repeatable else None
            if stored is None or not _is_same(job, stored):
                if has_own_project and (stored is None or stored.zip_file_path != job.zip_file_path):
                    _remove(job)
                if stored is None:
                    raise
                text = "this Idempotency-Key was used for another job: take a new one for each"
                raise WebError(422, "key_used", text) from None
            return stored
        except JobGoneError:
            if has_own_project:
                _remove(job)
            raise
        except OutcomeUnknownError:
            # If the job was created, it needs its project.
            raise
        except BaseException:
            if has_own_project and not is_repeatable:
                _remove(job)
            raise
        return job


def _unless_known(request: Request, content: Any, headers: dict[str, str]) -> Response:
    """Return an answer for clients that ask again and again: 304 if it is what the client has."""
    response = JSONResponse(content, headers={**headers, **PRIVATE})
    tag = tag_of(response.body)
    response.headers["ETag"] = tag
    if has_tag(request.headers.get("if-none-match"), tag):
        kept = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return Response(status_code=304, headers=kept)
    return response


def _is_same(job: Job, stored: Job) -> bool:
    """Return whether two requests asked for the same job; the name of a zip file holds its content's hash."""
    wanted = (job.command, job.queue, job.name, job.zip_file_path)
    return wanted == (stored.command, stored.queue, stored.name, stored.zip_file_path)


def _remove(job: Job) -> None:
    """Remove the zip file of a job that doesn't exist."""
    if job.zip_file_path is not None:
        Path(job.zip_file_path).unlink(missing_ok=True)
