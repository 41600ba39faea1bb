"""What readers of facts are told, and what jobs' streams say that they have to be told."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from ci_common.models import Job, JobEvent
from ci_eventstore.connection.replies import as_text
from ci_eventstore.events.records import Fact, FactType
from ci_eventstore.facts.facts import FactKind, JobFact, facts_in
from ci_eventstore.facts.reader import FactBatch
from ci_eventstore.keys import facts_key
from ci_eventstore.repository import RedisJobRepository
from tests.records import records_of

#: Facts of a job, each its kind and the status.
Story = list[tuple[str, str]]
KINDS = {
    FactType.STARTED: FactKind.STARTED,
    FactType.CLAIMED: FactKind.STARTED,
    FactType.REQUEUED: FactKind.REQUEUED,
}
STATUSES = {FactKind.STARTED: "running", FactKind.REQUEUED: "queued"}


async def story_in_stream(repository: RedisJobRepository, job_id: str) -> Story:
    """Return the facts that a job's stream says there have to be of it."""
    job = await repository.get_job_summary(job_id)
    assert job is not None
    engine, story = repository.engine, Story()
    for _, record in await records_of(engine.reader.source, engine.keys.job(job_id)):
        if isinstance(record, Fact) and record.type is FactType.CREATED:
            story.append((FactKind.CREATED.name, record.fields["status"]))
        elif isinstance(record, Fact) and record.type in KINDS:
            kind = KINDS[record.type]
            story.append((kind.name, STATUSES[kind]))
        elif record.type in ("complete", FactType.ENDED) and isinstance(record, Fact | JobEvent):
            story.append((FactKind.ENDED.name, str(job.status)))
    return story


def stories_of(facts: list[JobFact]) -> dict[str, Story]:
    """Return what each job's facts tell, those that came twice once."""
    stories, known = defaultdict[str, Story](list), set[str]()
    for fact in facts:
        if fact.id not in known:
            known.add(fact.id)
            stories[fact.job_id].append((fact.kind.name, str(fact.status)))
    return stories


@asynccontextmanager
async def reading(
    repository: RedisJobRepository, group: str = "g", lease_seconds: float = 30.0, limit: int = 500
) -> AsyncIterator[AsyncIterator[FactBatch]]:
    """Read for a group; the gaps with which it begins are acknowledged already, if it is new."""
    is_new = group not in [known.name for known in await repository.engine.facts.all()]
    async with aclosing(repository.subscribe(group, lease_seconds=lease_seconds, limit=limit)) as batches:
        for _ in repository.engine.keys.tags if is_new else ():
            batch = await anext(batches)
            assert batch.has_gap
            await batch.acknowledge()
        yield batches


async def facts_until(
    repository: RedisJobRepository, batches: AsyncIterator[FactBatch], last: str = "last"
) -> list[JobFact]:
    """Create a job of that id, and return the facts before its creation, all of which are acknowledged."""
    await repository.create_job(Job(id=last, status="queued", queue="nobody's"))
    facts = list[JobFact]()
    async with asyncio.timeout(30):
        async for batch in batches:
            assert not batch.has_gap
            await batch.acknowledge()
            facts += batch.facts
            if facts and facts[-1].job_id == last:
                return facts[:-1]
    raise AssertionError("the facts have ended")


async def keep_facts(repository: RedisJobRepository) -> None:
    """Have all facts of the store kept, as if a group read them."""
    for tag in repository.engine.keys.tags:
        await repository.engine.nodes.read("XADD", facts_key(tag), "1-1", "f", "b-")


async def kept_facts(repository: RedisJobRepository) -> list[JobFact]:
    """Return all facts that are kept."""
    engine, found = repository.engine, list[JobFact]()
    for partition, tag in enumerate(engine.keys.tags):
        for entry, fields in await engine.nodes.read("XRANGE", facts_key(tag), "-", "+"):
            found += facts_in(partition, as_text(entry), as_text(fields[1]))
    return found


async def untold(repository: RedisJobRepository) -> list[str]:
    """Return where facts aren't what the streams of jobs say, each once and in their order."""
    told = stories_of(await kept_facts(repository))
    expected = {job.id: await story_in_stream(repository, job.id) for job in await repository.list_jobs()}
    return [
        f"{name}: told {told.get(name)}, happened {expected.get(name)}"
        for name in sorted(told.keys() | expected.keys())
        if told.get(name) != expected.get(name)
    ]
