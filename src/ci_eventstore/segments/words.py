"""What small segments have in common: examples of blocks, as a dictionary for Zstandard.

Segments that were packed with it are read with it, for as long as there are any: it never changes, and a better one
would be another codec. A test holds its digest.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack

_TOKEN = "3f9c0a1b2d4e5f67"
_TICKET = b"1795664351485-0"
_LOG = """\
+ make test
python -m pytest -q
Running tests...
INFO  step 1: installing dependencies
Downloading package-1.2.3.tar.gz (24 kB)
Successfully installed
warning: unused variable
error: \n\
[ 50%] Building src/main.c
[100%] Built target
12 passed in 0.34s
FAILED tests/test_unit.py::test_one
test_one (tests.test_unit.TestCase.test_one) ... ok
OK
npm run build
go test ./...
cargo build --release
   Compiling \n\
done
"""


def _at(seconds: int) -> datetime:
    return datetime(2026, 11, 26, 3, 40, 0, 123457, UTC) + timedelta(seconds=seconds, microseconds=7919 * seconds)


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, datetime=True)
    return packed


def _fact(kind: str, seconds: int, **fields: Any) -> bytes:
    return _pack((1, kind, _at(seconds), fields))


def _created(status: str = "queued", **fields: Any) -> bytes:
    known = {"user_id": "user-1", "created_at": {"time": _at(0)}, "name": "build", "queue": "default"}
    return _pack(
        (1, "created", _at(0), {**known, "command": ["sh", "-c", "make test"], **fields, "status": status}, _TOKEN)
    )


def _claimed(controller: bytes) -> bytes:
    """Return a claim as scripts write it, which have one form for texts and one for numbers."""
    one = b"\xce" + (1).to_bytes(4, "big")
    fields = {b"controller": controller, b"claim": b"1 " + _TOKEN.encode() + _TICKET, b"ticket": _TICKET}
    packed = [_text(b"epoch"), one, _text(b"attempts"), one, *(_text(text) for pair in fields.items() for text in pair)]
    return b"\x94\x01\xa7claimed" + _pack(_at(1)) + b"\x85" + b"".join(packed)


def _text(text: bytes) -> bytes:
    return b"\xda" + len(text).to_bytes(2, "big") + text


def _log(text: str) -> bytes:
    return _pack((1, "log", _at(2), text))


def _complete(*result: bool | int | str | None) -> bytes:
    return _pack((1, "complete", _at(3), None, *result))


def _block(payloads: Sequence[bytes], fact: int, **changes: Any) -> bytes:
    state = {
        "user_id": "user-1",
        "success": True,
        "exit_code": 0,
        "start_time": {"time": _at(1)},
        "end_time": {"time": _at(3)},
        "created_at": {"time": _at(0)},
        "name": "build",
        "queue": "default",
        "command": ["make", "test"],
        "incarnation": _TOKEN,
        "status": "completed",
        "end_time_from_event": True,
        "epoch": 1,
        "attempts": 1,
        "end_position": 4,
        "has_complete": True,
        "version": 3,
        "position": 4,
        "bytes": 1200,
        "lines": 30,
        "end_bytes": 1200,
        "mark": "681d7718",
        **changes,
    }
    return _pack(
        ([], [fact], list(payloads), _pack({name: value for name, value in state.items() if value is not None}))
    )


WORDS = b"".join(
    (
        # Those that most jobs are like come last: what is near is found in fewer bits.
        _block(
            [
                _created("running", zip_file_path="/srv/ci/files/"),
                _fact("started", 1, start_time={"time": _at(1)}, container_id="c"),
                _fact("requeued", 1, attempts=0, hand_backs=1, handed_back_by="runner-1"),
                _log("[cancelled: ]\n"),
                _fact("cancelled", 3),
                _fact("cancel_requested", 2, cancel_line="[cancelled]\n"),
                _complete(False, None, "SIGTERM"),
            ],
            1,
            status="cancelled",
            success=False,
            signal="SIGKILL",
            zip_file_path="/srv",
            container_id="",
            truncated_at=1,
        ),
        _block(
            [
                _created("running", ends_if_lost=True, command=["python", "-m", "pytest"]),
                _claimed(b"host.example:1234"),
                _log(_LOG[:200]),
                _fact("failed", 3),
                _complete(False, 1, None),
            ],
            1,
            status="failed",
            success=False,
            exit_code=1,
            ends_if_lost=True,
        ),
        _block(
            [_created("running"), _log(_LOG), _fact("end_time_set", 3, end_time={"time": _at(3)}), _complete(True)],
            2,
            **dict.fromkeys(("end_time_from_event", "epoch", "attempts", "exit_code")),
        ),
        _block(
            [
                _created(command=["make", "test"]),
                _claimed(b"runner-1"),
                _log(_LOG),
                _log("ok\n"),
                _complete(True, 0, None),
                _complete(True),
            ],
            1,
        ),
    )
)
