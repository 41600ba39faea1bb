"""Rules for what a store holds: queues, readers, sealing, growth and archive. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ci_eventstore.amounts import about_duration, about_size
from ci_eventstore.diagnosis.findings import Finding, error, note, ok, plural, warning
from ci_eventstore.store_format import FORMAT_VERSION, refusal
from ci_eventstore.webhooks.store import GROUP as WEBHOOKS
from ci_eventstore.webhooks.store import Listed

RESTORE = "restore the record from a backup"
#: For how long jobs may wait before nobody is thought to take them; idle controllers ask more often.
WAITING_SECONDS = 30.0
#: How long ago a controller last asked that is there.
ASKED_SECONDS = 60.0
#: For how long busy controllers may let jobs wait.
PATIENCE_SECONDS = 3600.0
#: How long a lease may have run out before somebody should have taken its job over.
OVERDUE_SECONDS = 30.0
#: How long a group of readers of facts may be silent, or behind.
SILENT_SECONDS, BEHIND_SECONDS, LIVE_SECONDS = 600.0, 3600.0, 86_400.0
#: For how long a log may stay unsealed in a store that seals.
UNSEALED_SECONDS = 86_400.0
NEAR_DAYS, VERY_NEAR_DAYS = 30, 7
#: Of how many jobs growth can be told.
LEAST_JOBS = 20
#: What a job takes in memory: its record and listings, live, sealed and archived; and a live log by its text.
LIVE_JOB_BYTES, SEALED_JOB_BYTES, ARCHIVED_JOB_BYTES = 4800, 1000, 700
LIVE_SHARE = 0.35


def judge_store(prefix: str, version: str | None, partitions: str | None) -> Finding:
    """Return whether the store's record says that this program can open it."""
    if version is None and partitions is None:
        what = f"there is no store {prefix!r} on this server yet"
        return note("store", what, "the first program that opens it to write makes it; or mend --prefix")
    if version != str(FORMAT_VERSION):
        what, _, advice = refusal(prefix, version or "").partition(": ")
        return error("store", what, advice)
    if not (partitions or "").isdecimal():
        return error("store", f"the store {prefix!r} has {partitions!r} partitions, which is no number", RESTORE)
    return ok("store", f"format {version}, {plural(int(partitions or 0), 'partition')}")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSeen:
    """What a queue holds, and who takes jobs from it."""

    name: str
    waiting: int = 0
    #: How long its oldest job has waited.
    oldest_seconds: float = 0.0
    #: How many jobs have leases that haven't run out.
    running: int = 0
    #: How long ago each controller last asked for jobs; those that signed off aren't here.
    asked: Mapping[str, float] = field(default_factory=dict)
    #: The controllers that have leases.
    holders: frozenset[str] = frozenset()
    #: Jobs whose leases have run out: id, controller, how long ago.
    overdue: Sequence[tuple[str, str, float]] = ()

    @property
    def is_served(self) -> bool:
        """Whether a controller is there."""
        return bool(self.running) or any(ago <= ASKED_SECONDS for ago in self.asked.values())


def judge_queues(queues: Sequence[QueueSeen]) -> list[Finding]:
    """Return whether jobs wait that nobody takes."""
    found = [finding for queue in queues for finding in _stuck(queue)]
    waiting = sum(queue.waiting for queue in queues)
    served = sum(queue.is_served for queue in queues)
    wait = "waits" if waiting == 1 else "wait"
    what = f"{plural(waiting, 'job')} {wait} in {plural(len(queues), 'queue')}; {served} of them have a controller"
    return found or [ok("queues", what if queues else "no queue has jobs or controllers")]


def _stuck(queue: QueueSeen) -> Iterator[Finding]:
    if not queue.waiting or queue.oldest_seconds < WAITING_SECONDS:
        return
    wait = "waits" if queue.waiting == 1 else "wait"
    what = f"{plural(queue.waiting, 'job')} {wait} in queue {queue.name!r}, the first for "
    what += about_duration(queue.oldest_seconds)
    if not queue.is_served:
        advice = f"start one: `ci-eventstore controller --queue {queue.name}`"
        yield warning("queues", f"{what}, and no controller takes them", advice)
    elif queue.oldest_seconds > PATIENCE_SECONDS:
        yield note("queues", what, "add controllers, or give them more `--concurrency`")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSeen:
    """A group of readers of facts."""

    name: str
    #: How long ago somebody looked for it.
    silent_seconds: float
    #: How long there have been facts that it hasn't read.
    behind_seconds: float


def judge_consumers(queues: Sequence[QueueSeen], groups: Sequence[GroupSeen]) -> list[Finding]:
    """Return who has gone without a word: holders of leases, idle controllers, readers of facts."""
    found = [finding for queue in queues for finding in (*_overdue(queue), *_silent(queue))]
    found += [finding for group in groups for finding in _group(group)]
    held = sum(queue.running for queue in queues)
    what = f"{plural(held, 'job')} under a lease, {plural(len(groups), 'group')} of readers of facts"
    return found or [ok("consumers", what)]


