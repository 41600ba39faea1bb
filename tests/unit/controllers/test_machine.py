"""How long a machine takes no jobs that can't run them."""

from ci_eventstore.controllers.machine import FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS, MachineHealth
from ci_eventstore.errors import MachineError

ERROR = MachineError("no room")


def test_pauses_grow_to_their_limit_and_end_with_a_success() -> None:
    """One job is taken after each, to see whether it can be run."""
    health, now, pauses = MachineHealth(), 100.0, []
    assert health.allowed(8, now) == 8
    for _ in range(8):
        health.note_failure(ERROR, now, now + 0.5)
        now += 0.5
        assert health.allowed(8, now) == 0
        pauses.append(health.pause(now))
        now += pauses[-1]
        assert (health.pause(now), health.is_unfit, health.allowed(8, now)) == (0.0, True, 1)
    assert pauses == [FIRST_PAUSE_SECONDS * 2**number for number in range(6)] + [LAST_PAUSE_SECONDS] * 2
    health.note_success(now)
    assert (health.is_unfit, health.allowed(8, now)) == (False, 8)


def test_jobs_that_began_before_a_failure_say_nothing_of_now() -> None:
    """They neither make the pause longer, whenever they fail, nor end it by their success."""
    health = MachineHealth()
    health.note_failure(ERROR, 10.0, 20.0)
    until = 20.0 + health.pause(20.0)
    health.note_failure(ERROR, 15.0, until + 100.0)
    assert health.pause(until + 100.0) == 0.0
    health.note_success(19.0)
    assert health.is_unfit
    health.note_success(until)
    assert not health.is_unfit
