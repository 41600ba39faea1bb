"""Renew leases: the typed face of `renew.lua`."""

from collections.abc import Sequence
from typing import NamedTuple

from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.connection.replies import as_texts
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.keys import Keys, QueueKeys
from ci_eventstore.queues.claimed import Claim
from ci_eventstore.queues.damage import name_damage


class HeldJob(NamedTuple):
    """A job whose lease is to be renewed."""

    hash: Key
    id: str
    claim: str


class RenewCall(NamedTuple):
    """What `renew.lua` is called with."""

    leases: Key
    clock: Key
    lease_ms: int
    jobs: Sequence[HeldJob]


RENEW = load_script(__package__, "renew", call=RenewCall)


async def renew(
    nodes: Nodes,
    keys: Keys,
    queue: str,
    claims: Sequence[Claim],
    lease_seconds: float,
    *,
    patience_seconds: float | None = None,
) -> dict[Claim, str]:
    """Renew the leases of a controller's jobs in all partitions, trying for `patience_seconds`; StoreError.

    Return for each "held", "cancel" (held, and someone wants it cancelled) or "lost".
    """
    answers: dict[Claim, str] = {}
    by_partition: dict[QueueKeys, list[Claim]] = {}
    for claim in claims:
        by_partition.setdefault(keys.job(claim.job_id).queue(queue), []).append(claim)
    for partition, group in by_partition.items():
        jobs = [HeldJob(keys.job(claim.job_id).hash, claim.job_id, str(claim)) for claim in group]
        call = RenewCall(partition.leases, partition.clock, int(lease_seconds * 1000), jobs)
        reply = await nodes.run(RENEW, *RENEW.order(call), patience_seconds=patience_seconds)
        for claim, answer in zip(group, as_texts(reply), strict=True):
            if answer == "damaged":
                name_damage(nodes, claim.job_id, "its hash")
            answers[claim] = "lost" if answer == "damaged" else answer
    return answers
