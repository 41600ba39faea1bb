"""The table of known words forgets none, however many of them share a place in it, and costs no collections."""

import gc
import random
from itertools import product

import pytest

from ci_eventstore.writer import known_words
from ci_eventstore.writer.known_words import KnownWords, load_numpy
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


@pytest.mark.parametrize(("width", "have_capitals"), [(4, False), (8, False), (8, True)])
def test_both_alphabets_of_base64_are_one(width: int, have_capitals: bool) -> None:
    """A word is found with each `+` and `/` as it is or as in URLs, one by one, in a long text and in a short one."""
    word = b"A+/+/bc/"[:width]
    variants = list(map(bytes, product(*({43: b"+-", 47: b"/_"}.get(byte, (byte,)) for byte in word))))
    for spelled in (variants[0], variants[-1]):
        known = KnownWords(width, have_capitals=have_capitals)
        known.add(spelled)
        for count in (1, 300):
            text = b"".join(b"." * width * count + variant for variant in variants)
            step = (count + 1) * width
            assert known.places_in(text) == [number * step - width for number in range(1, len(variants) + 1)]


def test_words_without_a_capital_letter_are_not_looked_at() -> None:
    """Where all known words have one, however many words a text has."""
    known = KnownWords(8, have_capitals=True)
    capitals = [b"@[`{\x80~ " + bytes([byte]) for byte in b"AZ"]
    known.add(b"".join(capitals))
    text = [b"abcdefgh", capitals[0], b"@[`{\x80~ A", b"@[`{\x80~ [", capitals[1], b"12345678"] * 300
    places = [number * 8 for number, word in enumerate(text) if word in capitals]
    assert known.places_in(b"".join(text)) == places


@pytest.mark.slow  # It takes over a second of a CPU.
def test_many_secrets_are_nothing_for_the_garbage_collector() -> None:
    """Once it has looked at them: a process with thousands would stop for tens of milliseconds otherwise."""
    load_numpy()
    gc.collect()
    before = len(gc.get_objects())
    prepared = PreparedSecrets([f"secret-{number:08x}-{number**3}" for number in range(200)])
    gc.collect()
    assert len(gc.get_objects()) - before < 100
    assert not prepared.index.is_empty
