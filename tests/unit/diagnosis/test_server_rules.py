"""What a server shows of itself, and what that means: tables."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from ci_eventstore.connection.addresses import Place
from ci_eventstore.diagnosis.findings import CHECKS, Finding, Severity, note, ok, plural, warning, worst_of
from ci_eventstore.diagnosis.server_rules import (
    Certificate,
    ServerSeen,
    SlowCommand,
    judge_certificates,
    judge_kind,
    judge_latency,
    judge_server,
)

NOW = 1_800_000_000.0
MIB = 1 << 20
#: A server of which nothing is to be said.
GOOD = {
    "redis_version": "7.2.4",
    "valkey_version": "9.1.2",
    "redis_mode": "standalone",
    "uptime_in_seconds": "86400",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
    "aof_delayed_fsync": "0",
    "rdb_last_bgsave_status": "ok",
    "rdb_last_save_time": str(int(NOW) - 3600),
    "rdb_changes_since_last_save": "7",
    "maxmemory_policy": "noeviction",
    "evicted_keys": "0",
    "used_memory": str(100 * MIB),
    "maxmemory": str(1000 * MIB),
    "total_system_memory": str(4000 * MIB),
    "mem_fragmentation_ratio": "1.05",
    "role": "master",
    "connected_slaves": "1",
    "slave0": "ip=10.0.0.2,port=6379,state=online,offset=1000,lag=1",
    "min_slaves_good_slaves": "1",
    "repl_backlog_active": "1",
    "repl_backlog_size": str(MIB),
    "instantaneous_output_repl_kbps": "1.00",
}
SETTINGS = {"appendfsync": "everysec", "save": "3600 1", "stop-writes-on-bgsave-error": "yes"}
ALONE = {"connected_slaves": "0", "min_slaves_good_slaves": "", "repl_backlog_active": "0"}


def judged(
    info: Mapping[str, str] = {},
    settings: Mapping[str, str] | None = {},
    kind: Place = "server",
    *,
    is_read_only: bool = False,
    is_embedded: bool = False,
) -> list[Finding]:
    """Return the findings for a good server that differs in this; an empty value of `INFO` isn't there."""
    shown = {name: value for name, value in {**GOOD, **info}.items() if value}
    known = None if settings is None else {**SETTINGS, **settings}
    seen = ServerSeen(
        kind=kind, info=shown, settings=known, now=NOW, is_read_only=is_read_only, is_embedded=is_embedded
    )
    return judge_server(seen)


def bad(findings: list[Finding]) -> list[tuple[Severity, str, str]]:
    """Return severity, check and text of all that isn't ok."""
    return [(one.severity, one.check, one.what) for one in findings if one.severity is not Severity.OK]


def test_a_good_server_has_nothing_to_mend() -> None:
    """One finding for each check, all ok, in the order of the checks."""
    found = judged()
    assert bad(found) == []
    checks = ["version", "persistence", "eviction", "memory", "replication"]
    assert [one.check for one in found] == checks == [check for check in CHECKS if check in checks]
    assert found[0].what == "Valkey 9.1.2"
    assert found[1].what.startswith("append-only file, synced once a second")
    assert found[1].what.endswith("; last snapshot 1h 00m ago")
    assert found[4].what == "1 replica, 1 of them near enough to count"


def test_what_a_managed_server_hides_isnt_wrong() -> None:
    """Without `CONFIG` and with an empty `INFO` there are notes, and nothing worse."""
    found = judge_server(ServerSeen())
    assert {one.check for one in found} == {"version", "persistence", "eviction", "memory", "replication"}
    assert {one.severity for one in found} == {Severity.NOTE}
    assert bad(judged(settings=None)) == []
    assert "isn't shown" in judged(settings=None)[1].what


@pytest.mark.parametrize(
    ("info", "severity", "check", "says"),
    [
        ({"redis_version": "6.2.14", "valkey_version": ""}, "error", "version", "Redis 6.2.14 is too old"),
        ({"aof_enabled": "0"}, "warning", "persistence", "now loses 7 changes; last snapshot 1h 00m ago"),
        ({"aof_last_write_status": "err"}, "error", "persistence", "refuses writes"),
        ({"aof_last_bgrewrite_status": "err"}, "warning", "persistence", "rewritten"),
        ({"rdb_last_bgsave_status": "err"}, "error", "persistence", "refuses writes"),
        ({"aof_delayed_fsync": "12"}, "note", "persistence", "12 times"),
        ({"maxmemory_policy": "volatile-lru"}, "error", "eviction", "volatile-lru"),
        ({"evicted_keys": "1"}, "error", "eviction", "1 key "),
        ({"used_memory": str(801 * MIB)}, "warning", "memory", "80 %"),
        ({"used_memory": str(960 * MIB)}, "error", "memory", "96 %"),
        ({"maxmemory": "0"}, "note", "memory", "the kernel may kill"),
        ({"total_system_memory": str(140 * MIB)}, "warning", "memory", "may take 150 MiB"),
        ({"total_system_memory": str(1200 * MIB)}, "note", "memory", "when `maxmemory`"),
        ({"mem_fragmentation_ratio": "2.10", "used_memory": str(200 * MIB)}, "note", "memory", "2.1 times"),
        ({"role": "slave"}, "error", "replication", "takes no writes"),
        (ALONE, "note", "replication", "no replica"),
        ({**ALONE, "repl_backlog_active": "1"}, "warning", "replication", "is gone"),
        ({**ALONE, "min_slaves_good_slaves": "0"}, "error", "replication", "refuses writes"),
        ({"min_slaves_good_slaves": ""}, "warning", "replication", "cut off"),
        ({"min_slaves_good_slaves": "0"}, "error", "replication", "near enough"),
        ({"slave0": "ip=10.0.0.2,port=1,state=wait_bgsave,lag=0"}, "warning", "replication", "10.0.0.2:1 isn't there"),
        ({"slave0": "ip=10.0.0.2,port=1,state=online,lag=11"}, "warning", "replication", "nothing for 11s"),
        ({"instantaneous_output_repl_kbps": "1024"}, "warning", "replication", "backlog holds 1s"),
    ],
)
def test_what_info_says(info: dict[str, str], severity: str, check: str, says: str) -> None:
    """Each change of a good server makes one finding, with what to do."""
    [found] = [one for one in judged(info) if one.severity is not Severity.OK]
    assert (found.severity, found.check) == (severity, check)
    assert says in found.what
    assert found.advice


