"""Spellings are found wherever they are, in runs of anything too, in a time that doesn't grow with their number."""

import os
import random
from collections.abc import Sequence

import pytest

from ci_eventstore.writer import known_words, secret_index
from ci_eventstore.writer.known_words import ordinary
from ci_eventstore.writer.secret_index import SecretIndex, Span

IS_SOAK = os.environ.get("CI_EVENTSTORE_SOAK") == "1"

#: Few letters make spellings overlap each other and themselves. Those with capitals are found by these, if there are
#: enough in the first bytes; both alphabets of base64 are the same.
ALPHABETS = (b"a", b"ab", b"=0", b"abc", b"abcdefghijkl", b"A", b"aB", b"abcdefgH", b"AB", b"aB+/-_", b"aaaaaaaaaaaaA")


def index_of(spellings: Sequence[bytes]) -> SecretIndex:
    """Return an index of some; of an even number, the later ones come after texts."""
    index = SecretIndex()
    for spelling in spellings:
        index.add(spelling)
        if len(spellings) % 2 == 0:
            index.find(b"." + spelling, goes_on=True)
    return index


def random_text(random_: random.Random, alphabet: bytes, longest: int) -> bytes:
    """Return letters, or repetitions of some of them with something else in between."""
    letters = bytes(random_.choices(alphabet, k=random_.randint(1, longest)))
    if random_.random() < 0.5:
        return letters
    unit = letters[: random_.choice([1, 2, 3, 5, 8, 9, 10, 30, 80])]
    other = bytes(random_.choices(alphabet, k=random_.randint(0, 3)))
    runs = [unit * (random_.randint(1, 2 * longest) // len(unit) + 1) for _ in range(random_.randint(1, 3))]
    return other.join(runs)[random_.randint(0, 3) :] or unit


def random_case(random_: random.Random) -> tuple[list[bytes], bytes]:
    alphabet = random_.choice(ALPHABETS)
    text = random_text(random_, alphabet, random_.choice([20, 100, 300]))
    spellings = [random_text(random_, alphabet, random_.choice([3, 8, 20, 100])) for _ in range(random_.randint(1, 4))]
    for _ in range(random_.randint(0, 3)):
        start = random_.randrange(len(text))
        spellings.append(text[start : start + random_.choice([1, 5, 10, 15, 40, 200])])
    if random_.random() < 0.3:
        text += random_.choice(spellings)[: random_.randint(1, 30)]
    return spellings, text


def covered_by(spans: Sequence[Span], size: int) -> list[bool]:
    covered = [False] * size
    for start, end in spans:
        covered[start:end] = [True] * (end - start)
    return covered


def check(spellings: Sequence[bytes], text: bytes) -> None:
    """Compare with what a look at each place finds."""
    original, spellings, text = text, [ordinary(spelling) for spelling in spellings], ordinary(text)
    spans = [
        (start, start + len(spelling))
        for spelling in spellings
        for start in range(len(text))
        if text.startswith(spelling, start)
    ]
    pending = [
        start
        for start in range(len(text))
        if any(len(spelling) > len(text) - start and spelling.startswith(text[start:]) for spelling in spellings)
    ]
    found, certain = index_of(spellings).find(original, goes_on=True)
    assert certain == min(pending, default=len(text)), (spellings, text)
    has_begun = covered_by([span for span in found if span[0] < certain], len(text))
    must, may = covered_by([span for span in spans if span[0] < certain], len(text)), covered_by(spans, len(text))
    assert all(low <= one <= high for low, one, high in zip(must, has_begun, may, strict=True)), (spellings, text)
    found, certain = index_of(spellings).find(original, goes_on=False)
    assert (covered_by(found, len(text)), certain) == (covered_by(spans, len(text)), len(text)), (spellings, text)


@pytest.fixture(params=["numpy", "without numpy"])
def few_words(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let numpy look through the shortest texts too, or through none."""
    monkeypatch.setattr(known_words, "_FEW_WORDS", 1)
    if request.param == "without numpy":
        monkeypatch.setattr(known_words, "loaded_numpy", lambda: None)
    else:
        known_words.load_numpy()


@pytest.fixture(params=["words of 8 bytes", "words of 4 bytes"], autouse=True)
def many_spellings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Find spellings of lower case as where there are many, and as where there are few."""
    if request.param == "words of 8 bytes":
        monkeypatch.setattr(secret_index, "_MOST_BY_SHORT_WORDS", 0)


@pytest.mark.usefixtures("few_words")
def test_what_is_found_is_what_is_there() -> None:
    """A look at each place of the text finds the same, whatever overlaps whatever, and however often."""
    random_ = random.Random(20)
    for _ in range(150):
        check(*random_case(random_))


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.usefixtures("few_words")
def test_what_is_found_is_what_is_there_in_many_cases() -> None:
    """So it does for many more; `make soak` tries 20,000."""
    random_ = random.Random(2026)
    for _ in range(20_000 if IS_SOAK else 2_000):
        check(*random_case(random_))


@pytest.mark.usefixtures("few_words")
def test_every_beginning_of_a_spelling_is_held() -> None:
    """A text that has no spelling may end with the beginning of one, which is known by its first bytes alone."""
    for spelling in (b"a" * 22 + b"Aab-cdefgh", b"abcdefghijklmnopqrstuvwxyz", b"abcdefgh+", b"a/b"):
        for length in range(1, len(spelling)):
            for before in range(32, 40):
                check([spelling], b"." * before + spelling[:length])


@pytest.mark.parametrize("width", [1, 60, 76, 79, 80, 500])
def test_a_long_spelling_of_lines_is_found_whole(width: int) -> None:
    """Its parts, which begin with lines, overlap each other and reach to its end; a chunk's end holds nothing."""
    letters = "".join(random.Random(width).choices("ABCDEFGHIJKLMNOP", k=30_000))
    spelling = "\n".join(letters[start : start + width] for start in range(0, len(letters), width)).encode()
    index = index_of([spelling])
    spans, certain = index.find(b"log\n" + spelling + b"log\n", goes_on=True)
    assert covered_by(spans, certain) == [False] * 4 + [True] * len(spelling) + [False] * 4
    assert index.find(b"one line\n" * 1000, goes_on=True) == ([], 9000)
