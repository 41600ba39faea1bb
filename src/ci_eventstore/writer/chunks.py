"""Cut a text that comes in pieces into chunks: at line ends where there are any, and where time has passed. Pure."""

from bisect import bisect_right
from collections import deque
from itertools import accumulate, pairwise
from typing import NamedTuple

#: A chunk has at most so many characters.
CHUNK_CHARACTERS = 64 * 1024
#: A line that comes later than this after a chunk's first text begins another chunk, however long that one waits.
CHUNK_SECONDS = 0.25


class Chunk(NamedTuple):
    """Text that goes into one event."""

    text: str
    #: When the first of it came, in seconds since 1970.
    came_at: float


class Chunker:
    """Holds text until it is taken, in order, and remembers when it came."""

    def __init__(self, chunk_seconds: float = CHUNK_SECONDS) -> None:
        """Let lines share a chunk that come within so many seconds."""
        self._chunk_seconds = chunk_seconds
        self._full: deque[Chunk] = deque()
        self._pieces: list[Chunk] = []
        self._open_characters = 0
        #: Of all that is held.
        self.characters = 0

    @property
    def has_full_chunk(self) -> bool:
        """Whether a chunk is held that takes no more text."""
        return bool(self._full)

    def add(self, text: str, came_at: float) -> None:
        """Put text that came at a time after what is held."""
        if self._is_late(came_at):
            self._close_lines()
            if self._is_late(came_at):
                # The line that is open ends with its own time.
                end = text.find("\n") + 1
                self._hold(text[:end], came_at)
                self._close_lines()
                text = text[end:]
        self._hold(text, came_at)

    def _is_late(self, came_at: float) -> bool:
        return bool(self._pieces) and came_at - self._pieces[0].came_at > self._chunk_seconds

    def _hold(self, text: str, came_at: float) -> None:
        if not text:
            return
        self._pieces.append(Chunk(text, came_at))
        self.characters += len(text)
        self._open_characters += len(text)
        if self._open_characters > CHUNK_CHARACTERS:
            self._cut()

    def take(self) -> Chunk:
        """Return the next chunk; without a full one, all that is held."""
        if self._full:
            chunk = self._full.popleft()
        else:
            chunk = _joined(self._pieces)
            self._pieces, self._open_characters = [], 0
        self.characters -= len(chunk.text)
        return chunk

    def _close_lines(self) -> None:
        """Make a chunk of the whole lines that are open."""
        text = "".join([piece.text for piece in self._pieces])
        end = text.rfind("\n") + 1
        self._split(text, [0, end] if end else [0])

    def _cut(self) -> None:
        """Make chunks of all but the last piece that fits: each up to its last line end, or up to the limit."""
        text, starts = "".join([piece.text for piece in self._pieces]), [0]
        while len(text) - starts[-1] > CHUNK_CHARACTERS:
            limit = starts[-1] + CHUNK_CHARACTERS
            starts.append(text.rfind("\n", starts[-1], limit) + 1 or limit)
        self._split(text, starts)

    def _split(self, text: str, starts: list[int]) -> None:
        """Make chunks of the open text, from each start to the next; what begins at the last one stays open."""
        ends = list(accumulate(len(piece.text) for piece in self._pieces))
        chunks = [
            Chunk(text[start:end], self._pieces[min(bisect_right(ends, start), len(ends) - 1)].came_at)
            for start, end in pairwise([*starts, len(text)])
        ]
        self._full += chunks[:-1]
        self._pieces = [chunks[-1]] if chunks[-1].text else []
        self._open_characters = len(chunks[-1].text)


def _joined(pieces: list[Chunk]) -> Chunk:
    return Chunk("".join([piece.text for piece in pieces]), pieces[0].came_at) if pieces else Chunk("", 0.0)