def _overdue(queue: QueueSeen) -> Iterator[Finding]:
    late = [one for one in queue.overdue if one[2] >= OVERDUE_SECONDS]
    if not late:
        return
    job_id, controller, ago = max(late, key=lambda one: one[2])
    who = f" (job {job_id}, held by {controller or 'a controller'})"
    whose = f"queue {queue.name!r}" if queue.name else "`ci-eventstore run`"
    leases = "the lease of 1 job" if len(late) == 1 else f"the leases of {plural(len(late), 'job')}"
    what = f"{leases} of {whose} ran out {about_duration(ago)} ago{who}, and nobody took over"
    taker = f"`ci-eventstore controller --queue {queue.name}` takes them over"
    yield warning(
        "consumers", what, f"start a controller: {taker}" if queue.name else "`ci-eventstore jobs show` ends it"
    )


def _silent(queue: QueueSeen) -> Iterator[Finding]:
    gone = sorted(name for name, ago in queue.asked.items() if ago > ASKED_SECONDS and name not in queue.holders)
    if gone:
        some = ", ".join(gone[:5]) + (" …" if len(gone) > 5 else "")
        have = "has" if len(gone) == 1 else "have"
        what = f"{plural(len(gone), 'controller')} of queue {queue.name!r} {have} gone without signing off: {some}"
        yield note("consumers", what, "look at their logs, and start them again")


def _group(group: GroupSeen) -> Iterator[Finding]:
    silent, start = about_duration(group.silent_seconds), "start its reader"
    if group.name == WEBHOOKS:
        start = "start a sender (`ci-eventstore serve` or `webhook send`)"
    if group.silent_seconds > LIVE_SECONDS:
        what = f"nobody has read facts for the group {group.name!r} for {silent}: it will miss some"
        yield warning("consumers", what, f"{start}, or `ci-eventstore facts drop {group.name}`")
    elif group.silent_seconds > SILENT_SECONDS:
        what = f"nobody has read facts for the group {group.name!r} for {silent}: they are kept for it meanwhile"
        yield warning("consumers", what, f"{start}, or `ci-eventstore facts drop {group.name}`")
    elif group.behind_seconds > BEHIND_SECONDS:
        what = f"the group {group.name!r} is {about_duration(group.behind_seconds)} behind, and acknowledges too little"
        yield warning(
            "consumers", what, "look at its reader's log; the last one to acknowledge holds back the trimming"
        )


def judge_webhooks(hooks: Sequence[Listed], now_ms: int) -> list[Finding]:
    """Return whether what happens to jobs reaches those who asked for it."""
    disabled = [one.webhook for one in hooks if not one.webhook.is_enabled]
    failing = [one.webhook for one in hooks if one.webhook.is_enabled and one.webhook.failing_since_ms is not None]
    found = []
    if disabled:
        has = "is" if len(disabled) == 1 else "are"
        why = disabled[-1].notices[-1].text if disabled[-1].notices else ""
        what = f"{plural(len(disabled), 'webhook')} {has} disabled, such as {disabled[-1].id}: {why}"
        advice = "`ci-eventstore webhook list` says why; mend the receiver, then `webhook enable`, or `webhook delete`"
        found.append(warning("webhooks", what, advice))
    if failing:
        first = min(failing, key=lambda hook: hook.failing_since_ms or 0)
        ago = about_duration(max(now_ms - (first.failing_since_ms or 0), 0) / 1000)
        what = f"{plural(len(failing), 'webhook')} can't be sent, {first.id} for {ago}: {first.last_error}"
        found.append(note("webhooks", what, "it is tried for a day; look at the receiver"))
    waiting = sum(one.waiting for one in hooks)
    wait = "waits" if waiting == 1 else "wait"
    return found or [ok("webhooks", f"{plural(len(hooks), 'webhook')}, {plural(waiting, 'message')} {wait}")]


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingSeen:
    """Which ended jobs aren't sealed."""

    unsealed: int
    #: How long ago the first of them was last written to.
    oldest_seconds: float = 0.0
    #: How many have ended.
    ended: int = 0
    #: Those that can't be sealed: how many, and why one can't.
    failed: int = 0
    example: str = ""


