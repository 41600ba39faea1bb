"""Rules for one server: what its `INFO`, its settings and its answers mean for a store. Pure.

A value that a server doesn't show is unknown, and unknown isn't wrong: managed servers forbid `CONFIG`, and leave out
parts of `INFO`.
"""

import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ci_eventstore.amounts import about_duration, about_size
from ci_eventstore.connection.addresses import Place
from ci_eventstore.diagnosis.findings import Finding, error, note, ok, plural, warning
from ci_eventstore.errors import UnsuitableServerError
from ci_eventstore.requirements import MINIMUM_VERSION, check_server

#: What a rewrite of the append-only file, or a snapshot, may take beside the data, while all of that is written to.
REWRITE_SHARE = 0.5
FULL_SHARE, NEARLY_FULL_SHARE = 0.95, 0.8
#: How long a replica may be away before it needs all the data anew.
BACKLOG_SECONDS = 60
#: What a replica may lag behind; they report once a second.
LAG_SECONDS = 10
SLOW_MEDIAN_SECONDS = 0.1
SLOW_P99_SECONDS = 0.25
#: How old what the slow log has may be, and what makes it more than a note.
SLOW_LOG_SECONDS = 3600
SLOW_COMMAND_SECONDS = 1.0
SOON_DAYS, VERY_SOON_DAYS = 30, 7


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowCommand:
    """An entry of the slow log, without its arguments, which may be secret."""

    name: str
    seconds: float
    ago_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate, and until when it holds; None: that can't be read."""

    #: "server's" or "client's".
    whose: str
    until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSeen:
    """What one server has shown of itself."""

    #: What the URL says is there.
    kind: Place = "server"
    info: Mapping[str, str] = field(default_factory=dict)
    #: What `CONFIG GET` says; None if that is forbidden.
    settings: Mapping[str, str] | None = None
    #: The server's time, in seconds since 1970.
    now: float = 0.0
    #: Whether this process only reads, and so may use a replica.
    is_read_only: bool = False
    #: Whether it is an embedded server, whose watchdog syncs its append-only file once a second.
    is_embedded: bool = False

    def number(self, name: str) -> float | None:
        """Return a number of `INFO`; None if it isn't there, or is none."""
        found = re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", self.info.get(name, "").strip())
        return None if found is None else float(found[0])

    def setting(self, name: str) -> str | None:
        """Return a setting; None if it isn't known."""
        return None if self.settings is None else self.settings.get(name)


def judge_server(seen: ServerSeen) -> list[Finding]:
    """Return what follows from a server's `INFO` and settings."""
    rules: Sequence[Callable[[ServerSeen], Iterator[Finding]]] = (
        _version,
        _persistence,
        _eviction,
        _memory,
        _replication,
    )
    return [finding for rule in rules for finding in rule(seen)]


def judge_kind(seen: ServerSeen) -> Finding:
    """Return whether a server is what the URL says."""
    modes = {name: seen.info[name] for name in ("redis_mode", "server_mode") if name in seen.info}
    try:
        check_server(modes, kind=seen.kind, is_read_only=True)
    except UnsuitableServerError as refusal:
        what, _, advice = str(refusal).partition(": ")
        return error("connection", what, advice)
    return ok("connection", "it answers")


def _version(seen: ServerSeen) -> Iterator[Finding]:
    compatible, valkey = seen.info.get("redis_version", ""), seen.info.get("valkey_version", "")
    shown = f"Valkey {valkey}" if valkey else f"Redis {compatible}"
    needed = "Redis 7.0 or newer, or Valkey 8 or newer"
    if not compatible:
        yield note("version", "the server doesn't say which version it has", f"make sure that it is like {needed}")
    elif tuple(int(part) for part in compatible.split(".")[:2] if part.isdigit()) < MINIMUM_VERSION:
        yield error("version", f"{shown} is too old", f"use {needed}")
    else:
        yield ok("version", shown)


def _persistence(seen: ServerSeen) -> Iterator[Finding]:
    troubles = list(_persistence_troubles(seen))
    yield from troubles
    if troubles:
        return
    yield ok("persistence", f"append-only file, {_how_synced(seen)}; {_last_snapshot(seen)}")


