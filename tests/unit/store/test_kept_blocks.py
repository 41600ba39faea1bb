"""What is kept of segments that were read: as much as weighs no more than a limit, the last ones used."""

from hypothesis import given
from hypothesis import strategies as st

from ci_eventstore.events.sealed_log import _Kept

USES = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=30)


@given(USES, st.integers(1, 20))
def test_what_was_used_last_is_kept(uses: list[tuple[int, int]], limit: int) -> None:
    """Of each key the last value; the one that was kept last, however heavy, and of the others as many as fit."""
    kept, last, weights = _Kept[str](limit), list[int](), dict[int, int]()
    for key, weight in uses:
        assert kept.keep(key, f"{key} {weight}", weight) == f"{key} {weight}"
        last = [one for one in last if one != key] + [key]
        weights[key] = weight
        while len(last) > 1 and sum(weights[one] for one in last) > limit:
            del last[0]
        assert {one for one in range(6) if kept.find(one) is not None} == {*last}
        for one in last:
            assert kept.find(one) == f"{one} {weights[one]}"
    kept.clear()
    assert [kept.find(one) for one in range(6)] == [None] * 6
