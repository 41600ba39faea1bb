"""Mask secrets in text that comes in pieces."""

import logging
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ci_common.validation import check_texts
from ci_eventstore.writer.chunks import CHUNK_CHARACTERS
from ci_eventstore.writer.known_words import begin_to_load_numpy, load_numpy
from ci_eventstore.writer.secret_index import SecretIndex, Span
from ci_eventstore.writer.spellings import SECRET_CHARACTERS, spellings
from ci_eventstore.writer.surrogates import without_halves

logger = logging.getLogger("ci_eventstore.writer")

MASK = "***"
#: A secret is prepared in steps of about this many bytes of spellings; each takes some milliseconds at most.
_STEP_BYTES = 32 * 1024
#: What a spelling costs beside its bytes, in the same unit.
_SPELLING_BYTES = 64


class PreparedSecrets:
    """Secrets whose spellings are known, to be masked in many texts; blank ones are left out."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self.index = SecretIndex()
        texts = check_texts("secrets", secrets)
        if texts:
            load_numpy()
        for secret in texts:
            for _ in _add(self.index, secret):
                pass
        # What is made at the first search is made here.
        self.index.find(bytes(CHUNK_CHARACTERS), goes_on=True)


#: Secrets, or the same prepared, which many writers can share.
SecretTexts = Iterable[str] | PreparedSecrets


def prepared(secrets: SecretTexts) -> PreparedSecrets:
    """Return secrets prepared, if they aren't."""
    return secrets if isinstance(secrets, PreparedSecrets) else PreparedSecrets(secrets)


class Held(NamedTuple):
    """What a masker holds of the text it was given."""

    text: bytes
    #: How much of that belongs to a secret that has its mask already.
    covered: int


class Masker:
    """Replaces every occurrence of a secret, however the text is split; overlapping ones by one mask.

    Text that may be the beginning of a secret is held until it can't be, or until `finish`. A secret is found in many
    spellings, and one of several lines is masked line by line too, since a log may show them apart.
    """

    def __init__(self, secrets: SecretTexts = ()) -> None:
        self._own = SecretIndex()
        self._indexes, self._preparing = [self._own], list[Iterator[None]]()
        if isinstance(secrets, PreparedSecrets):
            self._indexes.append(secrets.index)
        else:
            texts = check_texts("secrets", secrets)
            if texts:
                load_numpy()
            self._preparing = [_add(self._own, secret) for secret in texts]
        #: What may be the beginning of a secret.
        self.held = Held(b"", 0)

    @property
    def is_holding(self) -> bool:
        """Whether some text may be the beginning of a secret."""
        return bool(self.held.text)

    @property
    def is_preparing(self) -> bool:
        """Whether there are secrets whose spellings aren't all known."""
        return bool(self._preparing)

    def add(self, secret: str) -> None:
        """Mask another secret from now on, also in what is held; a blank one is none."""
        texts = check_texts("secrets", [secret])
        if texts:
            begin_to_load_numpy()
        self._preparing += [_add(self._own, text) for text in texts]

    def prepare(self) -> Iterator[None]:
        """Find the spellings of new secrets, in short steps; what is left of that, `mask` does at once."""
        while self._preparing:
            steps = self._preparing[0]
            yield from steps
            if self._preparing and self._preparing[0] is steps:
                del self._preparing[0]

    def mask(self, text: str) -> str:
        """Take more text, and return what is certain of what came so far."""
        return self._mask(text, goes_on=True)

    def finish(self) -> str:
        """Return what was held: no more text comes, so it isn't the beginning of a secret."""
        return self._mask("", goes_on=False)

    def drop(self) -> None:
        """Forget what is held."""
        self.held = Held(b"", 0)

    def mask_all(self, text: str) -> str:
        """Return a text that is complete with its secrets masked."""
        if not self._is_masking():
            return text
        data = _as_bytes(text)
        spans, _ = self._find(data, goes_on=False)
        return _as_text(_replaced(data, spans, 0, len(data))[0])

    def _mask(self, text: str, *, goes_on: bool) -> str:
        if not self._is_masking():
            return text
        held, covered = self.held
        data = held + _as_bytes(text)
        spans, certain = self._find(data, goes_on=goes_on)
        if certain == len(text) == len(data) and not (spans or covered):
            self.held = Held(b"", 0)
            return text
        released, done = _replaced(data, spans, covered, certain)
        self.held = Held(data[certain:], max(0, done - certain))
        return _as_text(released)

    def _is_masking(self) -> bool:
        """Whether there are secrets, whose spellings are known from then on."""
        for _ in self.prepare():
            pass
        return not all(index.is_empty for index in self._indexes)

    def _find(self, data: bytes, *, goes_on: bool) -> tuple[list[Span], int]:
        """Return where secrets are, in order, and up to where that is certain."""
        found = [index.find(data, goes_on=goes_on) for index in self._indexes if not index.is_empty]
        return sorted(span for spans, _ in found for span in spans), min(certain for _, certain in found)


def _add(index: SecretIndex, secret: str) -> Iterator[None]:
    """Add the spellings of a secret to an index, in short steps."""
    if secret.strip() and len(secret) < SECRET_CHARACTERS:
        logger.warning("a secret has %d characters only: it is masked wherever these come in a row", len(secret))
    size = 0
    for spelling in spellings(secret):
        index.add(spelling)
        size += len(spelling) + _SPELLING_BYTES
        if size > _STEP_BYTES:
            size = 0
            yield


def _replaced(data: bytes, spans: Iterable[Span], done: int, certain: int) -> tuple[bytes, int]:
    """Return the text up to where it is certain with masks, and up to where these reach; some of it is done already."""
    parts, mask = list[bytes](), MASK.encode()
    for start, end in spans:
        if start >= certain:
            break
        if start >= done:
            parts += (data[done:start], mask)
        done = max(done, end)
    parts.append(data[done:certain])
    return b"".join(parts), done


def _as_bytes(text: str) -> bytes:
    return without_halves(text).encode("utf-8", "surrogateescape")


def _as_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
