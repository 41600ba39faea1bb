"""Which commands the plans of the fault proxy break."""

from tests.fault_proxy import Fault, always, at, randomly

EVALSHA, READ = [b"EVALSHA", b"sha"], [b"HGETALL", b"key"]


def test_a_scripted_plan_breaks_the_first_commands_of_a_name() -> None:
    """So many of them, and no others."""
    plan = at(Fault.STALL, b"EVALSHA", times=2)
    assert [plan(command) for command in (READ, EVALSHA, EVALSHA, EVALSHA)] == [None, Fault.STALL, Fault.STALL, None]


def test_a_plan_may_break_every_script() -> None:
    """Scripts, however they are called, and nothing else."""
    commands = (READ, EVALSHA, [b"eval", b"return 1"])
    assert [always(Fault.LATE)(command) for command in commands] == [None, Fault.LATE, Fault.LATE]
    assert [always(None)(command) for command in commands] == [None, None, None]


def test_a_random_plan_is_the_same_for_the_same_seed() -> None:
    """The seed decides alone; reads don't count."""
    plan, with_reads, other = randomly(1, 0.5), randomly(1, 0.5), randomly(2, 0.5)
    chosen = [plan(EVALSHA) for _ in range(200)]
    assert [(with_reads(READ), with_reads(EVALSHA))[1] for _ in range(200)] == chosen
    assert [other(EVALSHA) for _ in range(200)] != chosen
    assert {None, *Fault} == set(chosen)


def test_a_random_plan_keeps_to_its_probability_faults_and_names() -> None:
    """It never breaks what it wasn't asked to."""
    assert {randomly(1, 0.0)(EVALSHA) for _ in range(100)} == {None}
    some = randomly(1, 0.1, [Fault.LATE], [b"HGETALL"])
    assert {some(EVALSHA) for _ in range(100)} == {None}
    assert 50 < sum(some(READ) is Fault.LATE for _ in range(1000)) < 200
