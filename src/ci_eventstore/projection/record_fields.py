"""What the fields of a job's record say, beside what its log does. Pure."""

from collections.abc import Mapping

from ci_eventstore.connection.replies import as_text
from ci_eventstore.events.records import Place
from ci_eventstore.events.sealed_log import ARCHIVED, end_in
from ci_eventstore.jobs.packed_records import KEPT_FIELDS, repacked, shortened
from ci_eventstore.jobs.state import rest_of, to_hash
from ci_eventstore.projection.differences import Difference, compare
from ci_eventstore.projection.fold import Fold

#: Fields that the hashes of jobs lack that older programs wrote.
LATER_FIELDS = ("mark", "incarnation", "hand_backs")


def compare_fields(subject: str, fold: Fold, found: Mapping[str, str]) -> list[Difference]:
    """Return where a hash's fields differ from what a fold says, which doesn't know where the log lies."""
    fields, said = dict(found), to_hash(fold.state) if fold.state else {}
    log = fields.get("log")
    if log is not None and "has_complete" not in fields:
        # Earlier versions left less out, and had longer pieces.
        kept = {name: value for name, value in said.items() if name in KEPT_FIELDS}
        said, fields = shortened({**kept, "log": log}), repacked(shortened(fields))
        if fold.state and ("r0" in fields or log.endswith(ARCHIVED)):
            said |= {name: as_text(piece) for name, piece in rest_of(fold.state).items()}
    fields.pop("log", None)
    said.pop("log", None)
    for name in LATER_FIELDS:
        if not fields.get(name):
            # Older programs wrote none; on `fakeredis` the mark is empty.
            fields.pop(name, None)
            said.pop(name, None)
    return compare(subject, "field", said, fields)


def place_of(fields: Mapping[str, str]) -> Place | None:
    """Return where a record says that the log ends; None if that can't be read."""
    if "position" not in fields and "log" in fields:
        # A packed record leaves it out if its last segment ends there.
        return end_in(fields["log"])
    position, part = fields.get("position", ""), fields.get("part", "")
    is_place = position.isascii() and position.isdigit() and part.isascii() and part.isdigit()
    return Place(int(position[:20]), int(part[:20])) if is_place else None
