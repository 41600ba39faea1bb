"""What a process remembers of changes, the ids that clients come back with, and which changes a client gets."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ci_common.models import JobStatus
from ci_eventstore.facts.facts import FactKind, JobFact
from ci_eventstore.facts.points import entry_of, read_points, write_points
from ci_eventstore.web.changes import ring as change_ring
from ci_eventstore.web.changes.listeners import Filter
from ci_eventstore.web.changes.ring import Change, ChangeRing, changes_in, merge

QUEUED, RUNNING, COMPLETED, FAILED = (
    JobStatus.QUEUED,
    JobStatus.RUNNING,
    JobStatus.COMPLETED,
    JobStatus.FAILED,
)
numbers = st.integers(0, 2**63)
entries = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=70)


@settings(max_examples=50)
@given(entries)
def test_points_are_read_as_they_were_written(points: list[tuple[int, int]]) -> None:
    """Of as many partitions as there are, and of no other number."""
    text = write_points(points)
    assert read_points(text, len(points)) == points
    assert read_points(text, len(points) + 1) is None
    assert read_points(text[:-1], len(points)) is None


@settings(max_examples=50)
@given(st.text(max_size=60), st.integers(1, 3))
def test_any_text_may_come_back(text: str, partitions: int) -> None:
    """What nobody wrote is no place, or one that is checked later on."""
    found = read_points(text, partitions)
    assert found is None or len(found) == partitions


def test_points_are_short() -> None:
    """64 partitions take a header of a few hundred characters."""
    points = [(1_900_000_000_000 - number * 60_000, number) for number in range(64)]
    assert len(write_points(points)) < 400


def fact(kind: FactKind, job_id: str = "j", status: JobStatus = RUNNING) -> JobFact:
    return JobFact("0-1-0-1", kind, status, job_id, datetime(2030, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("kinds", "status", "wanted", "is_taken"),
    [
        ([FactKind.CREATED], QUEUED, {QUEUED}, True),
        ([FactKind.CREATED], QUEUED, {RUNNING}, False),
        ([FactKind.STARTED], RUNNING, {QUEUED}, True),
        ([FactKind.STARTED, FactKind.ENDED], COMPLETED, {RUNNING}, True),
        ([FactKind.ENDED], COMPLETED, {FAILED}, False),
        ([FactKind.REQUEUED], QUEUED, {RUNNING}, True),
        ([FactKind.LOG_DELETED], COMPLETED, {RUNNING}, False),
        ([FactKind.LOG_DELETED], COMPLETED, {COMPLETED}, True),
        ([FactKind.DELETED], None, {FAILED}, True),
    ],
)
def test_who_gets_a_change(
    kinds: list[FactKind], status: JobStatus | None, wanted: set[JobStatus], is_taken: bool
) -> None:
    """Whose filter the job passes, or may have passed before."""
    changes: change_ring.Changes = {}
    merge(changes, changes_in(map(fact, kinds)))
    assert Filter(frozenset(wanted)).takes(status, "default", changes["j"]) == is_taken
    assert Filter().takes(status, "default", changes["j"])
    assert not Filter(queue="slow").takes(status, "default", changes["j"])


def test_sealing_changes_nothing() -> None:
    """A job shows nothing of it."""
    assert changes_in([fact(FactKind.SEALED)]) == []


def ring_of(limit: int, monkeypatch: pytest.MonkeyPatch) -> ChangeRing:
    monkeypatch.setattr(change_ring, "KEPT_CHANGES", limit * 2)
    ring = ChangeRing(2)
    for partition in (0, 1):
        ring.begin(partition, "10-0")
    return ring


def test_what_has_changed_since(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the entries of each partition; each job once."""
    ring = ring_of(1000, monkeypatch)
    ring.add(0, "11-0", [("a", Change()), ("b", Change())])
    ring.add(0, "12-0", [("a", Change(frozenset({RUNNING})))])
    ring.add(1, "5000-3", [("c", Change(is_deleted=True))])
    assert ring.points == [(12, 0), (5000, 3)]
    assert ring.since([(10, 0), (10, 0)]) == {
        "a": Change(frozenset({RUNNING})),
        "b": Change(),
        "c": Change(is_deleted=True),
    }
    assert ring.since([(11, 0), (5000, 3)]) == {"a": Change(frozenset({RUNNING}))}
    assert ring.since(ring.points) == {}


@pytest.mark.parametrize("points", [("9-0", "10-0"), ("10-0", "11-0"), ("0-0", "0-0")])
def test_what_is_not_known(points: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries before the beginning, or that haven't been read."""
    assert ring_of(1000, monkeypatch).since(list(map(entry_of, points))) is None


def test_a_partition_begins_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that there was from the entry of a client that comes from elsewhere up to the first known one."""
    ring = ring_of(1000, monkeypatch)
    ring.add(0, "12-0", [("b", Change())])
    points = [(8, 0), (10, 0)]
    assert ring.lacks(points) == {0: ((8, 0), (10, 0))}
    before = [((8, 0), [("x", Change())]), ((9, 0), [("a", Change()), ("c", Change())]), ((10, 0), [("d", Change())])]
    for others in ([], before[:1], before[:2], before[2:]):
        assert not ring.extend(0, others)
    assert ring.since(points) is None
    assert ring.extend(0, before)
    assert ring.lacks(points) == {}
    found = ring.since(points)
    assert found is not None
    assert list(found) == ["a", "c", "d", "b"]
    assert not ring.extend(0, before)


def test_a_partition_that_has_not_begun() -> None:
    """Nothing is known then; it counts as nowhere."""
    ring = ChangeRing(2)
    ring.begin(0, "10-0")
    assert (ring.begun, ring.points) == (1, [(10, 0), (0, 0)])
    assert ring.since(ring.points) is None


def test_old_changes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """With their entries, so that whoever needs them is sent all jobs."""
    ring = ring_of(100, monkeypatch)
    for number in range(11, 131):
        ring.add(0, f"{number}-0", [(str(number), Change())])
    assert ring.since([(29, 0), (10, 0)]) is None
    found = ring.since([(30, 0), (10, 0)])
    assert found is not None
    assert list(found) == [str(number) for number in range(31, 131)]
