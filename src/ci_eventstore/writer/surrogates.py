"""Text with halves of surrogate pairs, as JSON allows them: no encoding takes these. Pure."""

import re

#: A pair, which is a character; or a half that isn't one of the bytes that `surrogateescape` keeps (U+DC80 to U+DCFF).
_HALVES = re.compile("([\ud800-\udbff][\udc00-\udfff])|[\ud800-\udc7f\udd00-\udfff]")


def without_halves(text: str) -> str:
    """Return the text with pairs made characters, and U+FFFD in place of a half that stands alone."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return _HALVES.sub(_mend, text)
    return text


def _mend(match: re.Match[str]) -> str:
    pair = match[1]
    return pair.encode("utf-16", "surrogatepass").decode("utf-16") if pair else "\ufffd"
