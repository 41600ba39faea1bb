"""Conditions of requests: whether a client has what it asks for already. Pure."""


def has_tag(header: str | None, tag: str) -> bool:
    """Return whether an `If-None-Match` names an entity tag, or any."""
    if header is None:
        return False
    known = [part.strip().removeprefix("W/") for part in header.split(",")]
    return "*" in known or tag.removeprefix("W/") in known
