"""Chunks end with lines where they can, lose nothing, and know when their text came."""

from hypothesis import given
from hypothesis import strategies as st

from ci_eventstore.writer.chunks import CHUNK_CHARACTERS, CHUNK_SECONDS, Chunk, Chunker

pieces = st.lists(st.text("a\n", max_size=20) | st.integers(1, 150_000).map(lambda n: "x" * n + "\n"), max_size=8)
pauses = st.sampled_from([0.0, 0.1, 0.2, 1.0])


def take_all(chunker: Chunker) -> list[Chunk]:
    """Take chunks until nothing is held."""
    chunks = []
    while chunker.characters:
        chunks.append(chunker.take())
    return chunks


@given(pieces=pieces)
def test_chunks_are_the_text(pieces: list[str]) -> None:
    """Together they are what was added; each fits; one that is cut off early ends with its line."""
    chunker = Chunker()
    for piece in pieces:
        chunker.add(piece, 0.0)
    chunks = [chunk.text for chunk in take_all(chunker)]
    assert "".join(chunks) == "".join(pieces)
    assert all(0 < len(chunk) <= CHUNK_CHARACTERS for chunk in chunks)
    assert all(len(chunk) == CHUNK_CHARACTERS or chunk.endswith("\n") for chunk in chunks[:-1])


@given(pieces=st.lists(st.tuples(st.text("ab\n", max_size=6), pauses, st.booleans()), max_size=30))
def test_lines_keep_their_times(pieces: list[tuple[str, float, bool]]) -> None:
    """However late a chunk is taken, each of its lines came when its first text did, or at most a moment after it.

    A chunk begins when its first text came, and later chunks not earlier.
    """
    chunker, chunks, now, came = Chunker(), list[Chunk](), 0.0, list[float]()
    for text, pause, is_taken in pieces:
        now += pause
        chunker.add(text, now)
        came += [now] * len(text)
        if is_taken and chunker.characters:
            chunks.append(chunker.take())
    chunks += take_all(chunker)
    whole = "".join(chunk.text for chunk in chunks)
    assert whole == "".join(text for text, _, _ in pieces)
    place = 0
    for chunk in chunks:
        assert chunk.came_at == came[place]
        for offset in range(len(chunk.text)):
            if offset and whole[place + offset - 1] == "\n":
                assert came[place + offset] - chunk.came_at <= CHUNK_SECONDS
        place += len(chunk.text)
    assert [chunk.came_at for chunk in chunks] == sorted(chunk.came_at for chunk in chunks)


def test_a_line_that_grows_for_long_stays_one_chunk() -> None:
    """It is cut neither for its age nor for the text that comes after it."""
    chunker = Chunker()
    for second in range(100):
        chunker.add(f"\r{second}%", second)
    chunker.add("\n", 100.0)
    chunker.add("next\n", 101.0)
    first, second_chunk = take_all(chunker)
    assert (first.came_at, first.text[-5:]) == (0, "\r99%\n")
    assert second_chunk == Chunk("next\n", 101.0)
