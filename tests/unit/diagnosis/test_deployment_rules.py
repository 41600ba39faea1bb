"""What servers beside each other show, and what that means: tables."""

from typing import Any

import pytest

from ci_eventstore.diagnosis.deployment_rules import (
    ClockSeen,
    SentinelSeen,
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


@pytest.mark.parametrize(
    ("spread", "away", "unserved", "severities"),
    [
        ({"a": 22, "b": 22, "c": 20}, 0, 0, ["ok"]),
        ({"a": 1, "b": 0, "c": 0}, 0, 0, ["warning"]),
        ({"a": 50, "b": 7, "c": 7}, 0, 0, ["note"]),
        ({"a": 22, "b": 22}, 20, 0, ["error"]),
        ({"a": 22, "b": 22}, 0, 5461, ["error"]),
        ({"a": 22, "b": 22}, 20, 5461, ["error", "error"]),
        ({}, 64, 0, ["error"]),
    ],
)
def test_partitions(spread: dict[str, int], away: int, unserved: int, severities: list[str]) -> None:
    """Servers without a partition, servers with too many, servers that are away, and slots of nobody."""
    found = judge_partitions(spread, away=away, unserved=unserved, is_cluster=True)
    assert [one.severity for one in found] == severities


def test_one_server_has_all_partitions() -> None:
    """However many there are."""
    [found] = judge_partitions({"a": 1}, away=0, unserved=0, is_cluster=False)
    assert (found.severity, found.what) == ("ok", "1 partition on 1 server")


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