@pytest.mark.parametrize(
    ("settings", "info", "expected"),
    [
        ({"appendfsync": "no"}, {}, [("warning", "never synced")]),
        ({"save": ""}, {"aof_enabled": "0"}, [("error", "a restart loses everything")]),
        ({"save": ""}, {"rdb_last_bgsave_status": "err"}, [("warning", "the last snapshot failed")]),
        ({"appendfsync": "always"}, {}, []),
    ],
)
def test_what_settings_add(settings: dict[str, str], info: dict[str, str], expected: list[tuple[str, str]]) -> None:
    """Where `CONFIG` is allowed, more is known of what a crash costs."""
    found = bad(judged(info, settings))
    assert [severity for severity, _, _ in found] == [severity for severity, _ in expected]
    assert all(says in what for (_, _, what), (_, says) in zip(found, expected, strict=True))


def test_an_embedded_server_is_synced_by_its_watchdog() -> None:
    """`appendfsync no` is its own choice; elsewhere it is a warning."""
    found = judged(settings={"appendfsync": "no"}, is_embedded=True)
    assert bad(found) == []
    assert "once a second" in found[1].what


def test_without_a_replica_there_is_no_failover() -> None:
    """Whoever has Sentinel or a cluster expects one."""
    kinds: tuple[Place, ...] = ("sentinel", "cluster")
    for kind in kinds:
        [found] = bad(judged(ALONE, kind=kind))
        assert found[0] == "warning"


def test_a_reader_may_use_a_replica() -> None:
    """Also one that has lost its primary, with a warning."""
    assert bad(judged({"role": "slave"}, is_read_only=True)) == []
    [found] = bad(judged({"role": "slave", "master_link_status": "down"}, is_read_only=True))
    assert (found[0], found[2]) == ("warning", "it is a replica that has lost its primary")


def test_a_server_that_has_saved_nothing() -> None:
    """It names the time of its start as that of its last snapshot."""
    found = judged({"rdb_last_save_time": str(int(NOW) - 86400)})
    assert found[1].what.endswith("no snapshot since its start")


@pytest.mark.parametrize(
    ("mode", "kind", "is_right"),
    [
        ("standalone", "server", True),
        ("standalone", "sentinel", True),
        ("cluster", "cluster", True),
        ("", "cluster", True),
        ("cluster", "server", False),
        ("sentinel", "server", False),
        ("standalone", "cluster", False),
    ],
)
def test_a_server_is_what_the_url_says(mode: str, kind: Place, is_right: bool) -> None:
    """Else the finding says how the URL has to begin."""
    found = judge_kind(ServerSeen(kind=kind, info={"redis_mode": mode}))
    assert (found.severity is Severity.OK) is is_right
    assert is_right or "write redis" in found.advice


@pytest.mark.parametrize(
    ("pings", "slow", "expected"),
    [
        ([0.001] * 50, None, ["ok"]),
        ([0.001] * 49 + [0.3], [], ["note"]),
        ([0.2] * 50, [], ["warning"]),
        ([0.001], [SlowCommand(name="XRANGE", seconds=0.2, ago_seconds=10)], ["ok", "note"]),
        ([0.001], [SlowCommand(name="KEYS", seconds=1.5, ago_seconds=10)], ["ok", "warning"]),
        ([0.001], [SlowCommand(name="KEYS", seconds=1.5, ago_seconds=4000)], ["ok"]),
    ],
)
def test_latency(pings: list[float], slow: list[SlowCommand] | None, expected: list[str]) -> None:
    """The median decides; one slow answer in a hundred is a note; the slow log counts for an hour."""
    assert [one.severity for one in judge_latency(pings, slow)] == expected


@pytest.mark.parametrize(
    ("days", "severity"), [(-1, "error"), (3, "error"), (20, "warning"), (90, "ok"), (None, "note")]
)
def test_certificates_expire(days: int | None, severity: str) -> None:
    """The nearer, the worse; one that can't be read is unknown."""
    now = datetime.fromtimestamp(NOW, UTC)
    until = None if days is None else now + timedelta(days=days)
    [found] = judge_certificates([Certificate(whose="server's", until=until)], now, is_near=False)
    assert found.severity == severity
    assert "server's certificate" in found.what


def test_without_encryption() -> None:
    """On this machine that is fine, over a network it is to be known."""
    now = datetime.fromtimestamp(NOW, UTC)
    assert judge_certificates([], now, is_near=True)[0].severity == "ok"
    assert judge_certificates([], now, is_near=False)[0].severity == "note"


def test_the_worst_finding_decides() -> None:
    """Also when there is none."""
    assert worst_of([]) is Severity.OK
    assert worst_of([ok("memory", ""), warning("memory", "", ""), note("memory", "")]) is Severity.WARNING
    assert (plural(1, "job"), plural(1200, "job")) == ("1 job", "1,200 jobs")
