"""Jobs over HTTP: lists, submission, cancel; health and metrics."""

import asyncio
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore import zip_file as zip_module
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import WebSettings, create_app
from tests import claims
from tests.integration.web.files import content_of, names_in
from tests.integration.web.serving import Account, create_ended_job, serve


@pytest.fixture
def settings(tmp_path: Path) -> WebSettings:
    queues = frozenset({"default", "slow"})
    return WebSettings(project_folder=tmp_path / "projects", max_project_bytes=50_000, queues=queues)


def zip_file(content: str = "hello") -> bytes:
    """Return a zip file with one file in it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(zipfile.ZipInfo("file.txt"), content)
    return made.getvalue()


async def test_jobs_are_listed_newest_first(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """In pages, by status, and with all that a summary has."""
    for number in range(5):
        await repository.create_job(Job(id=f"j{number}", user_id="ada", status="queued" if number % 2 else "running"))
    assert [job["job_id"] for job in (await client.get("/jobs")).json()] == ["j4", "j3", "j2", "j1", "j0"]
    assert [job["job_id"] for job in (await client.get("/jobs?limit=2&before=j3")).json()] == ["j2", "j1"]
    assert [job["job_id"] for job in (await client.get("/jobs?status=queued")).json()] == ["j3", "j1"]
    shown = (await client.get("/jobs/j0")).json()
    assert {"job_id", "status", "success", "start_time", "end_time"} < set(shown)
    assert (await client.get("/jobs?before=j1")).json()[0].items() <= shown.items()


async def test_jobs_are_filtered(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """By several statuses; by queue and by text among the newest 1,000: the answer says how many those were."""
    for number, status in enumerate(["queued", "running", "failed", "queued"]):
        queue, name = ("slow", "Nightly BUILD") if number % 2 else ("default", None)
        await repository.create_job(
            Job(id=f"j{number}", user_id="ada", status=status, queue=queue, name=name, command=["make", f"t{number}"])
        )

    async def listed(query: str) -> tuple[list[str], str | None]:
        response = await client.get(f"/jobs?{query}")
        return [job["job_id"] for job in response.json()], response.headers.get("jobs-searched")

    assert await listed("status=queued&status=failed") == (["j3", "j2", "j0"], None)
    assert await listed("status=queued&status=failed&limit=1&before=j3") == (["j2"], None)
    assert await listed("queue=slow") == (["j3", "j1"], "4")
    assert await listed("queue=slow&status=queued") == (["j3"], "2")
    assert await listed("text=build&limit=1") == (["j3"], "4")
    assert await listed("text=MAKE%20t2") == (["j2"], "4")
    assert await listed("text=j0&before=j1") == (["j0"], "1")
    assert await listed("text=nowhere") == ([], "4")
    assert (await client.get("/jobs?queue=slow&partial=true")).json()["unavailable"] == []


async def test_who_asks_again_is_told_that_nothing_is_new(
    client: httpx.AsyncClient, repository: RedisJobRepository
) -> None:
    """By the tag of the last answer; any change makes another one."""
    await repository.create_job(Job(id="j", user_id="ada", status="running"))
    first = await client.get("/jobs")
    tag = first.headers["etag"]
    for known in (tag, f'"x", W/{tag}', "*"):
        again = await client.get("/jobs", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert "Cookie" in first.headers["vary"]
    await repository.complete_job("j", True, utc_now())
    changed = await client.get("/jobs", headers={"If-None-Match": tag})
    assert (changed.status_code, changed.json()[0]["status"]) == (200, "completed")


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=x", "limit=1001", "status=odd", "before=%00", "queue=%00", "text="],
)
async def test_a_list_that_can_not_be_asked_for(client: httpx.AsyncClient, query: str) -> None:
    """400, in the one shape of errors."""
    response = await client.get(f"/jobs?{query}")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid")


async def test_a_job_is_submitted(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """It is the user's, it waits in its queue, and the answer says where it is."""
    body = {"command": ["make", "test"], "queue": "slow", "name": "nightly"}
    response = await client.post("/jobs", json=body)
    job_id = response.json()["job_id"]
    assert (response.status_code, response.headers["location"]) == (201, f"/jobs/{job_id}")
    stored = await repository.get_job_summary(job_id, "ada")
    assert stored is not None
    assert (stored.status, stored.command, stored.queue, stored.name) == ("queued", ["make", "test"], "slow", "nightly")
    assert (await claims.overview(repository, "slow")).waiting == 1


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"json": {}}, 400),
        ({"json": {"command": []}}, 400),
        ({"json": {"command": [1]}}, 400),
        ({"json": {"command": ["a"], "quue": "x"}}, 400),
        ({"json": {"command": ["a"], "queue": "{x}"}}, 400),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400),
        ({"content": b"\xff", "headers": {"Content-Type": "application/json"}}, 400),
        ({"content": b"command=a"}, 415),
        ({"data": {"command": "a"}}, 415),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400),
        ({"data": {"command": "a"}, "files": {"p": b"no zip"}}, 400),
        ({"data": {"command": "a"}, "files": {"p": bytes(60_000)}}, 413),
        ({"data": {"queue": "q"}, "files": {"p": zip_file()}}, 400),
        ({"data": {"command": "a"}, "files": [("p", zip_file()), ("q", zip_file())]}, 400),
        ({"json": {"command": ["a" * 2_000_000]}}, 413),
    ],
)
async def test_a_submission_that_is_none(
    client: httpx.AsyncClient, repository: RedisJobRepository, settings: WebSettings, options: Any, status: int
) -> None:
    """It is refused, says why, and leaves nothing behind."""
    response = await client.post("/jobs", **options)
    assert response.status_code == status, response.text
    assert response.json()["error"]["message"]
    assert await repository.list_jobs() == []
    assert names_in(settings) == []


