"""The spellings in which a secret may be printed. Pure."""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator

from ci_eventstore.writer.surrogates import without_halves

#: A secret has at least this many characters: fewer are found in any text.
SECRET_CHARACTERS = 4
#: So does a text that is derived from a secret, such as one of its lines, and it has a letter or digit.
DERIVED_CHARACTERS = 8
#: A longer secret is masked in the usual spellings only, which take a multiple of its own memory.
LONG_CHARACTERS = 8192
#: The lengths of the lines that `base64` and `openssl` make.
_WRAPPED_AT = (76, 64)

_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
#: What other encoders of URLs leave as it is: Python's `quote`, JavaScript's two, HTML forms.
_KEPT_IN_URLS = (b"/", b"!'()*", b"!'()*;,/?:@&=+$#", b"*")
_CONTROLS = {"\a": "a", "\b": "b", "\t": "t", "\n": "n", "\v": "v", "\f": "f", "\r": "r", "\x1b": "E"}
#: What stands between the quotes of $'…'.
_ANSI_C = [
    ("\\", "\\\\"),
    ("'", "\\'"),
    *((control, f"\\{_CONTROLS.get(control) or f'{ord(control):03o}'}") for control in map(chr, range(1, 32))),
    ("\x7f", "\\177"),
]
#: What `printf %q` has a backslash before.
_SHELL_SPECIAL = "\\ !\"$&'()*,;<>?[]^`{|}"
#: What a double and a single quote become in HTML and XML.
_HTML_QUOTES = (("&quot;", "&#x27;"), ('"', "'"), ("&quot;", "&#39;"), ("&quot;", "&apos;"), ("&#34;", "&#39;"))


def spellings(secret: str) -> Iterator[bytes]:
    """Yield all that is masked for a secret: its spellings, its lines, and those of the values in it if it is JSON.

    None is blank; some come more than once.
    """
    waiting = [without_halves(secret)]
    seen = set(waiting)
    while waiting:
        text = waiting.pop()
        for spelling in _spellings_of(text):
            if spelling.strip():
                yield spelling
        for value in _json_values(text):
            if value not in seen and _counts(value):
                seen.add(value)
                waiting.append(value)


def _spellings_of(text: str) -> Iterator[bytes]:
    """Yield the spellings of one text, and the lines of those that have several."""
    raw, lines = _as_bytes(text), set[str]()
    for spelling in _texts(text):
        yield _as_bytes(spelling)
        if "\n" in spelling or "\r" in spelling:
            fresh = {line for line in map(str.strip, spelling.splitlines()) if line not in lines and _counts(line)}
            yield from map(_as_bytes, fresh)
            lines |= fresh
    is_long = len(text) > LONG_CHARACTERS
    yield from _url(raw, is_long=is_long)
    if len(text) >= SECRET_CHARACTERS:
        yield from _base64(raw)
        if not is_long:
            yield from _wrapped_base64(raw)


def _texts(text: str) -> Iterator[str]:
    """Yield the spellings that are texts; of a long one, the usual ones."""
    yield text
    usual, unusual = (_json, _shell, _html, _python), (_other_json, _other_shell, _other_html, _other_python)
    yield from _line_ends(text)
    for spell in usual if len(text) > LONG_CHARACTERS else usual + unusual:
        yield from spell(text)


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _counts(derived: str) -> bool:
    """Whether a text that is derived from a secret is long enough, and no mere punctuation."""
    return len(derived) >= DERIVED_CHARACTERS and any(map(str.isalnum, derived))


def _replaced(text: str, pairs: Iterable[tuple[str, str]]) -> str:
    """Replace one after the other; quicker than looking at each character."""
    for old, new in pairs:
        if old in text:
            text = text.replace(old, new)
    return text


def _line_ends(text: str) -> Iterator[str]:
    """Yield a text of several lines as a terminal shows it, and as a program on another system writes it."""
    if "\n" in text:
        plain = text.replace("\r\n", "\n")
        yield plain
        yield plain.replace("\n", "\r\n")


def _json(text: str) -> Iterator[str]:
    """Yield what stands between the quotes, with characters that aren't ASCII escaped and not."""
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]


def _other_json(text: str) -> Iterator[str]:
    """Yield what PHP and Go write, and hexadecimal digits in capitals."""
    escaped, plain = _json(text)
    yield re.sub(r"\\u[0-9a-f]{4}", lambda match: f"\\u{match[0][2:].upper()}", escaped)
    for spelling in (escaped, plain):
        yield spelling.replace("/", "\\/")
        for_html = [("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")]
        yield _replaced(spelling, for_html)


