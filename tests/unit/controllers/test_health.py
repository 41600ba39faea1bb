"""How long a machine takes no jobs that can't run them."""

from ci_eventstore.controllers.health import FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS, MachineHealth
from ci_eventstore.errors import MachineError


def test_pauses_grow_to_their_limit_and_end_with_a_success() -> None:
    """Jobs that were begun before a pause, and fail in it, don't make it longer."""
    health, error, now, pauses = MachineHealth(), MachineError("no room"), 100.0, []
    for _ in range(8):
        health.note_failure(error, now)
        health.note_failure(error, now)
        pauses.append(health.pause(now))
        now += pauses[-1]
        assert (health.pause(now), health.is_unfit) == (0.0, True)
    assert pauses == [FIRST_PAUSE_SECONDS * 2**number for number in range(6)] + [LAST_PAUSE_SECONDS] * 2
    health.note_success()
    assert not health.is_unfit
    health.note_failure(error, now)
    assert health.pause(now) == FIRST_PAUSE_SECONDS
