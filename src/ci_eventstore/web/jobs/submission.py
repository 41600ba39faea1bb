"""What a client sends to have a job run: as JSON, or as a form with a zip file."""

import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex
from typing import IO, Annotated

from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from ci_common.models import Job, JobStatus
from ci_eventstore import zip_file
from ci_eventstore.errors import ProjectError
from ci_eventstore.jobs.state import JobState
from ci_eventstore.web.errors import WebError, invalid
from ci_eventstore.web.route import limited

#: A job may have this many bytes without its zip file.
MAX_FIELDS_BYTES = 1024 * 1024
MAX_FIELDS = 1000


def _with_program(arguments: list[str]) -> list[str]:
    if not arguments[0]:
        raise ValueError("a program's name isn't empty")
    return arguments


#: A program and its arguments.
Arguments = Annotated[
    list[str],
    Field(min_length=1, json_schema_extra={"prefixItems": [{"type": "string", "minLength": 1}]}),
    AfterValidator(_with_program),
]


class Submission(BaseModel):
    """A job as a client describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: A program and its arguments, or a line for `sh -c`.
    command: Arguments | Annotated[str, Field(min_length=1)]
    queue: str = "default"
    name: str | None = None

    @property
    def arguments(self) -> list[str]:
        """The program and its arguments."""
        return ["sh", "-c", self.command] if isinstance(self.command, str) else self.command


@asynccontextmanager
async def received(request: Request, max_project_bytes: int) -> AsyncIterator[tuple[Submission, IO[bytes] | None]]:
    """Read a request's body: the job, and its zip file if it has one, which is open until this is left.

    WebError 400, 413 and 415.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        sent = await limited(request, MAX_FIELDS_BYTES).body()
        yield _validated(lambda: Submission.model_validate_json(sent)), None
        return
    if kind != "multipart/form-data":
        raise WebError(415, "media_type", "a job is sent as application/json or as multipart/form-data")
    try:
        form = await request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELDS_BYTES)
    except HTTPException as error:
        # Starlette raises this for a form that it can't read.
        raise WebError(400, "invalid", f"the form can't be read: {error.detail}") from None
    try:
        submission, project = _from_form(form)
        if project is not None and (project.size or 0) > max_project_bytes:
            raise WebError(413, "too_large", f"a zip file may have up to {max_project_bytes} bytes")
        yield submission, None if project is None else project.file
    finally:
        await form.close()


def _from_form(form: FormData) -> tuple[Submission, UploadFile | None]:
    """Return the job in a form's fields, and the form's file, whatever its field is called."""
    fields: dict[str, object] = {}
    project = None
    for name in form:
        values = form.getlist(name)
        texts = [value for value in values if isinstance(value, str)]
        files = [value for value in values if isinstance(value, UploadFile)]
        project = files[0] if files else project
        if texts:
            fields[name] = texts if name == "command" and len(texts) > 1 else texts[-1]
    return _validated(lambda: Submission.model_validate(fields)), project


def _validated(read: Callable[[], Submission]) -> Submission:
    try:
        return read()
    except ValidationError as error:
        raise invalid(error.errors()) from None


def keep(project: IO[bytes], folder: Path, job_id: str) -> Path:
    """Put a zip file into the folder, named after its job and content; ProjectError if it is none, OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = folder / f".{token_hex(8)}.new"
    try:
        with draft.open("xb") as file:
            project.seek(0)
            shutil.copyfileobj(project, file, 1024 * 1024)
            file.flush()
            os.fsync(file.fileno())
        try:
            with zip_file.opened(draft):
                pass
        except ProjectError as error:
            raise ProjectError(f"the file that came with the job can't be taken: {error}") from None
        except zip_file.UNREADABLE:
            raise ProjectError("the file that came with the job is no zip file") from None
        with draft.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        target = folder / f"{job_id}.{digest[:16]}.zip"
        draft.rename(target)
        return target
    finally:
        draft.unlink(missing_ok=True)


def job_id_for(user_id: str | None, idempotency_key: str) -> str:
    """Return the id of the job that a user's idempotency key stands for, always the same. Pure."""
    text = f"{'' if user_id is None else user_id}\0{idempotency_key}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def resubmitted(job_id: str, state: JobState) -> Job:
    """Return a job that does again what another one did; WebError 409 if that can't be done."""
    if not state.command:
        raise WebError(409, "conflict", "this job has no command that could be run again")
    if state.ends_if_lost:
        raise WebError(409, "conflict", "this job was run where it was started, not from a queue: start it there again")
    if state.zip_file_path is not None and not Path(state.zip_file_path).is_file():
        raise WebError(409, "conflict", "this job's project isn't there any more: submit it again with its files")
    return Job(
        id=job_id,
        user_id=state.user_id,
        status=JobStatus.QUEUED,
        zip_file_path=state.zip_file_path,
        name=state.name,
        queue=state.queue,
        command=list(state.command),
    )