def _shell(text: str) -> Iterator[str]:
    """Yield what stands between the quotes in `set -x`, and what `printf %q` prints."""
    yield text.replace("'", "'\\''")
    yield text.replace("'", "'\"'\"'")
    words = [(character, "\\" + character) for character in _SHELL_SPECIAL]
    yield _replaced(text, [*words, ("=~", "=\\~"), (":~", ":\\~")])
    yield _replaced(text, _ANSI_C)


def _other_shell(text: str) -> Iterator[str]:
    """Yield what `export -p` prints, $'…' where only ASCII is printed, and doubled quotes as in SQL and YAML."""
    yield _replaced(text, [(character, "\\" + character) for character in '\\"$`'])
    ansi_c = _replaced(text, _ANSI_C)
    yield "".join(chr(byte) if byte < 128 else f"\\{byte:03o}" for byte in _as_bytes(ansi_c))
    yield text.replace("'", "''")


def _html(text: str, quotes: Iterable[tuple[str, str]] = _HTML_QUOTES[:2]) -> Iterator[str]:
    """Yield what Python's `html.escape` makes, with quotes and without."""
    escaped = _replaced(text, [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")])
    for double, single in quotes:
        yield _replaced(escaped, [('"', double), ("'", single)])


def _other_html(text: str) -> Iterator[str]:
    """Yield what others make of quotes."""
    return _html(text, _HTML_QUOTES[2:])


def _python(text: str) -> Iterator[str]:
    """Yield what stands between the quotes of a text's `repr`, and of its bytes'."""
    yield repr(text)[1:-1]
    yield repr(_as_bytes(text))[2:-1]


def _other_python(text: str) -> Iterator[str]:
    """Yield the same for a text that has both kinds of quotes, and what `ascii` makes."""
    yield repr(text + "\"'")[1:-4]
    yield repr(_as_bytes(text) + b"\"'")[2:-4]
    yield ascii(text)[1:-1]


def _base64(raw: bytes) -> Iterator[bytes]:
    """Yield a secret at each of the three places where it may begin, with another text after it or none.

    The index of secrets takes the URL-safe alphabet for the ordinary one.
    """
    for before, begin in enumerate((0, 2, 3)):
        padding = bytes(before)
        yield b64encode(padding + raw)[begin : (before + len(raw)) * 8 // 6]
        yield b64encode(padding + raw).rstrip(b"=")[begin:]
        yield b64encode(padding + raw + b"\n").rstrip(b"=")[begin:]


def _wrapped_base64(raw: bytes) -> Iterator[bytes]:
    """Yield the whole and the lines of what `base64` and `openssl` make of a secret alone."""
    for after in (b"", b"\n"):
        encoded = b64encode(raw + after)
        for width in _WRAPPED_AT:
            if len(encoded) > width:
                lines = [encoded[start : start + width] for start in range(0, len(encoded), width)]
                yield b"\n".join(lines)
                yield from (line for line in lines if len(line.rstrip(b"=")) >= DERIVED_CHARACTERS)


def _url(raw: bytes, *, is_long: bool) -> Iterator[bytes]:
    """Yield a secret with all but letters, digits and `-._~` as %XX, and what other encoders make of it."""
    special = set(raw.translate(None, _UNRESERVED))
    if not special:
        return
    # Half the time of a look at each byte, in a long text.
    spelled = raw.replace(b"%", b"%25")
    for byte in special - {ord("%")}:
        spelled = spelled.replace(bytes([byte]), b"%%%02X" % byte)
    for kept in (b"", *_KEPT_IN_URLS[: 1 if is_long else None]):
        variant = spelled
        for byte in kept:
            variant = variant.replace(b"%%%02X" % byte, bytes([byte]))
        yield variant
        form = variant.replace(b"%20", b"+")
        yield form
        yield form.replace(b"~", b"%7E")
    if not is_long:
        for byte in special:
            spelled = spelled.replace(b"%%%02X" % byte, b"%%%02x" % byte)
        yield spelled


def _json_values(text: str) -> Iterator[str]:
    """Yield the texts in a JSON document, but for the names in its objects."""
    if text.lstrip()[:1] not in ("{", "["):
        return
    try:
        waiting = [json.loads(text)]
    except (ValueError, RecursionError):
        return
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            yield without_halves(value)
