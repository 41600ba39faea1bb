"""Name every key of the store.

    {ci:0}:job:<id>                 hash: the job's projection
    {ci:0}:events:<id>              stream: everything that happened to the job
    {ci:0}:calls:<id>               hash: the last call of each writer, so that a repeated one is known; expires
    {ci:0}:index:<id>               list: sparse index of the log, "position lines bytes time"
    {ci:0}:dispatch:<queue>         stream with a consumer group: one ticket for each user with waiting jobs
    {ci:0}:backlog:<queue>          sorted set: jobs that wait, "user NUL time of creation NUL id"
    {ci:0}:tickets:<queue>          hash: the ticket of each user that no controller has taken yet
    {ci:0}:leases:<queue>           sorted set: claimed jobs by when their lease runs out; no name: those of `run`
    {ci:0}:claims:<queue>           hash: the last call of each controller, so that a repeated one is known; expires
    {ci:0}:offers:<queue>           sorted set: controllers that take the next job, by when the offer ends
    {ci:0}:offered:<queue>          hash: what each controller asked last, and the last job that its offers brought it
    {ci:0}:sharing:<queue>          sorted set: controllers that share its partitions, by until when; in one; expires
    {ci:0}:ends:<session>           text: the last completions of a process, so that repeated ones are known; expires
    {ci:0}:queues                   set: the names of the partition's queues that are used
    {ci:0}:clock                    hash: for how long this partition was served; leases are measured by it
    {ci:0}:replicated               text: written with each write that waits for replicas, if any does
    {ci:0}:ring:<id>                hash: the end of a log that has outgrown its budget, until the job ends
    {ci:0}:sealer                   text: who seals the partition's jobs; expires
    {ci:0}:archiver                 text: who archives the partition's jobs; expires
    {ci:0}:unsealable               hash: jobs that can't be sealed: how often, when they are tried again, and why
    {ci:0}:staged:<id>:<token>      stream: what a copy has brought of a job so far; expires
    {ci:0}:segment:<id>:<name>      text: a segment of a sealed log, of which there may be several
    {ci:0}:ids                      sorted set: job ids, for look-up by prefix
    {ci:0}:jobs:<status>            sorted set: jobs of a status by creation
    {ci:0}:owned:<status>:<user>    sorted set: the same for one user's jobs
    {ci:0}:unsealed                 sorted set: ended jobs whose logs are in their streams, by their last writes
    {ci:0}:ended                    sorted set: ended jobs by when they ended, "time of the end:id"
    {ci:0}:gone                     hash: tombstones of deleted jobs
    {ci:0}:facts                    stream: facts of all jobs of the partition, while a group reads them
    {ci:0}:groups                   hash: how far each group has read the facts, and who reads for it
    {ci:accounts}:...               users, API keys, their indexes, sessions (they expire), webhooks, the store's format
What stands in braces decides the cluster slot: all keys of a partition are on one node, so one script may write them.
"""

import re
import zlib
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ci_common.models import JobStatus
from ci_common.validation import is_number
from ci_eventstore.errors import ConfigurationError

NO_QUEUE = ""  # holds the leases of jobs that no controller takes: each ends with the process that has made it
PREFIX_PATTERN = re.compile(r"[A-Za-z0-9_-]+")
AccountKind = Literal["session", "probe", "webhooks", "webhook-sender", "webhook-queue"]  # the probe is health checks'


class QueueKeys(NamedTuple):
    """The keys of one queue in one partition, and the channel that announces new jobs."""

    name: str
    tag: str

    @property
    def dispatch(self) -> str:
        """The tickets, as a stream with a consumer group."""
        return f"{self.tag}:dispatch:{self.name}"

    @property
    def backlog(self) -> str:
        """The jobs that wait."""
        return f"{self.tag}:backlog:{self.name}"

    @property
    def tickets(self) -> str:
        """Each user's ticket."""
        return f"{self.tag}:tickets:{self.name}"

    @property
    def leases(self) -> str:
        """The claimed jobs."""
        return f"{self.tag}:leases:{self.name}"

    @property
    def calls(self) -> str:
        """The last call of each controller."""
        return f"{self.tag}:claims:{self.name}"

    @property
    def offers(self) -> str:
        """The controllers that take the next job."""
        return f"{self.tag}:offers:{self.name}"

    @property
    def offered(self) -> str:
        """What each controller asked last."""
        return f"{self.tag}:offered:{self.name}"

    @property
    def sharing(self) -> str:
        """The controllers that share the queue's partitions; one partition has it."""
        return f"{self.tag}:sharing:{self.name}"

    def last_call(self, session: str) -> str:
        """Return the key of the last completions of a process."""
        return f"{self.tag}:ends:{session}"

    @property
    def clock(self) -> str:
        """The partition's clock."""
        return f"{self.tag}:clock"

    @property
    def channel(self) -> str:
        """Where controllers listen for new tickets of the partition."""
        return f"{self.tag}:wake:{self.name}"

    @property
    def controllers_channel(self) -> str:
        """The beginning of a controller's channel of given jobs; its session follows, as another may have its name."""
        return f"{self.tag}:controller:"


