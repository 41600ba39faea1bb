"""What records tell of a job to all who read facts, and how it stands in an entry."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from ci_common.models import JobEvent, JobStatus
from ci_eventstore.events.records import Fact, FactType, Record
from ci_eventstore.facts.facts import STATUS_LETTERS, FactKind, JobFact, fact_text, facts_in, facts_of, owner_mark

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LINE = JobEvent("log", "a line\n", timestamp=NOW)
END = JobEvent("complete", success=True, timestamp=NOW)
Q, R, C, X = JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COMPLETED, JobStatus.CANCELLED


def created(status: str) -> Fact:
    return Fact(FactType.CREATED, NOW, {"status": status})


def fact(kind: FactType) -> Fact:
    return Fact(kind, NOW)


@pytest.mark.parametrize(
    ("before", "after", "records", "is_end", "expected"),
    [
        (None, Q, [created("queued")], False, ["cq"]),
        (None, C, [created("completed"), LINE, fact(FactType.ENDED)], True, ["cc", "ec"]),
        (None, R, [created("queued"), fact(FactType.CLAIMED)], False, ["cq", "sr"]),
        (R, R, [LINE], False, []),
        (R, R, [fact(FactType.UPDATED)], False, []),
        (R, R, [fact(FactType.CANCEL_REQUESTED)], False, []),
        (Q, R, [fact(FactType.STARTED)], False, ["sr"]),
        (R, R, [fact(FactType.CLAIMED)], False, ["sr"]),
        (R, Q, [fact(FactType.REQUEUED)], False, ["rq"]),
        (R, C, [LINE, END], True, ["ec"]),
        (Q, X, [LINE, fact(FactType.CANCELLED), END], True, ["ex"]),
        (C, C, [fact(FactType.END_TIME_SET), END], False, []),
    ],
)
def test_what_records_tell(
    before: JobStatus | None, after: JobStatus, records: Sequence[Record], is_end: bool, expected: list[str]
) -> None:
    """A creation, each start, each requeueing, and one end; lines and what else changes tell nothing."""
    assert facts_of(before, after, records, is_end=is_end) == expected


def test_facts_of_an_entry() -> None:
    """One for each id, which may have blanks, with the server's time; ids of facts don't repeat."""
    text = fact_text(FactKind.ENDED, C) + "a\nb c"
    assert list(facts_in(3, "1767312000123-4", text)) == [
        JobFact(f"3-1767312000123-4-{place}", FactKind.ENDED, C, job_id, NOW.replace(microsecond=123000))
        for place, job_id in ((1, "a"), (2, "b c"))
    ]


def test_a_deletion_recognises_its_owner() -> None:
    """Whoever has both ids; nobody's job is nobody's, and so is one of which an earlier version says nothing."""
    mark = owner_mark("a", "ada")
    assert (len(mark), owner_mark("a", None)) == (16, "")
    assert len({mark, owner_mark("b", "ada"), owner_mark("a", "bob"), owner_mark("a\nada", "")}) == 4
    for noted, is_hers in ((mark, True), ("", False), (None, False)):
        [deleted] = facts_in(0, "1-0", "dca", noted)
        assert (deleted.is_of("ada"), deleted.is_of("bob"), deleted.is_of("")) == (is_hers, False, False)


@pytest.mark.parametrize("text", ["b-", "", "c", "?qa", "c?a"])
def test_what_only_others_can_read_is_passed_over(text: str) -> None:
    """Beginnings of groups, and what later programs write."""
    assert list(facts_in(0, "1-0", text)) == []


def test_letters_tell_statuses_apart() -> None:
    """Each status has its own."""
    assert STATUS_LETTERS.keys() == set(JobStatus)
    assert len(set(STATUS_LETTERS.values())) == len(JobStatus)
