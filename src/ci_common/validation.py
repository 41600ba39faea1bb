"""What a repository accepts: pure checks, called before anything is queued or sent."""

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from ci_common.errors import (
    EventTooLargeError,
    InvalidArgumentError,
    InvalidEventError,
    InvalidIdError,
    InvalidJobError,
    InvalidPositionError,
    InvalidTextError,
    InvalidTimeError,
)
from ci_common.models import APIKey, EventType, Job, JobEvent, Outcome, User, as_list, as_utc
from ci_common.transitions import ENDED

#: The longest id in characters.
MAX_ID_LENGTH = 256
#: The most UTF-8 bytes of one event's data, unless a repository says otherwise.
MAX_EVENT_BYTES = 16 * 1024 * 1024
SIGNAL_PATTERN = re.compile(r"SIG[A-Z0-9+-]{1,20}")


def check_id(what: str, value: str) -> str:
    """Return the id; InvalidIdError unless it is 1 to 256 characters, none of them a control character or a brace.

    Braces are the cluster's hash tags; `what` names the id in the message, such as "job id".
    """
    if not isinstance(value, str):
        raise InvalidIdError(what, value, "is not text")
    if not value:
        raise InvalidIdError(what, value, "is empty")
    if len(value) > MAX_ID_LENGTH:
        raise InvalidIdError(what, value, f"is longer than {MAX_ID_LENGTH} characters")
    if "{" in value or "}" in value or not value.isprintable():
        raise InvalidIdError(what, value, "has a brace, a control character or another that can't be printed")
    return value


def optional_id(what: str, value: str | None) -> str | None:
    """Return an id that may be left out, checked; InvalidIdError."""
    return None if value is None else check_id(what, value)


def check_optional_id(what: str, value: str | None) -> None:
    """Raise InvalidIdError unless the id is None or can be one."""
    if value is not None:
        check_id(what, value)


def check_position(value: int) -> int:
    """Return the event id; InvalidPositionError unless it is a whole number from 0 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidPositionError(value)
    return value


def check_flag(what: str, value: bool) -> bool:
    """Return the value; InvalidArgumentError unless it is True or False."""
    if not isinstance(value, bool):
        raise InvalidArgumentError(what, value, "True or False")
    return value


def check_whole(what: str, value: int) -> int:
    """Return the value; InvalidArgumentError unless it is a whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidArgumentError(what, value, "a whole number")
    return value


def is_number(value: object, least: float, most: float = math.inf, *, is_whole: bool = False) -> bool:
    """Tell whether a value is a number between two limits, both included."""
    kinds = int if is_whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and least <= value <= most


def check_texts(what: str, values: Iterable[str]) -> tuple[str, ...]:
    """Return several texts; InvalidArgumentError for a single one, or anything else."""
    texts = as_list(what, values, "a list of texts")
    for text in texts:
        if not isinstance(text, str):
            raise InvalidArgumentError(what, texts, "a list of texts")
    return tuple(texts)


def as_text(what: str, value: str) -> str:
    """Return a text that is looked up, whatever is in it; InvalidTextError if it is none."""
    if not isinstance(value, str):
        raise InvalidTextError(what, value, "is not text")
    return value


