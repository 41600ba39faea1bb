"""Cut a text that comes in pieces into chunks: at line ends where there are any. Pure."""

from collections import deque

#: A chunk has at most so many characters.
CHUNK_CHARACTERS = 64 * 1024


class Chunker:
    """Holds text until it is taken, in order."""

    def __init__(self) -> None:
        self._full: deque[str] = deque()
        self._pieces: list[str] = []
        self._open_characters = 0
        #: Of all that is held.
        self.characters = 0

    @property
    def has_full_chunk(self) -> bool:
        """Whether a chunk is held that takes no more text."""
        return bool(self._full)

    def add(self, text: str) -> None:
        """Put text behind what is held."""
        if not text:
            return
        self._pieces.append(text)
        self.characters += len(text)
        self._open_characters += len(text)
        if self._open_characters > CHUNK_CHARACTERS:
            self._cut()

    def take(self) -> str:
        """Return the next chunk; without a full one, all that is held."""
        chunk = self._full.popleft() if self._full else "".join(self._pieces)
        self.characters -= len(chunk)
        if not self._full and self.characters == 0:
            self._pieces, self._open_characters = [], 0
        return chunk

    def _cut(self) -> None:
        """Make chunks of all but the last piece that fits: each up to its last line end, or up to the limit."""
        text, start = "".join(self._pieces), 0
        while len(text) - start > CHUNK_CHARACTERS:
            end = text.rfind("\n", start, start + CHUNK_CHARACTERS) + 1 or start + CHUNK_CHARACTERS
            self._full.append(text[start:end])
            start = end
        self._pieces, self._open_characters = [text[start:]], len(text) - start
