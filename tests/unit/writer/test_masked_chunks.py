"""Chunks that are masked ahead are what they would have been, whatever comes before they are taken."""

import random

from ci_eventstore.writer.masked_chunks import MaskedChunks
from ci_eventstore.writer.masking import PreparedSecrets

SECRETS = ("hunter2-hunter2-hunter2", "s3cret", "abab" * 40)


def taken_from(case: int, *, is_ahead: bool) -> tuple[str, int]:
    """Return all text that a random course of calls gives, and how much of it is counted as done."""
    random_, text, done = random.Random(case), "", 0
    chunks = MaskedChunks(PreparedSecrets(["first-secret"]), chunk_seconds=1)

    def take() -> None:
        nonlocal text, done
        chunk, count = chunks.take_masked()
        text, done = text + chunk.text, done + count

    for _ in range(40):
        match random_.randrange(5):
            case 0 | 1:
                word = random_.choice([*SECRETS, "first-secret", "line\n", "x"])
                chunks.add(word * random_.choice([1, 3, 5000]), 0)
            case 2:
                if random_.random() < 0.5:
                    take()
            case 3:
                if is_ahead:
                    chunks.mask_ahead()
            case _:
                if random_.random() < 0.3:
                    chunks.add_secret(random_.choice(SECRETS))
    chunks.end()
    while chunks.has_more:
        if is_ahead:
            chunks.mask_ahead()
        take()
    return text, done


def test_masking_ahead_changes_nothing() -> None:
    """What is taken is the same, and all of it is counted."""
    assert "first-secret" not in taken_from(0, is_ahead=True)[0]
    for case in range(12):
        assert taken_from(case, is_ahead=True) == taken_from(case, is_ahead=False), case


def test_a_secret_is_masked_in_what_was_masked_ahead() -> None:
    """It was added before that was taken; so is one that began in the chunk before."""
    chunks = MaskedChunks(PreparedSecrets(["other-secret"]), chunk_seconds=1)
    chunks.add(("one hunter2-hunter2 line\n" * 6000)[: 2 * 65_536], 0)
    chunks.mask_ahead()
    chunks.add_secret("hunter2-hunter2")
    assert chunks.take_masked()[0].text.startswith("one *** line\none *** line\n")


def test_what_is_masked_ahead_is_dropped() -> None:
    """A writer that can't mask what waits drops this as well, and counts it."""
    chunks = MaskedChunks(PreparedSecrets(["other-secret"]), chunk_seconds=1)
    chunks.add("a line\n" * 20_000, 0)
    chunks.mask_ahead()
    assert chunks.drop() == 140_000
    assert not chunks.has_more
