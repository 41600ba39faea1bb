"""Slot maps and redirections are read as nodes of every kind write them."""

from typing import Any

import pytest

from ci_eventstore.connection.addresses import HostPort
from ci_eventstore.connection.topology import SLOTS, Redirection, SlotMap, read_redirection, slot_of

ASKED = ("10.0.0.9", 7009)


@pytest.mark.parametrize(
    ("node", "address"),
    [
        ([b"10.0.0.1", 7001, b"id1"], ("10.0.0.1", 7001)),
        ([b"10.0.0.1", 7001, b"id1", []], ("10.0.0.1", 7001)),
        ([b"fd00::1", 7001, b"id1", [b"hostname", b"a.example"]], ("fd00::1", 7001)),
        # What is preferred comes first.
        ([b"a.example", 7001, b"id1", [b"ip", b"10.0.0.1"]], ("a.example", 7001)),
        # A name is preferred, and the node has none.
        ([b"?", 7001, b"id1", [b"ip", b"10.0.0.1"]], ("10.0.0.1", 7001)),
        ([b"", 7001, b"id1", [b"hostname", b"a.example"]], ("a.example", 7001)),
        # The node doesn't know by which address it is reached, or isn't to say.
        ([b"", 7001, b"id1", []], ("10.0.0.9", 7001)),
        ([None, 7001, b"id1"], ("10.0.0.9", 7001)),
        ([None, 7001, b"id1", [b"ip", b"10.0.0.1"]], ("10.0.0.1", 7001)),
        ([b"?", 7001, b"id1", []], ("10.0.0.9", 7001)),
    ],
)
def test_a_master_is_reached_by_the_name_that_it_has(node: list[Any], address: HostPort) -> None:
    """The preferred one, else another one, else that of the node that was asked."""
    slots = SlotMap.read([[0, 5, node, [b"10.0.0.2", 7002, b"id2"]]], ASKED)
    assert slots.masters == [address]


def test_each_slot_has_its_master() -> None:
    """A master may have several ranges; replicas serve nothing; slots without a range are unserved."""
    one, two = [b"10.0.0.1", 7001, b"id1"], [b"10.0.0.2", 7002, b"id2"]
    slots = SlotMap.read([[8192, 16383, two], [0, 0, one, two], [2, 8191, one, two]], ASKED)
    owners = {slot: slots.owners[slot] for slot in (0, 1, 2, 8191, 8192, 16383)}
    first, second = ("10.0.0.1", 7001), ("10.0.0.2", 7002)
    assert owners == {0: first, 1: None, 2: first, 8191: first, 8192: second, 16383: second}
    assert slots.masters == [first, second]
    assert slots.unserved == 1


def test_what_is_told_of_one_slot_is_noted() -> None:
    """As a redirection says it."""
    slots = SlotMap.read([[0, SLOTS - 1, [b"10.0.0.1", 7001, b"id1"]]], ASKED)
    slots.move(5, ("10.0.0.2", 7002))
    assert [slots.owners[4], slots.owners[5]] == [("10.0.0.1", 7001), ("10.0.0.2", 7002)]
    assert slots.masters == [("10.0.0.1", 7001), ("10.0.0.2", 7002)]


def test_a_node_that_knows_no_slots_says_nothing_of_any() -> None:
    """As one does that was reset."""
    slots = SlotMap.read([], ASKED)
    assert slots.masters == []
    assert slots.unserved == SlotMap().unserved == SLOTS


@pytest.mark.parametrize(
    "reply",
    [
        None,
        b"OK",
        7,
        [b"range"],
        [[0, 5]],
        [[5, 0, [b"10.0.0.1", 7001]]],
        [[0, SLOTS, [b"10.0.0.1", 7001]]],
        [[-1, 5, [b"10.0.0.1", 7001]]],
        [[0, 5, []]],
        [[0, 5, [b"10.0.0.1", b"port"]]],
        [[0, 5, [b"\xff", 7001]]],
        [[0, 5, [b"10.0.0.1", 7001, b"id", [b"ip"]]]],
    ],
)
def test_what_isnt_a_slot_map_is_refused(reply: Any) -> None:
    """So a proxy's odd answer makes no node forget where its keys are."""
    with pytest.raises(ValueError, match="can't be read"):
        SlotMap.read(reply, ASKED)


@pytest.mark.parametrize(
    ("reply", "redirection"),
    [
        ("MOVED 3999 127.0.0.1:6381", Redirection(3999, ("127.0.0.1", 6381), is_asking=False)),
        ("ASK 3999 127.0.0.1:6381", Redirection(3999, ("127.0.0.1", 6381), is_asking=True)),
        ("MOVED 0 fd00::1:6381", Redirection(0, ("fd00::1", 6381), is_asking=False)),
        ("MOVED 3999 a.example:6381", Redirection(3999, ("a.example", 6381), is_asking=False)),
        ("MOVED 3999 :6381", Redirection(3999, ("10.0.0.9", 6381), is_asking=False)),
        ("ASK 3999 ?:6381", Redirection(3999, ("10.0.0.9", 6381), is_asking=True)),
        ("MOVED 16384 127.0.0.1:6381", None),
        ("MOVED", None),
        ("MOVED x 127.0.0.1:6381", None),
        ("MOVED 3999 127.0.0.1", None),
        ("TRYAGAIN Multiple keys request during rehashing of slot", None),
        ("ERR MOVED 3999 127.0.0.1:6381", None),
        ("", None),
    ],
)
def test_redirections(reply: str, redirection: Redirection | None) -> None:
    """An error reply that isn't one, or can't be read, sends nobody anywhere."""
    assert read_redirection(reply, ASKED) == redirection


@pytest.mark.parametrize("key", ["{ci:0}", "{ci:0}:job:j", "{ci:0}:job:{x}", "{ci:0}:job:\udcff"])
def test_all_keys_of_a_tag_have_its_slot(key: str) -> None:
    """The slot is that of the text between the first braces."""
    assert slot_of(key) == 7161
