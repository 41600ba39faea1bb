"""A command as a process: its end, and what it sees of the environment."""

from ci_common.models import Outcome
from ci_eventstore.processes.command import Command, without_own
from tests.servers import wait_until


async def test_an_end_is_seen_before_the_event_loop_knows_of_it() -> None:
    """A signal that comes just then is told from one that stopped the command."""
    command = await Command.start(["true"])
    wait_until(lambda: command.has_ended, "the end of the command, nothing awaited")
    assert await command.wait() == 0
    assert command.has_ended
    command.output.close()


ENVIRONMENT = {"PATH": "/bin", "TOKEN": "t", "CI_EVENTSTORE_URL": "redis://:pw@h", "CI_EVENTSTORE_PREFIX": "ci"}


def test_what_this_program_is_told_stays_here() -> None:
    """All variables of its own, and what is a secret."""
    assert without_own(ENVIRONMENT) == {"PATH": "/bin", "TOKEN": "t"}
    assert without_own(ENVIRONMENT, withheld=["TOKEN", "OTHER"]) == {"PATH": "/bin"}


def test_what_is_passed_on_by_name() -> None:
    """A secret, or even a variable of this program's own."""
    passed = without_own(ENVIRONMENT, withheld=["TOKEN"], passed=["TOKEN", "CI_EVENTSTORE_PREFIX", "OTHER"])
    assert passed == {"PATH": "/bin", "TOKEN": "t", "CI_EVENTSTORE_PREFIX": "ci"}


def test_how_a_process_ended() -> None:
    """An exit code, or the signal that killed it, if need be without a name."""
    assert (Outcome.of(3), str(Outcome.of(3))) == (Outcome(exit_code=3), "exit code 3")
    assert (Outcome.of(-15), str(Outcome.of(-15))) == (Outcome(signal="SIGTERM"), "killed by SIGTERM")
    assert str(Outcome.of(-40)) == "killed by SIG40"
    assert [Outcome.of(code).is_success for code in (0, 1, -9)] == [True, False, False]
