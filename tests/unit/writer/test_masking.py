"""No secret leaves the masker, however it was split; everything else does, unchanged."""

import random
import string
import threading

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ci_eventstore.writer import known_words, masking
from ci_eventstore.writer.masking import MASK, Masker, PreparedSecrets

letters = st.text("ab\n", max_size=30)
secrets = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=3)


def written(masker: Masker, pieces: list[str]) -> str:
    return "".join(masker.mask(piece) for piece in pieces) + masker.finish()


@given(pieces=st.lists(letters, max_size=8), secrets=secrets)
@example(pieces=["a", "ba", "b"], secrets=["aba"])
@example(pieces=["abc", "x"], secrets=["abc", "abcd"])
def test_any_split_gives_the_same_text(pieces: list[str], secrets: list[str]) -> None:
    """Where the text was cut makes no difference."""
    assert written(Masker(secrets), pieces) == Masker(secrets).mask_all("".join(pieces))


@given(pieces=st.lists(letters, max_size=8), secrets=secrets)
def test_every_character_of_a_secret_is_masked(pieces: list[str], secrets: list[str]) -> None:
    """What is left are the characters that belong to no occurrence of any secret, in their order."""
    text = "".join(pieces)
    covered = [False] * len(text)
    for secret in secrets:
        for start in range(len(text)):
            if text.startswith(secret, start):
                covered[start : start + len(secret)] = [True] * len(secret)
    left = "".join(character for character, is_covered in zip(text, covered, strict=True) if not is_covered)
    assert written(Masker(secrets), pieces).replace(MASK, "") == left


@given(pieces=st.lists(letters, max_size=8), secrets=secrets)
def test_nothing_is_released_that_may_begin_a_secret(pieces: list[str], secrets: list[str]) -> None:
    """At every moment, what was released would have been the same with any text behind it."""
    masker, released, text = Masker(secrets), "", ""
    for piece in pieces:
        released += masker.mask(piece)
        text += piece
        for secret in secrets:
            for length in range(1, len(secret)):
                if text.endswith(secret[:length]):
                    assert Masker(secrets).mask_all(text + secret[length:]).startswith(released)


def test_a_secret_of_several_lines_is_masked_line_by_line() -> None:
    """A key that is printed with other text between its lines stays secret; blank and short lines mask nothing."""
    key = "first line\n\n  second line\n{\n---------\n}\n"
    assert Masker([key, ""]).mask_all("> first line\n> second line\n\n{\n---------\n}\n") == (
        f"> {MASK}\n> {MASK}\n\n{{\n---------\n}}\n"
    )
    for ends in ("\n", "\r\n"):
        assert Masker([key]).mask_all(f"<{key}>".replace("\n", ends)) == f"<{MASK}>"


def test_a_secret_that_is_added_is_masked_from_then_on() -> None:
    """Also in what is held; secrets that are prepared for many texts aren't changed by it."""
    prepared = PreparedSecrets(["hunter2-first"])
    masker, other = Masker(prepared), Masker(prepared)
    assert masker.mask("second hunter2-") == "second "
    masker.add("second hunter3")
    assert masker.mask("first hunter2-2 second hunter") == f"{MASK} hunter2-2 "
    assert masker.mask("3.") == f"{MASK}."
    assert other.mask_all("hunter2-first second hunter3") == f"{MASK} second hunter3"


def test_numpy_is_loaded_for_secrets_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """To load it takes longer than most of what begins without any."""
    loaded: list[str] = []
    monkeypatch.setattr(masking, "load_numpy", lambda: loaded.append("numpy"))
    assert Masker(PreparedSecrets([])).mask_all("text") == "text"
    assert loaded == []
    PreparedSecrets(["hunter2-first"])
    assert loaded == ["numpy"]


def test_a_text_does_not_wait_for_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that comes later begins to load it elsewhere; texts are searched without until it is there."""
    begun: list[str] = []
    monkeypatch.setattr(masking, "begin_to_load_numpy", lambda: begun.append("numpy"))
    known_words.load_numpy.cache_clear()
    masker = Masker()
    masker.add("hunter2-first")
    assert masker.mask_all("hunter2-first" * 1000) == MASK * 1000
    assert known_words.loaded_numpy() is None
    assert begun == ["numpy"]
    known_words.begin_to_load_numpy.cache_clear()
    known_words.begin_to_load_numpy()
    thread = next((one for one in threading.enumerate() if one.name == "numpy"), None)
    if thread is not None:
        thread.join()
    assert known_words.loaded_numpy() is not None


def test_a_large_secret_is_prepared_in_steps() -> None:
    """None of them takes long, so that others can go on between them; what is left is done when text comes."""
    masker = Masker(["".join(random.Random(1).choices(string.printable, k=100_000)), "hunter2"])
    assert sum(1 for _ in zip(masker.prepare(), range(10), strict=False)) == 10
    assert masker.mask_all("<hunter2>") == f"<{MASK}>"
    assert list(masker.prepare()) == []


def test_a_short_secret_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """It is masked, and so is what happens to be the same; the warning doesn't say it."""
    assert Masker(["abc"]).mask_all("x abcd") == f"x {MASK}d"
    assert "3 characters only" in caplog.text
    assert "abc" not in caplog.text


@pytest.mark.parametrize("secret", ["====", "0000", "ab" * 50, "=" * 5000, "0" * 3000 + "1", "abc" * 2000])
def test_what_overlaps_itself_is_masked_once(secret: str) -> None:
    """However long the run is, it is one mask; no text is held for longer than it may be the beginning."""
    masker = Masker([secret])
    run = secret[:3000] * 40 if secret[-1] != "1" else secret
    text = f"<{run}{secret}> "
    written = "".join(masker.mask(text[start : start + 1000]) for start in range(0, len(text), 1000))
    assert written == Masker([secret]).mask_all(text)
    assert written.replace(MASK, "") in ("<> ", f"<{run}> ")
    assert not masker.is_holding


def test_without_secrets_nothing_is_held() -> None:
    """Text goes straight through."""
    assert Masker([]).mask("abc") == "abc"
    assert Masker(["", "  "]).mask("abc") == "abc"
