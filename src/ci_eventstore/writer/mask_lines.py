"""Take the lines out of a command's output that name secrets to be masked. Pure."""

from collections.abc import Callable

from ci_eventstore.writer.spellings import SECRET_CHARACTERS

#: A line that begins so names a secret, as in GitHub's workflows.
MARKER = b"::add-mask::"
#: One command may name at most this many secrets, of at most this many characters together: each takes memory and time.
MOST_SECRETS = 1000
MOST_CHARACTERS = 100_000
#: A line that is longer than this names none.
_LONGEST_LINE = 4 * MOST_CHARACTERS
#: How a value is written in one line: `%` is the last one.
_ESCAPES = (("%0D", "\r"), ("%0A", "\n"), ("%25", "%"))


class MaskLines:
    """Hands the values of `::add-mask::VALUE` lines to who masks them, before it returns what was printed later.

    These lines are left out. A line in place of one says if its value isn't masked: one of fewer than four characters,
    and what is beyond the limits above. A blank value is none.
    """

    def __init__(self, register: Callable[[str], None]) -> None:
        self._register = register
        #: The beginning of a line that may name a secret, or does.
        self._held = b""
        self._is_inside_line = self._is_left_out = False
        self._secrets = self._characters = 0

    def take(self, piece: bytes) -> bytes:
        """Take output, and return what is to be logged so far."""
        data, self._held = self._held + piece, b""
        parts, place = list[bytes](), 0
        if self._is_inside_line or self._is_left_out:
            place = data.find(b"\n") + 1
            shown = b"" if self._is_left_out else data[: place or None]
            if not place:
                return shown
            parts.append(shown)
            self._is_inside_line = self._is_left_out = False
        while (start := _find_marker(data, place)) >= 0:
            parts.append(data[place:start])
            end = data.find(b"\n", start)
            if end < 0:
                parts.append(self._hold(data[start:]))
                return b"".join(parts)
            parts.append(self._note(data[start + len(MARKER) : end]))
            place = end + 1
        last_line = data.rfind(b"\n", place) + 1 or place
        if last_line < len(data) and MARKER.startswith(data[last_line:]):
            self._held = data[last_line:]
            return b"".join([*parts, data[place:last_line]])
        self._is_inside_line = last_line < len(data)
        return b"".join([*parts, data[place:]])

    def finish(self) -> bytes:
        """Return what is still to be logged: no more output comes."""
        held, self._held = self._held, b""
        return self._note(held[len(MARKER) :]) if held.startswith(MARKER) else held

    def _hold(self, line: bytes) -> bytes:
        """Wait for the rest of a line that names a secret; return what stands in its place if it is too long."""
        if len(line) <= _LONGEST_LINE:
            self._held = line
            return b""
        self._is_left_out = True
        return _not_masked("the line is too long")

    def _note(self, value: bytes) -> bytes:
        """Register a secret; return what stands in place of its line."""
        written = value.decode("utf-8", "surrogateescape").strip()
        secret = written
        for escape, character in _ESCAPES:
            secret = secret.replace(escape, character)
        if not secret.strip():
            return b""
        if len(secret) < SECRET_CHARACTERS:
            return _not_masked(f"it has fewer than {SECRET_CHARACTERS} characters")
        self._secrets += 1
        self._characters += len(secret)
        if self._secrets > MOST_SECRETS or self._characters > MOST_CHARACTERS:
            return _not_masked(f"a command may name {MOST_SECRETS} secrets of together {MOST_CHARACTERS} characters")
        for text in {secret, written}:
            self._register(text)
        return b""


def _find_marker(data: bytes, place: int) -> int:
    """Return where a line begins that names a secret, at the beginning of a line or after it; -1 if none does."""
    if data.startswith(MARKER, place):
        return place
    return data.find(b"\n" + MARKER, place) + 1 or -1


def _not_masked(reason: str) -> bytes:
    return f"[::add-mask:: masks nothing: {reason}]\n".encode()