def judge_sealing(seen: SealingSeen) -> list[Finding]:
    """Return whether sealing keeps up; a store may do without."""
    found = []
    if seen.failed:
        what = f"{plural(seen.failed, 'job')} can't be sealed: {seen.example}"
        found.append(warning("unsealed", what, "`ci-eventstore verify JOB` says what is wrong, `rebuild JOB` mends it"))
    late = seen.unsealed > seen.failed and seen.oldest_seconds > UNSEALED_SECONDS
    what = f"{plural(seen.unsealed, 'job')} of {seen.ended:,} that have ended aren't sealed"
    if late:
        what += f", the first for {about_duration(seen.oldest_seconds)}"
        # A store of which nothing is sealed may be meant to be so.
        if seen.ended > seen.unsealed:
            advice = "look whether `serve --seal-after`, or whatever seals here, still runs"
            found.append(warning("unsealed", what, advice))
        else:
            advice = "`ci-eventstore seal` packs them into a quarter of their memory"
            found.append(note("unsealed", what, advice))
    return found or [ok("unsealed", what)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedJob:
    """What an ended job has of a log."""

    text_bytes: int
    #: The bytes of its segments, in the store and in the archive; 0 for none.
    sealed_bytes: int = 0
    archived_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthSeen:
    """What one server's memory grows by; the jobs are some of those that ended last on it."""

    used_bytes: float
    #: 0: there is no limit that can be seen.
    limit_bytes: float
    jobs_per_day: float
    jobs: Sequence[EndedJob]
    #: Whether rules of retention delete jobs.
    has_retention: bool = False


def bytes_per_job(jobs: Sequence[EndedJob]) -> float:
    """Return what a job takes in the end: if some of these are sealed or archived, the others will be."""
    text = sum(job.text_bytes for job in jobs)
    sealed = [job for job in jobs if job.sealed_bytes or job.archived_bytes]
    if not jobs:
        return 0.0
    if not sealed:
        return LIVE_JOB_BYTES + LIVE_SHARE * text / len(jobs)
    if all(job.archived_bytes and not job.sealed_bytes for job in sealed):
        return ARCHIVED_JOB_BYTES
    sealed_text = sum(job.text_bytes for job in sealed)
    packed = sum(job.sealed_bytes for job in sealed)
    return SEALED_JOB_BYTES + (packed / sealed_text if sealed_text else 0.0) * text / len(jobs)


def judge_growth(seen: GrowthSeen) -> list[Finding]:
    """Return for how long a server's memory lasts, if the store goes on growing as it has."""
    if len(seen.jobs) < LEAST_JOBS:
        return [ok("forecast", f"{plural(len(seen.jobs), 'job')} ended so far: too few to say how it grows")]
    each = bytes_per_job(seen.jobs)
    per_day = each * seen.jobs_per_day
    what = f"about {seen.jobs_per_day:,.0f} jobs end a day, of {about_size(each)} each: {about_size(per_day)} a day"
    if seen.has_retention:
        return [ok("forecast", f"{what}, until rules of retention delete them")]
    if not seen.limit_bytes:
        return [ok("forecast", f"{what}; how much room there is can't be seen")]
    days = max(seen.limit_bytes - seen.used_bytes, 0) / per_day
    full = f"{what}, and the memory is full in {'years' if days > 730 else plural(int(days), 'day')}"
    advice = "`ci-eventstore seal`, `archive sweep` or `retention` make room; or give the server more memory"
    if days < VERY_NEAR_DAYS:
        return [error("forecast", full, advice)]
    return [warning("forecast", full, advice) if days < NEAR_DAYS else ok("forecast", full)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSeen:
    """How a trial of the archive went."""

    url: str
    is_bucket: bool = False
    #: What went wrong; "" if nothing did.
    trouble: str = ""
    #: Whether it says that what it has of the store's name belongs to another store.
    is_foreign: bool = False
    #: Whether a second object under the same name took the first one's place.
    overwrites: bool = False
    #: Whether the trial object couldn't be removed.
    leftover: str = ""
    #: Whether nothing was written, as this process only reads.
    is_read_only: bool = False


def judge_archive(seen: ArchiveSeen | None) -> list[Finding]:
    """Return whether the archive can be used as the store needs it; None: the store has none."""
    if seen is None:
        return [ok("archive", "the store has no archive")]
    found = []
    if seen.trouble:
        advice = "mount it, or look at its rights and at the credentials in the environment: logs there can't be read"
        found.append(error("archive", seen.trouble, f"{advice}, and no job can be deleted"))
    if seen.is_foreign:
        what = f"the archive at {seen.url} has logs of another store of this name, so nothing is archived"
        advice = "which of the two has it? If this one, begun anew: "
        advice += f"`ci-eventstore archive rebuild --archive {seen.url}` takes it over"
        found.append(error("archive", what, advice))
    if seen.overwrites:
        what = f"the archive at {seen.url} lets an object be written over one that is there"
        found.append(error("archive", what, "use a service that knows conditional writes (`If-None-Match`)"))
    if seen.leftover:
        what = f"the trial object {seen.leftover} can't be removed from the archive at {seen.url}"
        found.append(warning("archive", what, "give its user the right to delete objects, and remove it"))
    if not found:
        done = "it can be read" if seen.is_read_only else "objects are created once, read and deleted"
        found.append(ok("archive", f"{seen.url}: {done}"))
    if seen.is_bucket and not seen.trouble:
        what = "whether rules of the bucket expire objects can't be seen from here"
        found.append(note("archive", what, "look that none expires objects earlier than the store deletes jobs"))
    return found