async def test_a_body_without_a_length_is_limited_too(client: httpx.AsyncClient) -> None:
    """What comes in pieces is counted as it comes."""

    async def pieces() -> Any:
        for _ in range(100):
            yield bytes(100_000)

    response = await client.post("/jobs", content=pieces(), headers={"Content-Type": "application/json"})
    assert response.status_code == 413


async def test_a_project_comes_with_a_form(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """The zip file is kept, byte for byte, where controllers find it."""
    data = {"command": ["make", "test"], "name": "with files"}
    response = await client.post("/jobs", data=data, files={"project": ("p.zip", zip_file())})
    assert response.status_code == 201, response.text
    stored = await repository.get_job_summary(response.json()["job_id"])
    assert stored is not None
    assert content_of(stored) == zip_file()
    assert stored.command == ["make", "test"]
    assert "zip_file_path" not in response.json()


async def test_a_directory_that_is_too_big_is_refused_at_once(
    client: httpx.AsyncClient, settings: WebSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user is told, not the controller; nothing is kept."""
    monkeypatch.setattr(zip_module, "MAX_ENTRIES", 0)
    response = await client.post("/jobs", data={"command": "a"}, files={"project": zip_file()})
    assert (response.status_code, "more than 0 entries" in response.text) == (400, True)
    assert names_in(settings) == []


async def test_without_a_folder_no_projects_are_taken(repository: RedisJobRepository, ada: Account) -> None:
    """415 says so."""
    async with serve(create_app(repository)) as served, served.client(ada) as client:
        response = await client.post("/jobs", data={"command": "a"}, files={"project": zip_file()})
    assert response.status_code == 415


def as_json(client: httpx.AsyncClient, key: str, content: str) -> Any:
    return client.post("/jobs", json={"command": [content]}, headers={"Idempotency-Key": key})


def as_form(client: httpx.AsyncClient, key: str, content: str) -> Any:
    files = {"project": zip_file(content)}
    return client.post("/jobs", data={"command": "make"}, files=files, headers={"Idempotency-Key": key})


@pytest.mark.parametrize("send", [as_json, as_form])
async def test_one_idempotency_key_is_one_job(
    client: httpx.AsyncClient, repository: RedisJobRepository, settings: WebSettings, send: Callable[..., Any]
) -> None:
    """Asked for twice at once, again later, and again when it has ended: it is created once, the answers are alike."""
    answers = await asyncio.gather(*(send(client, "k", "a") for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    [job_id] = {answer.json()["job_id"] for answer in answers}
    assert {answer.headers["location"] for answer in answers} == {f"/jobs/{job_id}"}
    await repository.update_job_status(job_id, "cancelled")
    again = await send(client, "k", "a")
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")
    other = await send(client, "k", "b")
    assert (other.status_code, other.json()["error"]["code"]) == (422, "key_used")
    new = await send(client, "l", "b")
    assert (new.status_code, len(await repository.list_jobs())) == (201, 2)
    assert len(names_in(settings)) == (2 if send is as_form else 0)


async def test_idempotency_keys_are_the_users_own(
    client: httpx.AsyncClient, repository: RedisJobRepository, bob: Account
) -> None:
    """The same key of two users stands for two jobs."""
    mine = await as_json(client, "k", "a")
    his = await client.post("/jobs", json={"command": ["a"]}, headers={"Idempotency-Key": "k", **bob.headers})
    assert (mine.status_code, his.status_code) == (201, 201)
    assert mine.json()["job_id"] != his.json()["job_id"]


async def test_a_job_is_cancelled(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """With a reason or without one; what ended otherwise is a conflict."""
    for job_id in ("a", "b", "c"):
        await repository.create_job(Job(id=job_id, user_id="ada", status="running"))
    await repository.complete_job("c", True, utc_now())
    with_reason = await client.post("/jobs/a/cancel", json={"reason": "wrong branch"})
    assert (with_reason.status_code, with_reason.json()["status"]) == (200, "cancelled")
    assert "wrong branch" in (await client.get("/jobs/a/log")).text
    assert (await client.post("/jobs/b/cancel")).json()["status"] == "cancelled"
    assert (await client.post("/jobs/b/cancel")).status_code == 200
    assert (await client.post("/jobs/c/cancel")).status_code == 409
    assert (await client.post("/jobs/a/cancel", json={"why": 1})).status_code == 400


async def test_health_and_metrics_need_no_key(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """They say that all is well, and what was done."""
    await repository.create_job(Job(id="j", user_id="ada", status="queued", queue="q"))
    await repository.add_event("j", JobEvent("log", "a\n"))
    client.headers.pop("Authorization")
    assert (await client.get("/health")).json() == {"status": "ok"}
    assert (await client.get("/ready")).json() == {"status": "ready"}
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    lines = response.text.splitlines()
    assert "ci_eventstore_appended_records_total 2.0" in lines
    assert 'ci_eventstore_queue_waiting_jobs{queue="q"} 1.0' in lines
    assert "ci_eventstore_open_streams 0.0" in lines


async def test_a_refused_stale_write_is_counted(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """So is each kind of it: of a line, and of an end."""
    await repository.create_job(Job(id="j", status="queued"))
    [claimed] = await claims.claim(repository, "default", "c", 1, 30.0)
    mine = repository.writer("j", claimed.claim)
    await mine.update_status("queued")
    for write in (mine.append([JobEvent("log", "a")]), mine.complete(True, utc_now())):
        with pytest.raises(Exception, match="not yours any more"):
            await write
    assert "ci_eventstore_refused_stale_writes_total 2.0" in (await client.get("/metrics")).text.splitlines()


async def test_a_job_is_deleted(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """After its end; every way to it is answered 410 then, and so is the request that made it."""
    made = await client.post("/jobs", json={"command": ["true"]}, headers={"Idempotency-Key": "k"})
    job_id = made.json()["job_id"]
    path = f"/jobs/{job_id}"
    assert (await client.delete(path)).status_code == 409
    await client.post(f"{path}/cancel")
    for _ in range(2):
        assert (await client.delete(path)).status_code == 204
    for suffix in ("", "/events", "/log", "/stream"):
        found = await client.get(path + suffix)
        assert (found.status_code, found.json()["error"]["code"]) == (410, "gone")
    assert (await client.post(f"{path}/cancel")).status_code == 410
    again = await client.post("/jobs", json={"command": ["true"]}, headers={"Idempotency-Key": "k"})
    assert again.status_code == 410
    await repository.create_job(Job(id="hers", user_id="bob", status="cancelled"))
    for other in ("hers", "none"):
        assert (await client.delete(f"/jobs/{other}")).status_code == 404
    assert await repository.get_job_summary("hers") is not None


async def test_a_log_is_deleted(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """The job stays and says so; every way to what was in the log is answered 410, and what comes later is there."""
    await create_ended_job(repository, "j", 3)
    for _ in range(2):
        assert (await client.delete("/jobs/j/log")).status_code == 204
    shown = (await client.get("/jobs/j")).json()
    assert (shown["status"], shown["success"], shown["log_deleted"]) == ("completed", True, True)
    assert [job["log_deleted"] for job in (await client.get("/jobs")).json()] == [True]
    was_in_it = [
        "/events",
        "/events?after=3",
        "/events?line=2",
        "/log",
        "/log?tail=2",
        "/log?timestamps=true",
        "/lines",
    ]
    for path in [*was_in_it, "/stream?last_event_id=2", "/stream?from_beginning=true", "/export?format=jsonl"]:
        found = await client.get(f"/jobs/j{path}")
        assert (found.status_code, found.json()["error"]["code"]) == (410, "log_deleted"), path
    assert (await client.head("/jobs/j/log")).status_code == 410
    assert (await client.get("/jobs/j/log", headers={"Range": "bytes=2-4"})).status_code == 410
    assert '"type": "complete"' in (await client.get("/jobs/j/stream")).text
    assert (await client.get("/jobs/j/stream?last_event_id=4")).status_code == 204
    await repository.add_event("j", JobEvent("log", "late\n"))
    assert [event["id"] for event in (await client.get("/jobs/j/events?after=4")).json()["events"]] == [5]
    assert "late" in (await client.get("/jobs/j/stream?last_event_id=4")).text
    assert (await client.get("/jobs/j/log", headers={"Range": "bytes=-5"})).text == "late\n"


async def test_whose_log_is_deleted(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """A user's own, after the job's end."""
    await repository.create_job(Job(id="hers", user_id="bob", status="cancelled"))
    await repository.create_job(Job(id="running", user_id="ada", status="running"))
    answers = [(await client.delete(f"/jobs/{job}/log")).status_code for job in ("hers", "none", "running")]
    assert answers == [404, 404, 409]
    await repository.cancel_job("running")
    await repository.delete_job("running")
    assert (await client.delete("/jobs/running/log")).status_code == 410


def remove_project(path: str | None) -> None:
    """Remove the file that a job was submitted with; FileNotFoundError."""
    assert path is not None
    Path(path).unlink()


async def test_a_job_is_submitted_again(client: httpx.AsyncClient, repository: RedisJobRepository) -> None:
    """Its command, queue, name and project; as one job for each `Idempotency-Key`."""
    files = {"project": zip_file()}
    sent = await client.post("/jobs", data={"command": ["make", "test"], "queue": "slow", "name": "n"}, files=files)
    old = sent.json()
    await repository.cancel_job(old["job_id"])
    response = await client.post(f"/jobs/{old['job_id']}/again")
    new = response.json()
    assert (response.status_code, response.headers["location"]) == (201, f"/jobs/{new['job_id']}")
    assert new["job_id"] != old["job_id"]
    stored = [await repository.get_job_summary(job["job_id"], "ada") for job in (old, new)]
    first, second = [(job.command, job.queue, job.name, job.zip_file_path) for job in stored if job is not None]
    assert first == second
    assert (await claims.overview(repository, "slow")).waiting == 1
    keyed = [await client.post(f"/jobs/{new['job_id']}/again", headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert [answer.status_code for answer in keyed] == [201, 200]
    assert len({answer.json()["job_id"] for answer in keyed}) == 1
    other = await client.post("/jobs", json={"command": ["other"]}, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["error"]["code"]) == (422, "key_used")
    remove_project(first[3])
    gone = await client.post(f"/jobs/{new['job_id']}/again")
    assert (gone.status_code, gone.json()["error"]["code"]) == (409, "conflict")
    assert "project" in gone.json()["error"]["message"]


@pytest.mark.parametrize(
    ("job", "status"),
    [
        (Job(id="j", user_id="ada", status="running"), 409),
        (Job(id="j", user_id="ada", status="running", command=["x"], queue="closed"), 400),
        (Job(id="j", user_id="bob", status="running", command=["x"]), 404),
    ],
)
async def test_a_job_that_can_not_be_submitted_again(
    client: httpx.AsyncClient, repository: RedisJobRepository, job: Job, status: int
) -> None:
    """One without a command, of a queue that users may not use, or of another user."""
    await repository.create_job(job)
    assert (await client.post("/jobs/j/again")).status_code == status
    assert len(await repository.list_jobs()) == 1