def _how_synced(seen: ServerSeen) -> str:
    match "everysec" if seen.is_embedded else seen.setting("appendfsync"):
        case "always":
            return "synced with each write"
        case "everysec":
            return "synced once a second: a crash of the machine may cost that second"
    return "how often it is synced isn't shown"


def _last_snapshot(seen: ServerSeen) -> str:
    saved = seen.number("rdb_last_save_time")
    started = seen.now - (seen.number("uptime_in_seconds") or 0)
    # A server that has made none says when it started.
    if saved is None or saved <= started + 1:
        return "no snapshot since its start"
    return f"last snapshot {about_duration(max(seen.now - saved, 0))} ago"


def _persistence_troubles(seen: ServerSeen) -> Iterator[Finding]:
    has_file, saves = seen.info.get("aof_enabled"), seen.setting("save")
    turn_on = "set `appendonly yes`, also in the configuration file"
    if has_file is None:
        advice = "look at how the service keeps data, and whether a restart loses acknowledged writes"
        yield note("persistence", "the server doesn't say whether it keeps an append-only file", advice)
    elif has_file == "0" and saves == "":
        yield error("persistence", "there is no append-only file and no snapshot: a restart loses everything", turn_on)
    elif has_file == "0":
        changes = seen.number("rdb_changes_since_last_save")
        lost = "what came after the last snapshot" if changes is None else plural(int(changes), "change")
        what = f"there is no append-only file: a crash now loses {lost}; {_last_snapshot(seen)}"
        yield warning("persistence", what, f"{turn_on}, unless the service keeps each write in another way")
    if has_file == "1" and seen.setting("appendfsync") == "no" and not seen.is_embedded:
        what = "the append-only file is never synced: a crash of the machine loses as much as the kernel hadn't written"
        yield warning("persistence", what, "set `appendfsync everysec`, or `always`")
    disk = "free some room on the server's disk, and look at its log"
    if seen.info.get("aof_last_write_status", "ok") != "ok":
        yield error("persistence", "the append-only file couldn't be written: the server refuses writes", disk)
    if seen.info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield warning("persistence", "the append-only file couldn't be rewritten, so it grows without end", disk)
    if seen.info.get("rdb_last_bgsave_status", "ok") != "ok":
        refuses = saves != "" and seen.setting("stop-writes-on-bgsave-error") != "no"
        found = error if refuses else warning
        effect = ": the server refuses writes, or will" if refuses else ""
        yield found("persistence", f"the last snapshot failed{effect}", disk)
    if delayed := seen.number("aof_delayed_fsync"):
        what = f"the disk was too slow for the append-only file {plural(int(delayed), 'time')} since the start"
        yield note("persistence", what, "give the append-only file a disk of its own, or a faster one")


def _eviction(seen: ServerSeen) -> Iterator[Finding]:
    policy, evicted = seen.info.get("maxmemory_policy"), seen.number("evicted_keys") or 0
    if evicted:
        what = f"the server has thrown away {plural(int(evicted), 'key')} since its start, to have room"
        yield error("eviction", what, "run `ci-eventstore verify`, and restore what it misses")
    if policy is None:
        advice = "make sure that the service is set to `noeviction`: others may throw jobs away"
        yield note("eviction", "the server doesn't say what it does when its memory is full", advice)
    elif policy != "noeviction":
        what = f"maxmemory-policy is {policy}: when its memory is full, the server may throw jobs away"
        yield error("eviction", what, "set `maxmemory-policy noeviction`, also in the configuration file")
    elif not evicted:
        yield ok("eviction", "noeviction: a full server refuses writes and keeps what it has")


def _memory(seen: ServerSeen) -> Iterator[Finding]:
    used, limit, machine = (seen.number(name) for name in ("used_memory", "maxmemory", "total_system_memory"))
    if used is None:
        yield note("memory", "the server doesn't say how much memory it uses", "look at the service's own figures")
        return
    troubles = list(_rewrite_troubles(used, limit or 0, machine or 0))
    if limit or not seen.is_embedded:
        troubles += _limit_troubles(used, limit or 0, machine or 0)
    fragmentation = seen.number("mem_fragmentation_ratio") or 1
    if fragmentation > 1.5 and used > 100 << 20:
        what = f"the server takes {fragmentation:.1f} times the memory of its data from the machine"
        troubles.append(note("memory", what, "set `activedefrag yes`, or restart it when it suits you"))
    most = limit or machine
    of = f" of at most {about_size(most)}" if most else ""
    yield from troubles or [ok("memory", f"{about_size(used)}{of} in use")]


