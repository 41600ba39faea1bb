"""Halves of surrogate pairs, which JSON can spell and no encoding takes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_eventstore.writer.surrogates import without_halves


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("plain", "plain"),
        ("größer 😀", "größer 😀"),
        (json.loads('"\\ud83d"'), "\ufffd"),
        ("a\ud83d\nb\udfffc", "a\ufffd\nb\ufffdc"),
        ("\ud83d\ude00!", "😀!"),
        ("\ud83d\ud83d\ude00", "\ufffd😀"),
        ("\udcff\udc80 bytes", "\udcff\udc80 bytes"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
    ],
)
def test_a_half_becomes_a_replacement_character(text: str, mended: str) -> None:
    """A pair is the character that it stands for; what stands for bytes stays."""
    assert without_halves(text) == mended


@given(st.text(st.characters(categories=None)))
def test_anything_can_be_encoded(text: str) -> None:
    """Whatever is written, what comes out of it can be stored, and stays as it is."""
    mended = without_halves(text)
    mended.encode("utf-8", "surrogateescape")
    assert without_halves(mended) == mended
