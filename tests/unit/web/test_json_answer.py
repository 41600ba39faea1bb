"""Long answers are packed."""

import gzip
import json

import pytest
from fastapi import Request

from ci_eventstore.web.json_answer import MOST_AT_ONCE, PACK_FROM_BYTES, json_answer


def asked(accepted: str | None) -> Request:
    headers = [] if accepted is None else [(b"accept-encoding", accepted.encode())]
    return Request({"type": "http", "headers": headers})


@pytest.mark.parametrize("size", [PACK_FROM_BYTES, MOST_AT_ONCE + 1])
async def test_long_answers_are_packed_for_clients_that_take_that(size: int) -> None:
    """They are the same, and caches are told; short ones, and those for other clients, come as they are."""
    content = {"text": "ä" * size, "none": None}
    packed = await json_answer(asked("br, gzip"), content)
    assert (packed.headers["content-encoding"], packed.headers["vary"]) == ("gzip", "Accept-Encoding")
    assert json.loads(gzip.decompress(packed.body)) == content
    assert int(packed.headers["content-length"]) == len(packed.body) < size // 10
    for accepted in ("gzip;q=0", None):
        plain = await json_answer(asked(accepted), content)
        assert "content-encoding" not in plain.headers
        assert plain.headers["vary"] == "Accept-Encoding"
        assert plain.body == f'{{"text":"{content["text"]}","none":null}}'.encode()
    assert "content-encoding" not in (await json_answer(asked("gzip"), {"text": "short"})).headers