def _limit_troubles(used: float, limit: float, machine: float) -> Iterator[Finding]:
    if limit:
        share = used / limit
        what = f"{about_size(used)} of at most {about_size(limit)} are in use, {100 * share:.0f} %"
        advice = "seal, archive or delete jobs, or raise `maxmemory`"
        if share >= FULL_SHARE:
            yield error("memory", f"{what}: a full server refuses writes", advice)
        elif share >= NEARLY_FULL_SHARE:
            yield warning("memory", what, advice)
        return
    of = f" of the machine's {about_size(machine)}" if machine else ""
    what = f"{about_size(used)}{of} are in use, and there is no `maxmemory`"
    yield note("memory", f"{what}: the kernel may kill the server when the machine's memory is full", "set `maxmemory`")


def _rewrite_troubles(used: float, limit: float, machine: float) -> Iterator[Finding]:
    if not machine:
        return
    peak = used * (1 + REWRITE_SHARE)
    advice = "give the machine more memory, or make the store smaller: the rewrite copies what is written meanwhile"
    if peak > machine:
        what = f"rewriting the append-only file may take {about_size(peak)}, and the machine has {about_size(machine)}"
        yield warning("memory", what, advice)
    elif limit * (1 + REWRITE_SHARE) > machine:
        what = f"when `maxmemory` ({about_size(limit)}) is in use, a rewrite may take more than the machine's"
        yield note("memory", f"{what} {about_size(machine)}", "set `maxmemory` to two thirds of the machine's memory")


def _replication(seen: ServerSeen) -> Iterator[Finding]:
    role, count = seen.info.get("role"), seen.number("connected_slaves")
    if role == "slave" and not seen.is_read_only:
        what = "it is a replica, which takes no writes"
        yield error("replication", what, "use the address of its primary, or redis+sentinel://, which finds it")
    elif role == "slave" and seen.info.get("master_link_status") == "down":
        yield warning("replication", "it is a replica that has lost its primary", "look whether the primary lives")
    elif role == "slave":
        yield ok("replication", "it is a replica, which readers may use")
    elif role is None or count is None:
        yield note("replication", "the server doesn't say whether it has replicas", "look at the service's own figures")
    elif count:
        yield from _replicas(seen, int(count))
    else:
        yield from _no_replicas(seen)


def _no_replicas(seen: ServerSeen) -> Iterator[Finding]:
    if "min_slaves_good_slaves" in seen.info:
        what = "no replica is connected, and `min-replicas-to-write` asks for one: the server refuses writes"
        yield error("replication", what, "start the replica, or look at its log")
    elif seen.info.get("repl_backlog_active") == "1":
        yield warning("replication", "a replica was connected, and is gone", "start the replica, or look at its log")
    elif seen.kind == "server":
        what = "there is no replica: if the machine is lost, so is what no backup has"
        embedded = "make backups: of its directory while nobody uses it, or by `ci-eventstore export-store`"
        advice = "make backups, or add replicas and Sentinels"
        yield note("replication", what, embedded if seen.is_embedded else advice)
    else:
        advice = "add a replica: without one there is no failover"
        yield warning("replication", "there is no replica to take over if it dies", advice)


def _replicas(seen: ServerSeen, count: int) -> Iterator[Finding]:
    troubles = list(_replica_troubles(seen, count))
    yield from troubles
    good = seen.number("min_slaves_good_slaves")
    if good is None:
        yield warning(
            "replication",
            "`min-replicas-to-write` is 0: a primary that is cut off goes on acknowledging writes that are lost later",
            "set `min-replicas-to-write 1` and `min-replicas-max-lag 10` on all servers",
        )
    elif not good:
        what = "no replica is near enough for `min-replicas-to-write`: the server refuses writes"
        yield error("replication", what, "look at the replicas' logs and at the network")
    elif not troubles:
        yield ok("replication", f"{plural(count, 'replica')}, {int(good)} of them near enough to count")


