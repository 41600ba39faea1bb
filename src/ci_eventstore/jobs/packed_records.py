"""Packed records: hashes of small sealed jobs, without what their segments say. Pure.

What scripts and followers need is there, unless it follows from something else that is. Once the segment is in the
archive, the rest of the state is in pieces.
"""

from collections.abc import Mapping

from ci_eventstore.connection.replies import WRONG_TYPE, Reply, as_bytes, as_text
from ci_eventstore.errors import StoreFormatError
from ci_eventstore.events.codec import pack_values, unpack_values
from ci_eventstore.events.sealed_log import end_in

#: The fields that a packed record keeps: those that scripts and followers read.
KEPT_FIELDS = (
    *("version", "position", "part", "bytes", "lines", "end_position", "end_bytes", "truncated_at", "mark"),
    *("incarnation", "user_id", "log", "deleted_to"),
)
#: What it leaves out of these if it equals another one: the log ends with the job.
ENDS = {"end_position": "position", "end_bytes": "bytes"}
#: What it keeps whatever else it has.
SURELY_KEPT = frozenset(KEPT_FIELDS) - {*ENDS, "position", "part"}
#: Once its segment is in the archive, the hash has the rest of the state as well: the values of these in that order,
#: to which others may be added in the end. A server spreads a hash that has a longer value than a piece.
PIECES = ("r0", "r1", "r2", "r3")
PIECE_BYTES = 64
REST_FIELDS = (
    *("status", "created_at", "end_time", "success", "start_time", "name", "queue", "command", "exit_code", "epoch"),
    *("attempts", "end_time_from_event", "has_complete", "signal", "container_id", "zip_file_path", "is_kept"),
    *("hand_backs", "handed_back_by", "controller", "claim", "ticket", "ends_if_lost", "cancel_line"),
)


def shortened(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of a packed record without those that follow from others, where log and segments end."""
    kept = {name: value for name, value in fields.items() if name not in ENDS or value != fields.get(ENDS[name])}
    end = end_in(fields.get("log", ""))
    if end is not None and (fields.get("position"), fields.get("part")) == (str(end.position), str(end.part)):
        del kept["position"], kept["part"]
    return kept


def completed(fields: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the fields of a packed record with those that follow from others; no position if `log` is damaged."""
    known = dict(fields)
    if b"position" not in known and (end := end_in(as_text(known.get(b"log", b"")))) is not None:
        known |= {b"position": b"%d" % end.position, b"part": b"%d" % end.part}
    follows = {end.encode(): known[last.encode()] for end, last in ENDS.items() if last.encode() in known}
    return follows | known


def packed_log(reply: Reply) -> str | None:
    """Return the field `log` of a packed hash, which has only `KEPT_FIELDS`; its other fields are in the last segment.

    None if the hash has all fields, or there is no hash.
    """
    if reply is WRONG_TYPE or b"log" not in reply:
        # Almost every job.
        return None
    names = reply[::2]
    if b"log" not in names or b"has_complete" in names or b"r0" in names:
        return None
    return as_text(reply[2 * names.index(b"log") + 1])


def pieces_of(rest: bytes) -> dict[str, bytes]:
    """Return the fields that have the rest of a state; none if it is too long for them."""
    pieces = [rest[start : start + PIECE_BYTES] for start in range(0, len(rest), PIECE_BYTES)]
    return dict(zip(PIECES, pieces, strict=False)) if len(pieces) <= len(PIECES) else {}


def repacked(fields: Mapping[str, str]) -> dict[str, str]:
    """Return a record's fields with its pieces as this version makes them; as they are if they can't be read."""
    found = {name: as_bytes(value) for name, value in fields.items() if name in PIECES}
    packed = b"".join(found[piece] for piece in PIECES if piece in found)
    if not found or found != pieces_of(packed):
        return dict(fields)
    try:
        pieces = pieces_of(pack_values(unpack_values(packed, REST_FIELDS), REST_FIELDS))
    except StoreFormatError:
        return dict(fields)
    others = {name: value for name, value in fields.items() if name not in PIECES}
    return others | {name: as_text(piece) for name, piece in pieces.items()}
