"""The table of known words forgets none, however many of them share a place in it, and costs no collections."""

import gc
import random

import pytest

from ci_eventstore.writer import known_words
from ci_eventstore.writer.known_words import KnownWords
from ci_eventstore.writer.masking import PreparedSecrets


@pytest.mark.parametrize("width", [4, 8])
def test_every_word_is_found_and_no_other(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words are added a few and many at a time, while the table grows and while it is full of them."""
    monkeypatch.setattr(known_words, "_LEAST_BITS", 4)
    monkeypatch.setattr(known_words, "_PLACES", 1)
    random_, words, known = random.Random(width), list[bytes](), KnownWords(width)
    others = [bytes(width), *(random_.randbytes(width) for _ in range(2000))]
    for count in (1, 7, 2000, 1, 500):
        fresh = [random_.randbytes(width) for _ in range(count)]
        known.add(b"".join(fresh))
        words += fresh
        there = set(words)
        text = random_.sample(words + others, len(words + others))
        expected = [place * width for place, word in enumerate(text) if word in there]
        assert known.places_in(b"".join(text)) == expected
        assert known.places_in(b"".join(others)) == []


def test_many_secrets_are_nothing_for_the_garbage_collector() -> None:
    """Once it has looked at them: a process with thousands would stop for tens of milliseconds otherwise."""
    gc.collect()
    before = len(gc.get_objects())
    prepared = PreparedSecrets([f"secret-{number:08x}-{number**3}" for number in range(200)])
    gc.collect()
    assert len(gc.get_objects()) - before < 100
    assert not prepared.index.is_empty
