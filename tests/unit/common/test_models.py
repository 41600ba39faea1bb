"""The domain's objects: values that don't change, and the shapes they have for JSON."""

import dataclasses
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from ci_common import APIKey, Job, JobEvent, JobStatus, User, generate_api_key, hash_api_key
from ci_common.errors import UnknownStatusError
from ci_common.models import EventType, as_utc

TIME = datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC)
HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def make_user(**fields: Any) -> User:
    """Make a user, with some fields given."""
    default: dict[str, Any] = {"id": "u", "name": "Ada", "email": "Ada@example.org", "created_at": TIME}
    return User(**(default | fields))


def make_key(**fields: Any) -> APIKey:
    """Make a key, with some fields given."""
    default: dict[str, Any] = {"id": "k", "user_id": "u", "key_hash": HASH, "created_at": TIME}
    return APIKey(**(default | fields))


def make_job(**fields: Any) -> Job:
    """Make a job, with some fields given."""
    default: dict[str, Any] = {"id": "j", "status": "queued", "created_at": TIME}
    return Job(**(default | fields))


def test_a_user_as_json() -> None:
    """All five fields, in order, the time in UTC with Z."""
    user = make_user(created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))))
    assert list(user.to_dict().items()) == [
        ("id", "u"),
        ("name", "Ada"),
        ("email", "Ada@example.org"),
        ("created_at", "2026-01-02T01:04:05Z"),
        ("is_active", True),
    ]


def test_a_key_as_json() -> None:
    """All fields but the hash."""
    assert list(make_key(name="laptop", last_used_at=TIME).to_dict().items()) == [
        ("id", "k"),
        ("user_id", "u"),
        ("name", "laptop"),
        ("created_at", "2026-01-02T03:04:05.678900Z"),
        ("last_used_at", "2026-01-02T03:04:05.678900Z"),
        ("is_active", True),
    ]
    assert make_key().to_dict()["last_used_at"] is None


def test_a_hash_is_shown_nowhere() -> None:
    """Neither `repr`, nor text, nor JSON, nor an f-string has it."""
    key = make_key()
    assert all(HASH not in text for text in (repr(key), str(key), f"{key}", json.dumps(key.to_dict())))


@pytest.mark.parametrize(
    ("event", "shape"),
    [
        (JobEvent("log", "text\n", timestamp=TIME, id=3), {"type": "log", "data": "text\n"}),
        (JobEvent("log", ""), {"type": "log", "data": ""}),
        (JobEvent("log"), {"type": "log"}),
        (JobEvent("complete", success=False), {"type": "complete", "success": False}),
        (JobEvent(EventType.COMPLETE, "why", True), {"type": "complete", "data": "why", "success": True}),
    ],
)
def test_an_event_as_json(event: JobEvent, shape: dict[str, object]) -> None:
    """The type, and data and success where there are any."""
    assert event.to_dict() == shape
    assert type(event.to_dict()["type"]) is str


def test_a_job_as_json() -> None:
    """Six fields, with its events; nothing else, however much is known."""
    job = make_job(
        status="failed",
        user_id="u",
        events=[JobEvent("log", "text\n"), JobEvent("complete", success=False)],
        success=False,
        start_time=TIME,
        end_time=TIME.replace(tzinfo=None),
        container_id="c",
        zip_file_path="/tmp/a.zip",
        name="nightly",
        command=["make"],
    )
    assert list(job.to_dict().items()) == [
        ("id", "j"),
        ("status", "failed"),
        ("events", [{"type": "log", "data": "text\n"}, {"type": "complete", "success": False}]),
        ("success", False),
        ("start_time", "2026-01-02T03:04:05.678900Z"),
        ("end_time", "2026-01-02T03:04:05.678900Z"),
    ]
    assert type(job.to_dict()["status"]) is str


def test_a_summary_as_json() -> None:
    """Five fields, the id under another name; what is unknown is null."""
    assert list(make_job(events=[JobEvent("log")]).to_summary_dict().items()) == [
        ("job_id", "j"),
        ("status", "queued"),
        ("success", None),
        ("start_time", None),
        ("end_time", None),
    ]


@pytest.mark.parametrize("thing", [make_user(), make_key(), make_job(), JobEvent("log")], ids=repr)
def test_nothing_can_be_changed(thing: Any) -> None:
    """Every field of every object is read-only."""
    for field in dataclasses.fields(thing):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, field.name, None)


@pytest.mark.parametrize("make", [make_user, make_key, make_job])
def test_fields_are_given_by_name(make: Any) -> None:
    """A user, a key and a job take no positional arguments, whose order someone could confuse."""
    with pytest.raises(TypeError, match="positional"):
        type(make())("u", "Ada", "ada@example.org", TIME)