def _replica_troubles(seen: ServerSeen, count: int) -> Iterator[Finding]:
    for number in range(count):
        replica = dict(re.findall(r"(\w+)=([^,]*)", seen.info.get(f"slave{number}", "")))
        where = f"{replica.get('ip', '?')}:{replica.get('port', '?')}"
        if replica.get("state", "online") != "online":
            what = f"the replica {where} isn't there yet ({replica['state']})"
            yield warning("replication", what, "wait until it has the data; if that repeats, look at its log")
        elif (lag := replica.get("lag", "0")).isdigit() and int(lag) > LAG_SECONDS:
            what = f"the replica {where} has said nothing for {lag}s: a failover to it may lose that much"
            yield warning("replication", what, "look at the replica's machine and at the network")
    size, rate = seen.number("repl_backlog_size"), seen.number("instantaneous_output_repl_kbps")
    if size and rate and (seconds := size / (rate * 1024 / count)) < BACKLOG_SECONDS:
        what = f"the replication backlog holds {seconds:.0f}s of what is written now: a replica that is away for longer"
        advice = (
            f"set `repl-backlog-size` to {BACKLOG_SECONDS}s of that, {about_size(size / seconds * BACKLOG_SECONDS)}"
        )
        yield warning("replication", f"{what} needs all the data anew", advice)


def judge_latency(pings: Sequence[float], slow: Sequence[SlowCommand] | None) -> list[Finding]:
    """Return what the seconds of round trips mean, and the slow log; None: that isn't shown."""
    ordered = sorted(pings)
    median, p99 = statistics.median(ordered), ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    what = f"a round trip takes {1000 * median:.1f} ms, and 99 of 100 take at most {1000 * p99:.1f} ms"
    advice = "bring programs nearer to the server, and look whether its machine, or this one, is overloaded"
    if median >= SLOW_MEDIAN_SECONDS:
        found = [warning("latency", what, advice)]
    elif p99 >= SLOW_P99_SECONDS:
        found = [note("latency", what, advice)]
    else:
        found = [ok("latency", what)]
    recent = [command for command in slow or () if command.ago_seconds <= SLOW_LOG_SECONDS]
    if recent:
        longest = max(recent, key=lambda command: command.seconds)
        took = (
            f"{plural(len(recent), 'command')} of the last hour {'is' if len(recent) == 1 else 'are'} in the slow log"
        )
        what = f"{took}; the longest, {longest.name}, took {1000 * longest.seconds:.0f} ms"
        kind = warning if longest.seconds >= SLOW_COMMAND_SECONDS else note
        found.append(kind("latency", what, "`SLOWLOG GET` shows them: all other clients wait meanwhile"))
    return found


def judge_certificates(certificates: Sequence[Certificate], now: datetime, *, is_near: bool) -> list[Finding]:
    """Return how long certificates hold; without any, the connection isn't encrypted. `is_near`: on this machine."""
    if not certificates:
        if is_near:
            return [ok("certificates", "the connection isn't encrypted, and stays on this machine")]
        what = "the connection isn't encrypted: who hears the network hears logs and passwords"
        return [note("certificates", what, "use rediss://, unless the network is yours alone")]
    return [_certificate(one, now) for one in certificates]


def _certificate(one: Certificate, now: datetime) -> Finding:
    if one.until is None:
        what = f"when the {one.whose} certificate expires can't be read"
        return note("certificates", what, "`openssl x509 -enddate` shows it")
    days, advice = (one.until - now).total_seconds() / 86400, "renew it"
    until = f"the {one.whose} certificate expires on {one.until:%Y-%m-%d}"
    if days <= 0:
        return error("certificates", f"the {one.whose} certificate expired on {one.until:%Y-%m-%d}", advice)
    if days <= SOON_DAYS:
        kind = error if days <= VERY_SOON_DAYS else warning
        return kind("certificates", f"{until}, in {days:.0f} days: after that nobody connects", advice)
    return ok("certificates", f"{until}, in {days:.0f} days")
