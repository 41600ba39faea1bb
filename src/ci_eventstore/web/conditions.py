"""Conditions of requests, and names of answers: whether a client has what it asks for already. Pure."""

import hashlib
from urllib.parse import quote

#: Headers of what a user may see: a browser asks each time whether it has changed, and keeps it for that user alone.
PRIVATE = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding, Authorization, Cookie"}


def tag_of(*parts: object) -> str:
    """Return the entity tag of what some values decide."""
    return f'"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"'


def has_tag(header: str | None, tag: str) -> bool:
    """Return whether an `If-None-Match` names an entity tag, or any."""
    if header is None:
        return False
    known = [part.strip().removeprefix("W/") for part in header.split(",")]
    return "*" in known or tag in known


def disposition(name: str) -> str:
    """Return the `Content-Disposition` of a file to be kept under a name, as far as file systems take it."""
    safe = name.replace("/", "_").replace("\\", "_")
    plain = "".join(character if character.isascii() and character.isalnum() else "_" for character in safe[:-4])
    return f"attachment; filename=\"{plain}{safe[-4:]}\"; filename*=UTF-8''{quote(safe, safe='')}"
