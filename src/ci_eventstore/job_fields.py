"""The fields of `Job` that the store keeps, each defined once: its form in streams, hashes, answers and tables.

A new field of a job needs a field of `JobFields` and an entry here, and nothing else.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from ci_common.models import Job, to_rfc3339


class JobField(NamedTuple):
    """One field's form outside of the model: in facts, answers and tables."""

    #: Of its value in facts.
    type: type
    #: How `jobs show` calls it; "" if it is shown as part of something else.
    label: str = ""
    #: Whether clients of the HTTP server see it, and its description in the OpenAPI document.
    is_public: bool = False
    about: str = ""
    #: Whether no job has it that hasn't ended.
    is_result: bool = False


#: In the order of the `created` fact, without the status, which has a part of its own everywhere.
JOB_FIELDS: Mapping[str, JobField] = {
    "user_id": JobField(str, "user"),
    "created_at": JobField(datetime, "created", is_public=True),
    "name": JobField(str, "name", is_public=True),
    "queue": JobField(str, "queue", is_public=True),
    "command": JobField(list, "command", is_public=True),
    "zip_file_path": JobField(str, "project"),
    "success": JobField(bool, is_public=True, about="null until the job has ended", is_result=True),
    "start_time": JobField(datetime, "started", is_public=True),
    "end_time": JobField(datetime, "ended", is_public=True, is_result=True),
    "container_id": JobField(str, "container"),
    "exit_code": JobField(int, is_public=True, about="of the job's command, where it is known", is_result=True),
    "signal": JobField(str, is_public=True, about="that ended the job's command, where it is known", is_result=True),
}
#: The names alone, for the creation of jobs.
JOB_FIELD_NAMES = tuple(JOB_FIELDS)


def job_json(job: Job, *, is_public: bool = False) -> dict[str, Any]:
    """Return a job ready for JSON, without its events: all fields, or with `is_public` those that HTTP shows."""
    shown = job.to_summary_dict()
    for name, field in JOB_FIELDS.items():
        if name not in shown and (field.is_public or not is_public):
            value = getattr(job, name)
            shown[name] = to_rfc3339(value) if field.type is datetime else value
    said = {"attempts": job.attempts, "log_truncated": job.log_truncated, "log_deleted": job.log_deleted}
    return {**shown, **said}
