"""Hold output until it is taken in chunks, and mask its secrets then."""

import asyncio
import time

from ci_eventstore.writer.chunks import Chunk, Chunker
from ci_eventstore.writer.masking import Masker, SecretTexts

#: So many characters are masked at once; others may go on before more are, if that took so long.
STEP_CHARACTERS = 16 * 1024
STEP_SECONDS = 0.005


class MaskedChunks:
    """Output that waits, unmasked; what is taken is masked.

    Secrets are masked here, and not as text comes, since it may come in very small pieces.
    """

    def __init__(self, secrets: SecretTexts, chunk_seconds: float) -> None:
        """Let lines share a chunk that come within so many seconds."""
        self.masker = Masker(secrets)
        self._chunk_seconds = chunk_seconds
        self._chunker = Chunker(chunk_seconds)
        self._is_ended = False
        #: The chunk that is being masked: its text so far, the rest of it, and the size of it all before.
        self._masked, self._unmasked, self._taken = "", "", 0
        #: When the text that was taken last came, in seconds since 1970.
        self._came_at = 0.0

    @property
    def characters(self) -> int:
        """How many characters wait that aren't taken."""
        return self._chunker.characters

    @property
    def has_full_chunk(self) -> bool:
        """Whether a chunk waits that takes no more text."""
        return bool(self._chunker.full)

    @property
    def has_more(self) -> bool:
        """Whether there is text to be taken: at the end, what might have been the beginning of a secret as well."""
        return bool(self.characters or self._unmasked or self._masked or (self._is_ended and self.masker.is_holding))

    def add(self, text: str, came_at: float) -> None:
        """Put text that came at a time after what waits."""
        self._chunker.add(text, came_at)

    def end(self) -> None:
        """Note that no more text comes."""
        self._is_ended = True

    def take(self) -> tuple[Chunk, int]:
        """Return the next chunk, and how many characters of the output are done with it; it may be empty."""
        self._begin()
        masked = self._masked + self.masker.mask(self._unmasked)
        self._masked = self._unmasked = ""
        if self._is_ended and not self.characters:
            masked += self.masker.finish()
        taken, self._taken = self._taken, 0
        return Chunk(masked, self._came_at), taken

    async def take_in_steps(self) -> tuple[Chunk, int]:
        """Do as `take`, and let others go on where it takes long: with new secrets, and a text that is full of them.

        If this is cancelled, `take` returns the same chunk.
        """
        for _ in self.masker.prepare():
            await asyncio.sleep(0)
        self._begin()
        began = time.monotonic()
        while len(self._unmasked) > STEP_CHARACTERS:
            step, self._unmasked = self._unmasked[:STEP_CHARACTERS], self._unmasked[STEP_CHARACTERS:]
            self._masked += self.masker.mask(step)
            if time.monotonic() - began > STEP_SECONDS:
                await asyncio.sleep(0)
                began = time.monotonic()
        return self.take()

    def drop(self) -> int:
        """Forget what waits, which may have secrets in it; return how many characters that was."""
        lost = self._chunker.characters + len(self._masked) + len(self._unmasked)
        self._chunker, self._masked, self._unmasked, self._taken = Chunker(self._chunk_seconds), "", "", 0
        self.masker.drop()
        return lost

    def _begin(self) -> None:
        if not (self._masked or self._unmasked) and self.characters:
            self._unmasked, self._came_at = self._chunker.take()
            self._taken = len(self._unmasked)
