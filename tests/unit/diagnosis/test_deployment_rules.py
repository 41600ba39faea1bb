"""What servers beside each other show, and what that means: tables."""

from typing import Any

import pytest

from ci_eventstore.diagnosis.deployment_rules import (
    SLOTS,
    ClockSeen,
    SentinelSeen,
    SlotsSeen,
    judge_clocks,
    judge_partitions,
    judge_sentinels,
)


@pytest.mark.parametrize(
    ("ahead", "severities"),
    [
        ([], []),
        ([0.0], ["ok"]),
        ([0.9, -0.05], ["ok"]),
        ([2.0], ["note"]),
        ([-9.0], ["warning"]),
        ([0.6, -0.6], ["note"]),
        ([4.0, -4.0], ["note", "note", "warning"]),
    ],
)
def test_clocks(ahead: list[float], severities: list[str]) -> None:
    """Each is compared with this machine's, and all with each other."""
    found = judge_clocks([ClockSeen(node=f"n{n}", ahead=one, error=0.01) for n, one in enumerate(ahead)])
    assert [one.severity for one in found] == severities


def test_a_slow_answer_says_little_of_a_clock() -> None:
    """What may be the network's isn't blamed on the clock."""
    assert judge_clocks([ClockSeen(node="n", ahead=2.0, error=1.5)])[0].severity == "ok"


WHOLE = SlotsSeen(is_served=True, served=SLOTS)


@pytest.mark.parametrize(
    ("spread", "slots", "is_cluster", "severities"),
    [
        ({"a": 1}, None, False, ["ok"]),
        ({"a": 22, "b": 22, "c": 20}, WHOLE, True, ["ok"]),
        ({"a": 1, "b": 0, "c": 0}, WHOLE, True, ["warning"]),
        ({"a": 50, "b": 7, "c": 7}, WHOLE, True, ["note"]),
        ({"a": 32, "b": 32}, SlotsSeen(is_served=False, served=SLOTS - 5461), True, ["error"]),
        ({"a": 32, "b": 32}, SlotsSeen(is_served=False, served=SLOTS), True, ["error"]),
        ({"a": 32, "b": 32}, None, True, ["ok"]),
    ],
)
def test_partitions(spread: dict[str, int], slots: SlotsSeen | None, is_cluster: bool, severities: list[str]) -> None:
    """Servers without a partition, servers with too many, and slots of nobody."""
    assert [one.severity for one in judge_partitions(spread, slots, is_cluster=is_cluster)] == severities


@pytest.mark.parametrize(
    ("changes", "severities"),
    [
        ([{}, {}, {}], ["ok"]),
        ([{}], ["note"]),
        ([{}, {}, {"failure": "no answer"}], ["warning"]),
        ([{"failure": "no answer"}], ["warning"]),
        ([{"sentinels": 2, "usable": 2}, {"sentinels": 2, "usable": 2}], ["warning"]),
        ([{}, {}, {"usable": 1}], ["error"]),
        ([{}, {}, {"usable": 2}], ["ok"]),
        ([{}, {}, {"usable": 2, "quorum": 3}], ["error"]),
        ([{"flags": "s_down,master"}, {}, {}], ["error"]),
        ([{"primary": "b:6379"}, {}, {}], ["warning"]),
    ],
)
def test_sentinels(changes: list[dict[str, Any]], severities: list[str]) -> None:
    """Those that are away, too few of them, no quorum, a primary that they take for dead, a URL that names some."""
    given = {"address": "s:26379", "flags": "master", "sentinels": 3, "usable": 3, "quorum": 2, "primary": "a:6379"}
    found = judge_sentinels([SentinelSeen(**{**given, **one}) for one in changes])
    assert [one.severity for one in found] == severities