def check_text(what: str, value: str | None) -> None:
    """Raise InvalidTextError if an optional short text is no text, or can't be written as UTF-8."""
    if value is None:
        return
    if not isinstance(value, str):
        raise InvalidTextError(what, value, "is not text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidTextError(what, value) from None


def check_time(what: str, value: datetime) -> None:
    """Raise InvalidTimeError unless it is a datetime that can be written in UTC."""
    try:
        as_utc(value)
    except (AttributeError, TypeError, OverflowError):
        raise InvalidTimeError(what, value) from None


def check_optional_time(what: str, value: datetime | None) -> None:
    """Raise InvalidTimeError unless it is None or can be written in UTC."""
    if value is not None:
        check_time(what, value)


def fold_email(email: str) -> str:
    """Return the form in which emails are compared: whatever their case."""
    return email.casefold()


def check_user(user: User) -> None:
    """Raise unless the user's fields can be stored."""
    if not isinstance(user, User):
        raise InvalidArgumentError("user", user, "a User")
    check_id("user id", user.id)
    check_id("email", user.email)
    if user.name is None:
        raise InvalidTextError("user name", user.name, "is not text")
    check_text("user name", user.name)
    check_time("created_at", user.created_at)
    check_flag("is_active", user.is_active)


def check_api_key(api_key: APIKey) -> None:
    """Raise unless the key's fields can be stored."""
    if not isinstance(api_key, APIKey):
        raise InvalidArgumentError("api_key", api_key, "an APIKey")
    check_id("API key id", api_key.id)
    check_id("user id", api_key.user_id)
    check_id("API key hash", api_key.key_hash)
    check_text("API key name", api_key.name)
    check_time("created_at", api_key.created_at)
    check_optional_time("last_used_at", api_key.last_used_at)
    check_flag("is_active", api_key.is_active)


def check_job(job: Job) -> None:
    """Raise unless the job's fields can be stored and don't contradict each other."""
    if not isinstance(job, Job):
        raise InvalidArgumentError("job", job, "a Job")
    check_id("job id", job.id)
    if job.user_id is not None:
        check_id("user id", job.user_id)
    check_id("queue", job.queue)
    check_time("created_at", job.created_at)
    texts = (("name", job.name), ("container_id", job.container_id), ("zip_file_path", job.zip_file_path))
    for what, text in texts:
        if text is not None:
            check_text(what, text)
    for argument in job.command or ():
        if argument is None:
            raise InvalidTextError("command", argument, "is not text")
        check_text("command", argument)
    for what, time in (("start_time", job.start_time), ("end_time", job.end_time)):
        if time is not None:
            check_time(what, time)
    if job.success is not None:
        check_flag("success", job.success)
    for event in job.events:
        _check_event(event)
    _check_result(job)


def _check_result(job: Job) -> None:
    completions = [event for event in job.events if event.type == EventType.COMPLETE] if job.events else []
    if job.status not in ENDED:
        if completions or job.success is not None or job.end_time is not None:
            raise InvalidJobError(job.id, f"it is {job.status}, so it can't have a result, an end or a complete event")
    elif len(completions) > 1:
        raise InvalidJobError(job.id, "it has more than one complete event")
    elif completions and job.success is not None and completions[0].success != job.success:
        raise InvalidJobError(job.id, "its complete event says another result than its `success`")
    elif job.status != "completed" and (job.success or (completions and completions[0].success)):
        raise InvalidJobError(job.id, f"it is {job.status}, so its result can't be success=True")
    if completions or job.exit_code is not None or job.signal is not None:
        _check_outcome(job, completions)


def _check_outcome(job: Job, completions: Sequence[JobEvent]) -> None:
    outcome = None
    if job.exit_code is not None or job.signal is not None:
        outcome = Outcome(job.exit_code, job.signal)
        if job.status not in ENDED or not is_outcome(outcome):
            raise InvalidJobError(job.id, f"{outcome!r} is no exit code or signal of a job that has ended")
    for event in completions:
        if event.outcome is not None and outcome not in (None, event.outcome):
            raise InvalidJobError(job.id, "its complete event says another exit code or signal")


def is_outcome(outcome: object) -> bool:
    """Tell whether an outcome is an exit code, or the name of a signal."""
    if not isinstance(outcome, Outcome):
        return False
    code, name = outcome.exit_code, outcome.signal
    if name is None:
        return isinstance(code, int) and not isinstance(code, bool) and 0 <= code < 2**32
    return code is None and isinstance(name, str) and SIGNAL_PATTERN.fullmatch(name) is not None


def accept_event(event: JobEvent, now: datetime, max_bytes: int = MAX_EVENT_BYTES) -> JobEvent:
    """Return the event as a store keeps it: with a timestamp, its text in its one spelling.

    InvalidEventError for a type other than `log` and `complete`, a `complete` without `success`, or text that isn't
    Unicode; InvalidTimeError; EventTooLargeError above `max_bytes` of UTF-8.
    """
    _check_event(event)
    if event.type not in ("log", "complete"):
        raise InvalidEventError(f"the event type {event.type!r} is unknown: use log or complete")
    if event.type == "complete" and not isinstance(event.success, bool):
        raise InvalidEventError(f"a complete event needs success=True or success=False, not {event.success!r}")
    if event.success is not None and not isinstance(event.success, bool):
        raise InvalidEventError(f"success={event.success!r} is neither True, False nor None")
    if event.outcome is not None and (event.type != "complete" or not is_outcome(event.outcome)):
        raise InvalidEventError(f"outcome={event.outcome!r} is no exit code or signal of a complete event")
    check_optional_time("timestamp", event.timestamp)
    data = event.data
    if data is not None:
        data, size = spell(data)
        if size > max_bytes:
            raise EventTooLargeError(size, max_bytes)
    if data is event.data and event.timestamp is not None:
        return event
    return JobEvent(event.type, data, event.success, event.timestamp or now, id=event.id, outcome=event.outcome)


def accept_events(events: Iterable[JobEvent], now: datetime, max_bytes: int = MAX_EVENT_BYTES) -> list[JobEvent]:
    """Return the events as `accept_event` does, or raise and accept none of them."""
    accepted = []
    for event in as_list("events", events, "several JobEvents") if type(events) is not tuple else events:
        # Most events are of this kind, and in batches of them a call for each would cost as much as their encoding.
        try:
            time = event.timestamp
        except AttributeError:
            raise InvalidEventError(f"{event!r} is no JobEvent") from None
        is_timed = time is None or (type(time) is datetime and time.tzinfo is UTC)
        is_log = event.type == "log" and event.success is None and event.outcome is None
        if is_timed and is_log and type(event.data) is str and event.data.isascii() and len(event.data) <= max_bytes:
            accepted.append(JobEvent(event.type, event.data, None, now, id=event.id) if time is None else event)
        else:
            accepted.append(accept_event(event, now, max_bytes))
    return accepted


def _check_event(event: JobEvent) -> None:
    if not isinstance(event, JobEvent):
        raise InvalidEventError(f"{event!r} is no JobEvent")


def spell(data: str) -> tuple[str, int]:
    """Return the text as its bytes would be decoded, and how many bytes of UTF-8 it has.

    Escaped bytes (`surrogateescape`) that together form a character are written as that character, so that one byte
    string has one spelling.
    """
    if not isinstance(data, str):
        raise InvalidEventError(f"an event's data is text, not {type(data).__name__}")
    if data.isascii():
        return data, len(data)
    try:
        return data, len(data.encode())
    except UnicodeEncodeError:
        pass
    try:
        raw = data.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidEventError(f"the event's data has a lone surrogate at character {error.start}") from None
    return raw.decode("utf-8", "surrogateescape"), len(raw)
