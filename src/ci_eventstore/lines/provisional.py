"""The end so far of a running job's log that has outgrown its budget: searched, and looked through for marks.

Its lines have no numbers in the log before the job ends, and the first one may lack its beginning. Pure.
"""

from collections.abc import Sequence
from itertools import accumulate

from ci_eventstore.events.reader import Ring
from ci_eventstore.lines.marks import Remark, marked_lines
from ci_eventstore.lines.passages import Passage
from ci_eventstore.lines.search import Hit, Query, Surroundings

#: Of the marks in it, so many are told: the last ones.
MOST_REMARKS = 100


def passage_of(ring: Ring) -> Passage:
    """Return the text of a ring; its lines count from 1."""
    # The first event only says that all of this is provisional.
    _, *events = (event for page in ring.pages() for event in page)
    texts = [(event.data, event.timestamp) for event in events if event.data and event.timestamp]
    starts = list(accumulate((len(text) for text, _ in texts), initial=0))[:-1]
    return Passage(1, "".join(text for text, _ in texts), starts, [time for _, time in texts], 0)


def hits_in(ring: Ring, query: Query) -> list[Hit]:
    """Return what a search finds in a ring, as many lines as it may find elsewhere."""
    passage, surroundings, hits = passage_of(ring), Surroundings(query), list[Hit]()
    for part in query.parts(passage, passage.line_count):
        room = query.limit - sum(hit.places is not None for hit in hits)
        if not room:
            break
        hits += surroundings.hits(part, passage.line_count, room)
    return hits


def remarks_in(ring: Ring) -> Sequence[Remark]:
    """Return the last errors, warnings and notices in a ring."""
    marks = [mark for _, _, mark in marked_lines(passage_of(ring).text)]
    return [mark for mark in marks if isinstance(mark, Remark)][-MOST_REMARKS:]
