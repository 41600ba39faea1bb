"""Say of what can't be read that it is left alone."""

import logging

from ci_eventstore.connection.nodes import Nodes

logger = logging.getLogger("ci_eventstore.queues")


def name_damage(nodes: Nodes, job_id: str, what: object) -> None:
    """Say of a job, once a minute, that it is left alone; without an id, that not all of a queue could be written."""
    subject = f"job {job_id} can't be read" if job_id else "not all could be written"
    outage = nodes.outages.of(logger, "%s: run `ci-eventstore rebuild`", kind=job_id)
    outage.failed(f"{subject} ({what})", {"job_id": job_id})
