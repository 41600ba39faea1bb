"""Cut a text that comes in pieces into chunks: at line ends where there are any, and where time has passed. Pure."""

import math
from bisect import bisect_right
from collections import deque
from itertools import pairwise
from typing import NamedTuple

#: A chunk has at most this many characters.
CHUNK_CHARACTERS = 64 * 1024
#: A line that comes later than this after a chunk's first text begins another chunk, however long that one waits.
CHUNK_SECONDS = 0.25
#: What comes so soon after other text counts as having come with it.
SAME_SECONDS = 0.001


class Chunk(NamedTuple):
    """Text that goes into one event."""

    text: str
    #: When the first of it came, in seconds since 1970.
    came_at: float


class Chunker:
    """Holds text until it is taken, in order, and remembers when it came, to the millisecond.

    Adding a piece is cheap, since output may come in very small ones.
    """

    def __init__(self, chunk_seconds: float = CHUNK_SECONDS) -> None:
        """Let lines share a chunk that come within `chunk_seconds`."""
        self._chunk_seconds = chunk_seconds
        #: Chunks that take no more text.
        self.full: deque[Chunk] = deque()
        #: What is open: its pieces, their size, and where in it text begins that came at another time.
        self._pieces: list[str] = []
        self._open_characters = 0
        self._starts: list[int] = []
        self._times: list[float] = []
        #: Text that comes later than this has a time of its own.
        self._next_time = -math.inf
        #: Of all that is held.
        self.characters = 0

    def add(self, text: str, came_at: float) -> None:
        """Put text that came at a time after what is held."""
        if not text:
            return
        if came_at > self._next_time:
            text = self._note_time(text, came_at)
        self._pieces.append(text)
        size = len(text)
        self.characters += size
        self._open_characters += size
        if self._open_characters > CHUNK_CHARACTERS:
            self._cut()

    def take(self) -> Chunk:
        """Return the next chunk; without a full one, all that is held."""
        chunk = self.full.popleft() if self.full else Chunk("".join(self._pieces), self._times[0] if self._times else 0)
        self.characters -= len(chunk.text)
        if not self.full and not self.characters:
            self._hold("", [], [])
        return chunk

    def _note_time(self, text: str, came_at: float) -> str:
        """Note that text came at another time than what is open; return what of it isn't the end of an older line."""
        if self._is_late(came_at):
            self._close_lines()
        if self._is_late(came_at) and (end := text.find("\n") + 1):
            # The line that is open ends with its own time.
            self._pieces.append(text[:end])
            self.characters += end
            self._open_characters += end
            self._close_lines()
            text = text[end:]
        if text:
            self._starts.append(self._open_characters)
            self._times.append(came_at)
            # An old line that is still open is to end with its own end.
            self._next_time = -math.inf if self._is_late(came_at) else came_at + SAME_SECONDS
        return text

    def _is_late(self, came_at: float) -> bool:
        return bool(self._times) and came_at - self._times[0] > self._chunk_seconds

    def _close_lines(self) -> None:
        """Make a chunk of the whole lines that are open."""
        text = "".join(self._pieces)
        end = text.rfind("\n") + 1
        self._split(text, [0, end] if end else [0])

    def _cut(self) -> None:
        """Make chunks of all but the last piece that fits: each up to its last line end, or up to the limit."""
        text, starts = "".join(self._pieces), [0]
        while len(text) - starts[-1] > CHUNK_CHARACTERS:
            limit = starts[-1] + CHUNK_CHARACTERS
            starts.append(text.rfind("\n", starts[-1], limit) + 1 or limit)
        self._split(text, starts)

    def _split(self, text: str, starts: list[int]) -> None:
        """Make chunks of the open text, from each start to the next; what begins at the last one stays open."""
        for start, end in pairwise(starts):
            self.full.append(Chunk(text[start:end], self._times[bisect_right(self._starts, start) - 1]))
        last = starts[-1]
        place = bisect_right(self._starts, last) - 1
        later = [start - last for start in self._starts[place + 1 :]]
        self._hold(text[last:], [0, *later], self._times[place:])

    def _hold(self, text: str, starts: list[int], times: list[float]) -> None:
        """Let this be what is open."""
        self._pieces, self._open_characters = ([text], len(text)) if text else ([], 0)
        self._starts, self._times = (starts, times) if text else ([], [])
        if not text:
            self._next_time = -math.inf
