"""Whether there is a job. `lua/existence.lua` says the same in scripts."""

from enum import StrEnum

from ci_common.errors import JobNotFoundError
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import ProjectionMissingError
from ci_eventstore.keys import JobKeys


class Standing(StrEnum):
    """How an id stands in the store."""

    #: There is such a job: it has a record. The record's field `log` is reserved for where its log lies.
    THERE = "there"
    #: It has a log and no record: `rebuild` makes that. Until then nothing is written, and no job is created anew.
    UNPROJECTED = "unprojected"
    #: There is nothing of it.
    MISSING = "missing"

    @classmethod
    def of(cls, *, has_record: bool, has_log: bool) -> "Standing":
        """Return the standing of an id by what there is of it."""
        if has_record:
            return cls.THERE
        return cls.UNPROJECTED if has_log else cls.MISSING


async def read_standing(nodes: Nodes, keys: JobKeys) -> Standing:
    """Return how an id stands; StoreUnavailableError."""
    # In this order, a job that is created between the two is never unprojected.
    has_log, has_record = await nodes.read_many([("EXISTS", keys.stream), ("EXISTS", keys.hash)])
    return Standing.of(has_record=bool(has_record), has_log=bool(has_log))


async def check_standing(nodes: Nodes, keys: JobKeys) -> None:
    """Refuse an id whose job isn't there: JobNotFoundError, ProjectionMissingError."""
    standing = await read_standing(nodes, keys)
    if standing is Standing.UNPROJECTED:
        raise ProjectionMissingError(keys.job_id)
    if standing is Standing.MISSING:
        raise JobNotFoundError(keys.job_id)
