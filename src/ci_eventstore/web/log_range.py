"""Which bytes of a log a request asks for, and how it takes them. Pure."""

import re

from ci_eventstore.web.errors import WebError

_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))", re.IGNORECASE)


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte of a `Range` and the one after its last, None for all; WebError 416.

    Several ranges, other units and what can't be read are ignored, as RFC 9110 allows or says.
    """
    found = _RANGE.fullmatch(header.replace(" ", "")) if header else None
    if not found:
        return None
    first_text, last_text, suffix = found.groups()
    if suffix is not None:
        first, end = max(size - int(suffix), 0), size
    else:
        first, end = int(first_text), min(int(last_text) + 1, size) if last_text else size
        if last_text and int(last_text) < first:
            return None
    if first >= size:
        raise WebError(
            416, "range", f"the log has {size} bytes", {"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"}
        )
    return first, end


def accepts_gzip(header: str | None) -> bool:
    """Tell whether a client takes gzip, by its `Accept-Encoding`."""
    weights = {}
    for part in (header or "").lower().split(","):
        name, _, parameters = part.partition(";")
        weight = parameters.replace(" ", "")
        weights[name.strip()] = not re.fullmatch(r"q=0(\.0{0,3})?", weight)
    return weights.get("gzip", weights.get("*", False))