def test_an_event_takes_its_fields_in_order() -> None:
    """Type, data, success and timestamp may be positional, the id not."""
    assert JobEvent("log", "text", None, TIME) == JobEvent(type="log", data="text", timestamp=TIME)
    with pytest.raises(TypeError, match="positional"):
        JobEvent("log", "text", None, TIME, 1)  # type: ignore[call-arg]  # what it is about


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (make_user, {"id": "x", "name": "x", "email": "x", "created_at": as_utc(datetime.min), "is_active": False}),
        (make_key, {"id": "x", "user_id": "x", "name": "x", "key_hash": "x", "last_used_at": TIME, "is_active": False}),
        (make_job, {"id": "x", "status": "running", "events": [JobEvent("log")], "queue": "x", "command": ["x"]}),
    ],
)
def test_equal_means_all_fields(make: Any, changes: dict[str, object]) -> None:
    """Two objects are equal if and only if all their fields are."""
    assert make() == make()
    assert hash(make()) == hash(make())
    for name, value in changes.items():
        assert make(**{name: value}) != make()


def test_an_events_id_is_no_part_of_equality() -> None:
    """The same line at another place is an equal event; every other field counts."""
    event = JobEvent("log", "text", timestamp=TIME, id=1)
    assert event == JobEvent("log", "text", timestamp=TIME, id=2)
    assert hash(event) == hash(JobEvent("log", "text", timestamp=TIME))
    for changes in ({"type": "complete"}, {"data": "x"}, {"success": True}, {"timestamp": None}):
        assert dataclasses.replace(event, **changes) != event


def test_a_job_hashes_by_id() -> None:
    """The same job in another state is found in a set, though it isn't equal."""
    queued, running = make_job(), make_job(status="running", events=[JobEvent("log")], command=["make"])
    assert hash(queued) == hash(running)
    assert queued != running
    assert len({queued, running, make_job()}) == 2


def test_a_job_holds_lists_of_its_own() -> None:
    """Whatever sequence was given, and whatever becomes of it."""
    events, command = [JobEvent("log", "1")], ("make", "test")
    job = make_job(events=events, command=command)
    events.clear()
    assert (job.events, job.command) == ([JobEvent("log", "1")], ["make", "test"])
    assert make_job(events=iter(job.events)) == make_job(events=tuple(job.events))
    assert make_job().events == []


@pytest.mark.parametrize("status", ["queued", "running", "completed", "failed", "cancelled"])
def test_a_status_is_its_name(status: str) -> None:
    """However it was given it is an enum, and equal to its text."""
    job = make_job(status=status)
    assert isinstance(job.status, JobStatus)
    assert job == make_job(status=JobStatus(status))
    assert job.status == status
    assert f"{job.status}" == status
    assert json.dumps(job.status) == f'"{status}"'


@pytest.mark.parametrize("status", ["done", "", "Queued", None, 1, []], ids=repr)
def test_an_unknown_status_makes_no_job(status: Any) -> None:
    """The error names it and the five there are."""
    with pytest.raises(UnknownStatusError, match="use queued, running, completed, failed or cancelled") as caught:
        make_job(status=status)
    assert caught.value.value == status
    assert repr(status) in str(caught.value)


def test_new_things_are_of_now() -> None:
    """A job and a key without a time of creation were created now, in UTC."""
    before = datetime.now(UTC)
    times = [Job(id="j", status="queued").created_at, APIKey(id="k", user_id="u", key_hash=HASH).created_at]
    assert all(before <= time <= datetime.now(UTC) and time.tzinfo is UTC for time in times)


def test_an_event_is_read_from_what_it_wrote() -> None:
    """`from_dict` takes the time beside the shape, and forgives what it doesn't know."""
    assert JobEvent.from_dict({"type": "log", "data": "x"}, TIME) == JobEvent("log", "x", timestamp=TIME)
    assert JobEvent.from_dict({"type": "complete", "success": False, "id": 3}) == JobEvent("complete", success=False)


def test_a_key_has_its_shape() -> None:
    """`ci_` and 40 characters that need no quoting in a URL."""
    for _ in range(100):
        assert re.fullmatch(r"ci_[A-Za-z0-9_-]{40}", generate_api_key())


def test_keys_are_random() -> None:
    """No two are equal, and each of the 40 characters takes all of its 64 values."""
    keys = [generate_api_key() for _ in range(2000)]
    assert len(set(keys)) == 2000
    assert all(len({key[place] for key in keys}) == 64 for place in range(3, 43))


def test_a_hash_is_sha_256_in_hex() -> None:
    """It can be made with any other tool."""
    assert hash_api_key("ci_test") == "03f90fce29bffd8a25e2e5d2447591c1accd50e5ee14e871bf42e88d7a9cf14b"


def test_other_keys_have_other_hashes() -> None:
    """Case counts, and so does every character."""
    assert len({hash_api_key(key) for key in ("ci_a", "ci_A", "ci_a ", "ci_")}) == 4
