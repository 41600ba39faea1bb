"""No secret leaves the masker, however it was split; everything else does, unchanged."""

from hypothesis import example, given
from hypothesis import strategies as st

from ci_eventstore.writer.masking import MASK, Masker

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
    """A key that is printed with other text between its lines stays secret; its blank lines mask nothing."""
    assert Masker(["one\n\ntwo\n", ""]).mask_all("> one\n> two\n\nx") == f"> {MASK}\n> {MASK}\n\nx"


def test_without_secrets_nothing_is_held() -> None:
    """Text goes straight through."""
    assert Masker([]).mask("abc") == "abc"
    assert Masker(["", "  "]).mask("abc") == "abc"
