"""Rules for Prometheus can be read, and ask in a way that several servers don't distort."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import yaml

from tests.operating.promql import OVER_TIME, read_expression
from tests.unit.structure.source import ROOT

RULES: Sequence[Mapping[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "examples" / "prometheus" / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
NAMES = [rule.get("alert") or rule["record"] for rule in RULES]


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_what_all_servers_show_is_never_added_up(rule: Mapping[str, Any]) -> None:
    """Gauges of queues are the same at each server; counters are looked at over a time, and only they are."""
    for selector in read_expression(rule["expr"]):
        if selector.name.startswith("ci_eventstore_queue_"):
            assert selector.inside[:1] == ("max by queue",), rule["expr"]
        is_counter = selector.name.endswith("_total")
        assert (selector.has_range, selector.inside[:1] in {(name,) for name in OVER_TIME}) == (is_counter, is_counter)


@pytest.mark.parametrize("rule", [rule for rule in RULES if "alert" in rule], ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_to_do(rule: Mapping[str, Any]) -> None:
    """It has a severity, one sentence for what is wrong, and what to do about it."""
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert all(rule["annotations"][name].endswith(".") for name in ("summary", "action"))


def test_names_are_given_once() -> None:
    """No rule hides another."""
    assert sorted(set(NAMES)) == sorted(NAMES)


@pytest.mark.parametrize(
    "text",
    ["", "max(", "a b", "rate(a[5m]", "a{b=c}", "sum by a (b)", "1 +", "a == == b", "who(a)", "a @ 5", "a)"],
)
def test_what_is_no_expression_is_refused(text: str) -> None:
    """The reader takes nothing that Prometheus would refuse."""
    with pytest.raises(SyntaxError):
        read_expression(text)
