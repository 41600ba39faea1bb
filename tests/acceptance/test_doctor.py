"""`ci-eventstore doctor`: what it says of servers and stores that are set up badly; it leaves nothing behind."""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from ci_common.models import Job, JobEvent, utc_now
from ci_eventstore import RedisJobRepository
from ci_eventstore.archive import Archive
from ci_eventstore.connection import node
from ci_eventstore.diagnosis import examination, server_looks
from ci_eventstore.diagnosis.findings import CHECKS
from ci_eventstore.keys import QueueKeys, groups_key, unsealable_key, unsealed_key
from ci_eventstore.store_format import FORMAT_VERSION
from tests.acceptance.command_line import PROGRAM, CommandLine, Ended
from tests.claims import claim
from tests.integration.store.test_rights import LINES
from tests.needs import OWN_MOUNTS
from tests.servers import RealServer, find_redis7, find_valkey, wait_until

Here = Callable[..., Ended]
#: Severities, each with the texts that have it, by check.
Found = Mapping[str, list[tuple[str, str]]]


def examined(here: Here, *arguments: str) -> Found:
    """Return the findings; the exit code has to fit them, and each bad one says what to do."""
    ended = here("doctor", "--json", *arguments)
    findings: list[dict[str, Any]] = json.loads(ended.out)
    assert all(set(finding) == {"check", "severity", "what", "advice", "node"} for finding in findings)
    is_bad = any(finding["severity"] in ("warning", "error") for finding in findings)
    assert ended.code == int(is_bad), ended
    assert [
        finding for finding in findings if finding["severity"] in ("warning", "error") and not finding["advice"]
    ] == []
    assert [finding["check"] for finding in findings] == sorted(
        (one["check"] for one in findings), key=list(CHECKS).index
    )
    found: dict[str, list[tuple[str, str]]] = {}
    for finding in findings:
        found.setdefault(finding["check"], []).append((finding["severity"], finding["what"]))
    return found


def says(found: Found, check: str, severity: str, text: str) -> bool:
    """Return whether a check has found something of that kind."""
    return any(kind == severity and text in what for kind, what in found.get(check, []))


def do(cli: CommandLine, work: Callable[[RedisJobRepository], Awaitable[object]]) -> None:
    """Do something in the store."""

    async def call() -> None:
        async with cli.repository() as repository:
            await work(repository)

    asyncio.run(call())


@pytest.fixture(scope="module")
def careless() -> Iterator[RealServer]:
    """A server that keeps nothing, and throws away what it likes."""
    with RealServer(find_valkey(), "appendonly no", "maxmemory-policy volatile-lru", "maxmemory 100mb", tcp=True) as it:
        yield it


def test_a_good_store(here: Here, cli: CommandLine) -> None:
    """Each check is made; nothing is wrong, whatever a busy machine's latency is, and nothing is left behind."""
    do(cli, lambda store: store.create_job(Job(id="job-1", status="queued")))
    with_keys: list[list[str]] = []

    async def keys(store: RedisJobRepository) -> None:
        with_keys.append(sorted([key async for page in store.engine.nodes.scan("*") for key in page]))

    do(cli, keys)
    found = examined(here)
    do(cli, keys)
    assert with_keys[0] == with_keys[1]
    assert list(found) == [check for check in CHECKS if check != "sentinels"]
    rest = {check: its for check, its in found.items() if check not in ("latency", "memory", "replication")}
    assert {severity for its in rest.values() for severity, _ in its} == {"ok"}
    assert says(found, "queues", "ok", "1 job waits")


def test_it_is_read_by_people(here: Here) -> None:
    """A line for each finding, what to do below it, and the counts in the end; a store that isn't there is no fault."""
    ended = here("doctor")
    lines = ended.text.splitlines()
    assert any(line.startswith("ok       version       Valkey") for line in lines)
    [place] = [place for place, line in enumerate(lines) if line.startswith("note     store ")]
    assert lines[place + 1].startswith(" " * 23 + "→ the first program")
    assert not any(line[9:].startswith(("queues", "archive")) for line in lines)
    assert ended.err.startswith("ci-eventstore: ")
    assert ended.err.endswith(" ok\n")


