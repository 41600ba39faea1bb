"""Chunks end with lines where they can, and lose nothing."""

from hypothesis import given
from hypothesis import strategies as st

from ci_eventstore.writer.chunks import CHUNK_CHARACTERS, Chunker

pieces = st.lists(st.text("a\n", max_size=20) | st.integers(1, 150_000).map(lambda n: "x" * n + "\n"), max_size=8)


@given(pieces=pieces)
def test_chunks_are_the_text(pieces: list[str]) -> None:
    """Together they are what was added; each fits; one that is cut off early ends with its line."""
    chunker, chunks = Chunker(), []
    for piece in pieces:
        chunker.add(piece)
    while chunker.characters:
        chunks.append(chunker.take())
    assert "".join(chunks) == "".join(pieces)
    assert all(0 < len(chunk) <= CHUNK_CHARACTERS for chunk in chunks)
    assert all(len(chunk) == CHUNK_CHARACTERS or chunk.endswith("\n") for chunk in chunks[:-1])
