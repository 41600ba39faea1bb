"""Hold output until it is taken in chunks, and mask its secrets then."""

import asyncio
import time

from ci_eventstore.writer.chunks import Chunk, Chunker
from ci_eventstore.writer.masking import Held, Masker, SecretTexts

#: At most this many characters are masked at once, fewer where that takes long, as in a text that is full of secrets.
STEP_CHARACTERS = 64 * 1024
STEP_SECONDS = 0.005


class MaskedChunks(Chunker):
    """Output that waits, unmasked; what is taken is masked.

    Secrets are masked here, and not as text comes, since it may come in very small pieces.
    """

    def __init__(self, secrets: SecretTexts, chunk_seconds: float) -> None:
        """Let lines share a chunk that come within `chunk_seconds`."""
        super().__init__(chunk_seconds)
        self.masker = Masker(secrets)
        self._is_ended = False
        #: The chunk that is being masked: its text so far, the rest of it, and the size of it all before.
        self._masked, self._unmasked, self._taken = "", "", 0
        #: If it was masked ahead: its text, and what the masker held before.
        self._ahead: tuple[str, Held] | None = None
        self._step_characters = STEP_CHARACTERS
        #: When the text that was taken last came, in seconds since 1970.
        self._came_at = 0.0

    @property
    def has_more(self) -> bool:
        """Whether there is text to be taken: at the end, what might have been the beginning of a secret as well."""
        return bool(self.characters or self._taken or (self._is_ended and self.masker.is_holding))

    def end(self) -> None:
        """Note that no more text comes."""
        self._is_ended = True

    def add_secret(self, secret: str) -> None:
        """Mask a secret from now on, in all that wasn't taken."""
        if self._ahead is not None:
            (self._unmasked, self.masker.held), self._masked, self._ahead = self._ahead, "", None
        self.masker.add(secret)

    def mask_ahead(self) -> None:
        """Mask the next chunk, if it is full and quick to mask: there is time for that while another is on its way."""
        if self._taken or not self.full or len(self.full[0].text) > self._step_characters or self.masker.is_preparing:
            return
        self._begin()
        began, self._ahead = time.thread_time(), (self._unmasked, self.masker.held)
        self._masked, self._unmasked = self.masker.mask(self._unmasked), ""
        self._pace(time.thread_time() - began)

    def take_masked(self) -> tuple[Chunk, int]:
        """Return the next chunk, and how many characters of the output are done with it; it may be empty."""
        self._begin()
        masked = self._masked + self.masker.mask(self._unmasked) if self._unmasked else self._masked
        self._masked, self._unmasked, self._ahead = "", "", None
        if self._is_ended and not self.characters:
            masked += self.masker.finish()
        taken, self._taken = self._taken, 0
        return Chunk(masked, self._came_at), taken

    async def take_in_steps(self) -> tuple[Chunk, int]:
        """Do as `take_masked`, but let others go on where that takes long: with new secrets, or a text full of them.

        If this is cancelled, `take_masked` returns the same chunk.
        """
        for _ in self.masker.prepare():
            await asyncio.sleep(0)
        self._begin()
        while len(self._unmasked) > self._step_characters:
            began, size = time.thread_time(), self._step_characters
            step, self._unmasked = self._unmasked[:size], self._unmasked[size:]
            self._masked += self.masker.mask(step)
            self._pace(time.thread_time() - began)
            await asyncio.sleep(0)
        began = time.thread_time()
        result = self.take_masked()
        self._pace(time.thread_time() - began)
        return result

    def _pace(self, seconds: float) -> None:
        """Mask less at once if that took long, and more if it didn't."""
        if seconds > STEP_SECONDS:
            self._step_characters = max(STEP_CHARACTERS // 64, self._step_characters // 4)
        elif seconds < STEP_SECONDS / 4:
            self._step_characters = min(STEP_CHARACTERS, self._step_characters * 2)

    def drop(self) -> int:
        """Forget what waits, which may have secrets in it; return how many characters that was."""
        lost = len(self._masked) + len(self._unmasked)
        while self.characters:
            lost += len(self.take().text)
        self._masked, self._unmasked, self._taken, self._ahead = "", "", 0, None
        self.masker.drop()
        return lost

    def _begin(self) -> None:
        if not self._taken and self.characters:
            self._unmasked, self._came_at = self.take()
            self._taken = len(self._unmasked)