def test_a_careless_server(here: Here, careless: RealServer) -> None:
    """Where other commands refuse the server, this one says all that is wrong with it."""
    assert here("jobs", "list", "--url", careless.url).code == 4
    with Redis(port=careless.port) as admin:
        admin.config_set("slowlog-log-slower-than", 0)
        admin.eval("for i = 1, 3e6 do end", 0, "tiger")
        admin.config_set("slowlog-log-slower-than", 10_000_000)
    found = examined(here, "--url", careless.url)
    # Its arguments are nobody's business.
    assert any("the slow log; the longest, EVAL, took " in what for _, what in found["latency"])
    assert says(found, "persistence", "error", "a restart loses everything")
    assert says(found, "eviction", "error", "volatile-lru")
    assert says(found, "rights", "ok", "")


def test_a_user_with_few_rights(here: Here, careless: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing has a name; what the user may not see is unknown, and not wrong."""
    rules = [rule for rule in LINES["ci-controller"].replace("PASSWORD", "sesame").split() if rule != "+xadd"]
    with Redis(port=careless.port) as admin:
        admin.config_set("maxmemory-policy", "noeviction")
        admin.execute_command("ACL", "SETUSER", "few", *rules)
        reader = LINES["ci-reader"].replace("PASSWORD", "sesame").split()
        admin.execute_command("ACL", "SETUSER", "reader", *reader)
        admin.execute_command("ACL", "SETUSER", "nobody", "on", ">sesame")
    monkeypatch.setenv("CI_EVENTSTORE_PREFIX", "ci")
    with Redis(port=careless.port) as admin:
        admin.hset("{ci:accounts}:store", mapping={"format": str(FORMAT_VERSION), "partitions": "1"})
    found = examined(here, "--url", f"redis://few:sesame@127.0.0.1:{careless.port}")
    assert says(found, "rights", "error", "lacks 1 rights: +xadd")
    assert says(found, "persistence", "warning", "a crash now loses")
    assert says(found, "channels", "ok", "heard")
    monkeypatch.setenv("CI_EVENTSTORE_ACCESS", "read")
    found = examined(here, "--url", f"redis://reader:sesame@127.0.0.1:{careless.port}")
    assert says(found, "rights", "ok", "reader")
    assert says(found, "clocks", "note", "can't be looked at")
    assert says(found, "queues", "note", "can't be looked at")
    bad = {check for check, its in found.items() for severity, _ in its if severity in ("warning", "error")}
    assert bad <= {"persistence", "latency"}
    monkeypatch.setattr(server_looks, "HEARING_SECONDS", 0.05)
    found = examined(here, "--url", f"redis://nobody:sesame@127.0.0.1:{careless.port}")
    assert says(found, "rights", "error", "lacks")
    found = examined(here, "--url", f"redis://nobody:wrong@127.0.0.1:{careless.port}")
    assert says(found, "connection", "error", "WRONGPASS")
    assert list(found) == ["connection"]


def test_no_server(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one finding, and the exit code says so; a URL that can't be read is wrong usage."""
    monkeypatch.setattr(node, "FIRST_PATIENCE_SECONDS", 0.05)
    found = examined(here, "--url", f"unix://{tmp_path}/none")
    assert list(found) == ["connection"]
    assert found["connection"][0][0] == "error"
    assert here("doctor", "--url", "http://example.org").code == 2


def test_a_server_that_stands_still(here: Here, careless: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for only so long."""
    monkeypatch.setattr(examination, "LOOK_SECONDS", 0.2)
    careless.suspend()
    try:
        found = examined(here, "--url", careless.url)
    finally:
        careless.resume()
    assert found == {"connection": [("error", "it couldn't be looked at: no answer came within 0 seconds")]}


def test_a_check_that_fails_is_a_finding(
    here: Here, cli: CommandLine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever one raises, and if its time is over, the others go on."""

    async def fail(*_: object) -> None:
        raise LookupError("nobody expected this")

    async def last(*_: object) -> None:
        raise TimeoutError

    do(cli, lambda store: store.create_job(Job(id="job-1", status="queued")))
    monkeypatch.setattr(examination, "see_queues", fail)
    monkeypatch.setattr(examination, "see_sealing", last)
    with caplog.at_level(logging.CRITICAL):
        found = examined(here)
    assert says(found, "queues", "warning", "LookupError: nobody expected this")
    assert says(found, "unsealed", "warning", "no answer came within 11 seconds")
    assert says(found, "archive", "ok", "no archive")


def test_stuck_jobs_and_dead_consumers(here: Here, cli: CommandLine) -> None:
    """Jobs that nobody takes, a lease that ran out, a controller that went, a group of which nobody reads."""
    do(cli, _abandon)
    found = examined(here)
    assert says(found, "queues", "warning", "1 job waits in queue 'lonely', the first for 1h 00m")
    assert says(found, "consumers", "warning", "the lease of 1 job of queue 'default' ran out 1h 59m ago")
    assert says(found, "consumers", "warning", "(job held, held by dead)")
    assert says(found, "consumers", "note", "1 controller of queue 'lonely' has gone without signing off: gone")
    assert says(found, "consumers", "warning", "nobody has read facts for the group 'idle' for 2h 00m")


async def _abandon(store: RedisJobRepository) -> None:
    keys, nodes = store.engine.keys, store.engine.nodes
    tag = keys.tags[0]
    await store.create_job(Job(id="held", status="queued"))
    await store.create_job(Job(id="waits", status="queued", queue="lonely", created_at=utc_now() - timedelta(hours=1)))
    assert await claim(store, "default", "dead", 1, 60)
    [seconds, _] = await nodes.read("TIME")
    two_hours_ago = (int(seconds) - 7200) * 1000
    # For so long nobody has called a script: the clock of leases stands still meanwhile.
    await nodes.read("HSET", QueueKeys("lonely", tag).clock, "seen", str(two_hours_ago))
    await nodes.read("HSET", QueueKeys("lonely", tag).offered, "gone", "x-1 60000 0\n")
    await nodes.read("HSET", groups_key(tag), "idle", f"0-0 - 0 {two_hours_ago}")


@pytest.mark.slow
def test_logs_that_nobody_seals(here: Here, cli: CommandLine) -> None:
    """Slow, as it opens the store often: a backlog where logs were sealed before is a fault; failures have a reason."""

    async def end(store: RedisJobRepository) -> None:
        for job_id in ("sealed", "left", "broken"):
            await store.create_job(Job(id=job_id, status="completed", success=True))

    async def age(store: RedisJobRepository, *job_ids: str) -> None:
        key = unsealed_key(store.engine.keys.tags[0])
        await store.engine.nodes.read("ZADD", key, *[word for job_id in job_ids for word in ("1000", job_id)])

    async def blame(store: RedisJobRepository) -> None:
        key = unsealable_key(store.engine.keys.tags[0])
        await store.engine.nodes.read("HSET", key, "broken", "3 99 it lacks an entry")

    do(cli, end)
    do(cli, lambda store: age(store, "sealed"))
    assert says(examined(here), "unsealed", "note", "3 jobs of 3 that have ended aren't sealed, the first for ")
    assert here("seal", "--once", "--after", "1h").err == "ci-eventstore: sealed 1 job\n"
    do(cli, lambda store: age(store, "left", "broken"))
    assert says(examined(here), "unsealed", "warning", "2 jobs of 3 that have ended aren't sealed, the first for ")
    do(cli, blame)
    assert says(examined(here), "unsealed", "warning", "1 job can't be sealed: job broken: it lacks an entry")


@pytest.mark.slow
def test_the_forecast_goes_by_the_jobs_that_ended_last(here: Here, cli: CommandLine, tmp_path: Path) -> None:
    """Slow, as it writes some: of all partitions, live and then sealed; rules of retention end it."""
    url, prefix = (cli.environment[f"CI_EVENTSTORE_{name}"] for name in ("URL", "PREFIX"))

    async def end() -> None:
        async with RedisJobRepository.from_url(url, prefix=prefix, partitions=3) as store:
            for number in range(30):
                job_id = f"job-{number}"
                await store.create_job(Job(id=job_id, status="running"))
                await store.add_event(job_id, JobEvent("log", f"{number} " * 5000))
                await store.complete_job(job_id, success=True, end_time=utc_now())

    asyncio.run(end())
    [(severity, what)] = examined(here)["forecast"]
    # Within an hour it counts as if that hour had passed.
    assert (severity, what.partition(" each: ")[0]) == ("ok", "about 720 jobs end a day, of 9.2 KiB")
    assert what.endswith("and the memory is full in years")
    here("seal", "--once", "--after", "0s")
    assert re.search(r"of 1\.\d KiB each: ", examined(here)["forecast"][0][1])
    (tmp_path / "rules").write_text('[[rules]]\nolder-than = "30d"\n')
    done = here("rules", "set", str(tmp_path / "rules"))
    assert done.code == 0, done.err
    assert "until rules of retention" in examined(here)["forecast"][0][1]


def test_an_archive(here: Here, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried and left as it was; one that isn't there is a fault."""
    folder = tmp_path / "archive"
    folder.mkdir()
    here("archive", "sweep", "--once", "--older-than", "0s", "--archive", folder.as_uri())
    before = sorted(folder.rglob("*"))
    assert says(examined(here), "archive", "ok", "created once, read and deleted")
    assert sorted(folder.rglob("*")) == before

    async def overwrite(archive: Archive, name: str, data: bytes) -> str:
        (folder / name).write_bytes(data)
        return ""

    with monkeypatch.context() as patched:
        patched.setattr(Archive, "_create", overwrite)
        assert says(examined(here), "archive", "error", "lets an object be written over")
    assert sorted(folder.rglob("*")) == before
    [owner] = folder.rglob("ci-eventstore-store")
    mine = owner.read_bytes()
    owner.write_bytes(b"another\n")
    assert says(examined(here), "archive", "error", "has logs of another store of this name")
    owner.write_bytes(mine)
    folder.rename(tmp_path / "away")
    assert says(examined(here), "archive", "error", "can't be used")


@pytest.mark.slow
@pytest.mark.needs("mount namespaces")
def test_an_archive_that_takes_nothing(here: Here, cli: CommandLine, tmp_path: Path) -> None:
    """Slow, as it starts a process: a folder that is mounted to be read only."""
    here("run", "--", "true")
    here("archive", "sweep", "--once", "--older-than", "0s", "--archive", tmp_path.as_uri())
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec "$0" doctor --json'
    running = cli.start_program(*OWN_MOUNTS, "sh", "-c", script, PROGRAM, tmp_path)
    ended = running.end()
    [found] = [finding for finding in json.loads(ended.out) if finding["check"] == "archive"]
    assert (ended.code, found["severity"]) == (1, "error")
    assert "can't be used" in found["what"]


@pytest.mark.slow
@pytest.mark.needs("redis7")
def test_a_replica_that_is_gone(here: Here) -> None:
    """Slow, as it starts two servers: as long as it is there all is well, then the primary refuses writes."""
    demanding = ("min-replicas-to-write 1", "min-replicas-max-lag 10", "repl-diskless-sync-delay 0")
    with RealServer(find_redis7(), *demanding, tcp=True) as primary, Redis(port=primary.port) as asked:

        def replicas() -> int:
            return sum(asked.info("replication")[f"slave{n}"]["state"] == "online" for n in range(connected()))

        def connected() -> int:
            return int(asked.info("replication")["connected_slaves"])

        with RealServer(find_redis7(), f"replicaof 127.0.0.1 {primary.port}", tcp=True) as replica:
            wait_until(lambda: replicas() == 1, "the replica")
            assert says(examined(here, "--url", primary.url), "replication", "ok", "1 replica, 1 of them near enough")
            found = examined(here, "--url", replica.url)
            assert says(found, "replication", "error", "takes no writes")
        wait_until(lambda: connected() == 0, "the end of the replica")
        assert says(examined(here, "--url", primary.url), "replication", "error", "no replica is connected")
