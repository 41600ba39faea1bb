"""Tombstones: what stays of a deleted job, so that its id is given to no other, and whoever asks for it is told."""

from enum import Enum
from typing import NamedTuple

from ci_common.models import JobStatus
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import WRONG_TYPE, as_text
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.facts.facts import STATUS_LETTERS, STATUSES
from ci_eventstore.keys import JobKeys, gone_key


class Reason(Enum):
    """Why a job was deleted; the value is its letter in a tombstone."""

    #: Somebody asked for it.
    ASKED = "a"
    #: A policy of retention.
    RETENTION = "r"


class Tombstone(NamedTuple):
    """What is known of a deleted job: nothing that a user wrote, nor whose it was."""

    reason: Reason
    #: Its last.
    status: JobStatus
    #: Sort keys of its creation and of its end.
    created: str
    ended: str
    #: The job's, which is the token of its creation; "" for older jobs.
    incarnation: str
    #: The server's time of the deletion, in milliseconds since 1970; a new tombstone gets it by the script.
    deleted_ms: int = 0

    @property
    def letters(self) -> str:
        """What it begins with in the store; then comes the time."""
        return self.reason.value + STATUS_LETTERS[self.status]

    @property
    def rest(self) -> str:
        """What comes after the time."""
        return f"{self.created} {self.ended} {self.incarnation}"

    @classmethod
    def parse(cls, job_id: str, text: str) -> "Tombstone":
        """Read what stands in the store; StoreFormatError."""
        try:
            letters, deleted_ms, created, ended, incarnation = text.split(" ")
            return cls(Reason(letters[:1]), STATUSES[letters[1:]], created, ended, incarnation, int(deleted_ms))
        except (ValueError, KeyError) as error:
            raise StoreFormatError(f"the tombstone of job {job_id!r} can't be read: {error}") from error


async def read_tombstone(nodes: Nodes, keys: JobKeys) -> Tombstone | None:
    """Return a job's tombstone, None if it has none; StoreFormatError, StoreUnavailableError."""
    [found] = await nodes.read_many([("HGET", gone_key(keys.tag), keys.job_id)])
    return None if found is None or found is WRONG_TYPE else Tombstone.parse(keys.job_id, as_text(found))
