"""Every character at which some client ends a line, or is known to stumble."""

SEPARATORS = [
    *(chr(code) for code in range(0x20)), *(chr(code) for code in range(0x7F, 0xA1)),
    "\r\n", "\n\n", "\u2028", "\u2029", "\ufeff", "\u200b", "\udc85", "\udcff",
]  # fmt: skip


def text_with(separator: str) -> str:
    """Return a text that has a separator at its ends, in its middle, and before what looks like a field."""
    return f"{separator}a{separator}{separator}data: b{separator}"