class JobKeys(NamedTuple):
    """The keys of one job and of its partition's indexes."""

    job_id: str
    tag: str

    @property
    def hash(self) -> str:
        """The projection."""
        return f"{self.tag}:job:{self.job_id}"

    @property
    def stream(self) -> str:
        """The events and facts."""
        return f"{self.tag}:events:{self.job_id}"

    @property
    def channel(self) -> str:
        """Where followers listen for new entries."""
        return self.stream

    @property
    def calls(self) -> str:
        """The last call of each writer."""
        return f"{self.tag}:calls:{self.job_id}"

    @property
    def log_index(self) -> str:
        """The sparse index of the log."""
        return f"{self.tag}:index:{self.job_id}"

    @property
    def ring(self) -> str:
        """The end of a log that has outgrown its budget."""
        return f"{self.tag}:ring:{self.job_id}"

    def all(self) -> list[str]:
        """Return all keys that are the job's alone, except for those of a sealed log."""
        return [self.hash, self.stream, self.calls, self.log_index, self.ring]

    @property
    def ids(self) -> str:
        """The partition's job ids."""
        return f"{self.tag}:ids"

    @property
    def ended(self) -> str:
        """The partition's ended jobs, by when they ended."""
        return ended_key(self.tag)

    @property
    def unsealed(self) -> str:
        """The partition's ended jobs whose logs are in their streams."""
        return unsealed_key(self.tag)

    def queue(self, name: str) -> QueueKeys:
        """Return the keys of a queue, in the job's partition."""
        return QueueKeys(name, self.tag)

    def listings(self, user_id: str | None, status: JobStatus) -> list[str]:
        """Return the sorted sets that a job of that user and status stands in."""
        return [jobs_key(self.tag, status, owner) for owner in dict.fromkeys((None, user_id))]


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of all keys under one prefix."""

    prefix: str
    partitions: int = 1

    def __post_init__(self) -> None:
        """Refuse what can't be a prefix or a partition count."""
        if not isinstance(self.prefix, str) or not PREFIX_PATTERN.fullmatch(self.prefix):
            raise ConfigurationError(f"the prefix {self.prefix!r} must be one or more of A-Z a-z 0-9 _ -")
        if not is_number(self.partitions, 1, 1024, is_whole=True):
            raise ConfigurationError(f"partitions={self.partitions!r} must be between 1 and 1024")

    def tag(self, partition: int) -> str:
        """Return the hash tag of a partition."""
        return f"{{{self.prefix}:{partition}}}"

    @property
    def tags(self) -> list[str]:
        """The hash tags of all partitions."""
        return [self.tag(partition) for partition in range(self.partitions)]

    def job(self, job_id: str) -> JobKeys:
        """Return the keys of a job: its partition is the CRC32 of its id modulo the count."""
        return JobKeys(job_id, self.tag(zlib.crc32(job_id.encode("utf-8", "surrogateescape")) % self.partitions))

    @property
    def store(self) -> str:
        """The hash that holds the format version and the partition count."""
        return self._account("store")

    @property
    def users(self) -> str:
        """The set of user ids."""
        return self._account("users")

    @property
    def emails(self) -> str:
        """The hash from case-folded emails to user ids."""
        return self._account("emails")

    @property
    def api_keys(self) -> str:
        """The set of API key ids."""
        return self._account("keys")

    @property
    def api_key_hashes(self) -> str:
        """The hash from API key hashes to API key ids."""
        return self._account("key-hashes")

    def user(self, user_id: str) -> str:
        """Return the key of a user's record."""
        return self._account(f"user:{user_id}")

    def user_api_keys(self, user_id: str) -> str:
        """Return the key of the set of a user's API key ids."""
        return self._account(f"user-keys:{user_id}")

    def api_key(self, key_id: str) -> str:
        """Return the key of an API key's record."""
        return self._account(f"key:{key_id}")

    def _account(self, name: str) -> str:
        return f"{{{self.prefix}:accounts}}:{name}"


