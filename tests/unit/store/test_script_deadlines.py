"""Deadlines in the server's time, whatever its clock says."""

from hypothesis import given
from hypothesis import strategies as st

from ci_eventstore.connection.scripts import DRIFT, ClockReading

seconds = st.floats(0, 300)


@given(
    offset=st.integers(-(10**12), 10**12),
    to_server=seconds,
    back=seconds,
    later=seconds,
    patience=st.floats(0, 60),
    drift=st.floats(-DRIFT, DRIFT),
)
def test_a_deadline_gives_the_time_asked_for_and_is_past_when_it_says_so(
    offset: int, to_server: float, back: float, later: float, patience: float, drift: float
) -> None:
    """Whenever the server read its clock on the way, and however that clock drifts, both bounds hold."""

    def server_ms(local: float) -> int:
        return offset + int((local - to_server) * (1 + drift) * 1000)

    reading = ClockReading(offset, 0.0, to_server + back)
    now = to_server + back + later
    deadline = reading.deadline_ms(now, patience)
    assert server_ms(now + patience) <= deadline + 1
    waited = now + reading.seconds_until_past(deadline, now)
    assert server_ms(waited) >= deadline
