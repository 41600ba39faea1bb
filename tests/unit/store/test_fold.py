"""The fold of a stream's entries, page by page."""

import hashlib
from datetime import UTC, datetime

from ci_common.models import JobEvent
from ci_eventstore.events.codec import encode
from ci_eventstore.events.records import Fact, FactType, Place
from ci_eventstore.keys import Keys
from ci_eventstore.projection.fold import Fold

NOW = datetime(2026, 11, 25, tzinfo=UTC)
CREATED = Fact(FactType.CREATED, NOW, {"created_at": NOW, "status": "running", "queue": "default"})


def test_the_state_has_the_mark_of_the_last_entry() -> None:
    """The mark is the first eight hex digits of the last payload's SHA-1, an event's or a fact's."""
    payloads = [encode(record) for record in (CREATED, JobEvent("log", "x\n", timestamp=NOW))]
    fold = Fold(Keys("ci").job("a"))
    for place, payload in zip((Place(0, 1), Place(1)), payloads, strict=True):
        fold.take([(place, payload)])
        assert fold.state is not None
        assert fold.state.mark == hashlib.sha1(payload).hexdigest()[:8]
    together = Fold(Keys("ci").job("a"))
    together.take(list(zip((Place(0, 1), Place(1)), payloads, strict=True)))
    assert together.state == fold.state
