"""Mask secrets in text that comes in pieces. Pure."""

import re
from collections.abc import Iterable

MASK = "***"


class Masker:
    """Replaces every occurrence of a secret, however the text is split; overlapping ones by one mask.

    Text that may be the beginning of a secret is held until it can't be, or until `finish`.
    A secret of several lines is masked line by line, since a log may show them apart; blank lines of it aren't secret.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        lines = {line for secret in secrets for line in (secret, *secret.splitlines()) if line.strip()}
        #: The longest first.
        self._secrets = sorted(lines, key=len, reverse=True)
        #: Finds where a secret may begin.
        self._beginning = re.compile("|".join(sorted({re.escape(secret[0]) for secret in self._secrets})))
        self._held = ""

    @property
    def is_holding(self) -> bool:
        """Whether some text may be the beginning of a secret."""
        return bool(self._held)

    def mask(self, text: str) -> str:
        """Take more text, and return what is certain of what came so far."""
        if not self._secrets:
            return text
        text = self._held + text
        spans = self._spans(text)
        certain = self._certain(text, spans)
        if certain == len(text) and not spans:
            self._held = ""
            return text
        self._held = text[certain:]
        return _replace(text[:certain], [span for span in spans if span[1] <= certain])

    def finish(self) -> str:
        """Return what was held: no more text comes, so it isn't the beginning of a secret."""
        text, self._held = self._held, ""
        return _replace(text, self._spans(text))

    def mask_all(self, text: str) -> str:
        """Return a text that is complete with its secrets masked."""
        return _replace(text, self._spans(text))

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Return the parts of the text that belong to secrets, overlapping ones joined, in order."""
        found: list[tuple[int, int]] = []
        for secret in self._secrets:
            start = text.find(secret)
            while start >= 0:
                found.append((start, start + len(secret)))
                start = text.find(secret, start + 1)
        if not found:
            return found
        spans: list[tuple[int, int]] = []
        for start, end in sorted(found):
            if spans and start < spans[-1][1]:
                spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
            else:
                spans.append((start, end))
        return spans

    def _certain(self, text: str, spans: list[tuple[int, int]]) -> int:
        """Return up to where the text can't be the beginning of a secret, or part of a span that may yet grow."""
        longest = len(self._secrets[0])
        for beginning in self._beginning.finditer(text, max(0, len(text) - longest + 1)):
            start = beginning.start()
            tail = text[start:]
            if any(len(secret) > len(tail) and secret.startswith(tail) for secret in self._secrets):
                return next((span[0] for span in spans if span[0] < start < span[1]), start)
        return len(text)


def _replace(text: str, spans: list[tuple[int, int]]) -> str:
    parts, done = [], 0
    for start, end in spans:
        parts += [text[done:start], MASK]
        done = end
    return "".join([*parts, text[done:]])
