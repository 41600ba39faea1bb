"""The table of moves, written once more by hand."""

from itertools import product

import pytest

from ci_common import Job, JobStatus
from ci_common.errors import InvalidTransitionError, ResultConflictError
from ci_common.transitions import ENDED, MOVES, check_move, check_result

ALLOWED = {
    "queued": {"running", "completed", "failed", "cancelled"},
    "running": {"queued", "completed", "failed", "cancelled"},
    "completed": set[str](),
    "failed": set[str](),
    "cancelled": set[str](),
}


def test_the_whole_table() -> None:
    """From each status to those that it may become."""
    assert {str(status): {str(target) for target in targets} for status, targets in MOVES.items()} == ALLOWED


def test_the_statuses_without_a_way_out() -> None:
    """They are the ends of a job."""
    assert {str(status) for status in ENDED} == {"completed", "failed", "cancelled"}


@pytest.mark.parametrize(("current", "requested"), list(product(JobStatus, JobStatus)))
def test_a_move_is_allowed_or_named(current: JobStatus, requested: JobStatus) -> None:
    """An error names the job and both statuses."""
    if requested in ALLOWED[current]:
        check_move("j", current, requested)
        return
    with pytest.raises(InvalidTransitionError) as caught:
        check_move("j", current, requested)
    assert str(caught.value) == f"job 'j' is {current} and can't become {requested}"
    assert (caught.value.job_id, caught.value.current, caught.value.requested) == ("j", current, requested)


@pytest.mark.parametrize(
    ("status", "success", "given", "is_allowed"),
    [
        ("queued", None, True, True),
        ("running", None, False, True),
        ("completed", None, True, True),
        ("completed", None, False, True),
        ("completed", True, True, True),
        ("completed", True, False, False),
        ("completed", False, True, False),
        ("completed", False, False, True),
        ("failed", None, False, True),
        ("failed", None, True, False),
        ("failed", False, True, False),
        ("cancelled", None, True, False),
        ("cancelled", False, False, True),
    ],
)
def test_the_first_result_wins(status: str, success: bool | None, given: bool, is_allowed: bool) -> None:
    """A job that failed or was cancelled has not passed, though nobody said so."""
    job = Job(id="j", status=status, success=success)
    if is_allowed:
        check_result(job, given)
        return
    with pytest.raises(ResultConflictError) as caught:
        check_result(job, given)
    assert (caught.value.job_id, caught.value.current, caught.value.requested) == ("j", not given, given)