def segment_key(keys: JobKeys, name: str) -> str:
    """Return the key of a segment of a job's sealed log, by its name."""
    return f"{keys.tag}:segment:{keys.job_id}:{name}"


def staged_key(keys: JobKeys, token: str) -> str:
    """Return the key of what a copy has brought of a job so far; it expires."""
    return f"{keys.tag}:staged:{keys.job_id}:{token}"


def sweeper_key(tag: str, sweeper: Literal["sealer", "archiver"]) -> str:
    """Return the key of who seals or archives a partition's jobs; it expires."""
    return f"{tag}:{sweeper}"


def unsealable_key(tag: str) -> str:
    """Return the key of a partition's jobs that can't be sealed."""
    return f"{tag}:unsealable"


def ids_key(tag: str) -> str:
    """Return the key of a partition's job ids."""
    return f"{tag}:ids"


def ended_key(tag: str) -> str:
    """Return the key of a partition's ended jobs, by when they ended."""
    return f"{tag}:ended"


def unsealed_key(tag: str) -> str:
    """Return the key of a partition's ended jobs whose logs are in their streams, by their last writes."""
    return f"{tag}:unsealed"


def replicated_key(tag: str) -> str:
    """Return the key that is written before a partition's replicas are waited for."""
    return f"{tag}:replicated"


def gone_key(tag: str) -> str:
    """Return the key of a partition's tombstones."""
    return f"{tag}:gone"


def facts_key(tag: str) -> str:
    """Return the key of a partition's facts of all jobs, which is the channel of their readers, too."""
    return f"{tag}:facts"


def groups_key(tag: str) -> str:
    """Return the key of how far each group has read a partition's facts."""
    return f"{tag}:groups"


def keys_of_append(keys: JobKeys) -> tuple[str, str, str, str, str, str, str, str, str, str]:
    """Return the keys of a job and of its partition that an append writes."""
    own = keys.hash, keys.stream, keys.calls, keys.log_index, keys.ids, keys.ring
    return *own, keys.ended, keys.unsealed, gone_key(keys.tag), facts_key(keys.tag)


def keys_of_claim(tag: str, job_id: str) -> tuple[str, str]:
    """Return the keys of a job that is claimed: its hash and its stream."""
    return f"{tag}:job:{job_id}", f"{tag}:events:{job_id}"


def keys_of_completion(tag: str, job_id: str) -> tuple[str, str, str]:
    """Return the keys of a job that is completed: its hash, its stream and its writers' last calls."""
    return f"{tag}:job:{job_id}", f"{tag}:events:{job_id}", f"{tag}:calls:{job_id}"


def queue_of(keys: Keys, kind: Literal["tickets", "dispatch"], key: str) -> QueueKeys | None:
    """Return the queue that a key of that kind belongs to; None for a key of another kind."""
    tag, separator, name = key.partition(f":{kind}:")
    return QueueKeys(name, tag) if separator and tag in keys.tags else None


def queue_everywhere(keys: Keys, name: str) -> list[QueueKeys]:
    """Return the keys of a queue in all partitions."""
    return [QueueKeys(name, tag) for tag in keys.tags]


def named_indexes(keys: Keys, queue: str | None = None) -> list[str]:
    """Return the indexes whose names are known: of all partitions' jobs, or what belongs to a queue."""
    if queue is not None:
        return [key for its in queue_everywhere(keys, queue) for key in (its.backlog, its.leases, its.tickets)]
    found = []
    for tag in keys.tags:
        found += [ids_key(tag), QueueKeys(NO_QUEUE, tag).leases, ended_key(tag), unsealed_key(tag)]
        found += [jobs_key(tag, status) for status in JobStatus]
    return found


def queues_key(tag: str) -> str:
    """Return the key of the set of the names of a partition's queues."""
    return f"{tag}:queues"


def all_keys_pattern(keys: Keys) -> str:
    """Return what matches all keys of a store, for `SCAN`."""
    return f"{{{keys.prefix}:*}}:*"


def account_key(keys: Keys, kind: AccountKind, name: str = "") -> str:
    """Return a key beside the accounts: a session by its token's hash, a webhook's queue, or the only one of a kind."""
    return f"{{{keys.prefix}:accounts}}:{kind}" + (f":{name}" if name else "")


def jobs_key(tag: str, status: JobStatus, user_id: str | None = None) -> str:
    """Return the key of a listing: a partition's jobs of one status, or of those one user's."""
    return f"{tag}:jobs:{status.value}" if user_id is None else f"{tag}:owned:{status.value}:{user_id}"
