"""Users and API keys as hashes. Pure."""

from collections.abc import Mapping
from datetime import datetime

from ci_common.models import APIKey, User


def user_to_hash(user: User) -> dict[str, str]:
    """Return the fields of a user's record."""
    return {
        "id": user.id,
        "name": user.name,
        "email": user.email,
        "created_at": user.created_at.isoformat(),
        "is_active": encode_flag(user.is_active),
    }


def user_from_hash(fields: Mapping[str, str]) -> User:
    """Return the user in a record."""
    return User(
        id=fields["id"],
        name=fields["name"],
        email=fields["email"],
        created_at=datetime.fromisoformat(fields["created_at"]),
        is_active=fields["is_active"] == "1",
    )


def api_key_to_hash(api_key: APIKey) -> dict[str, str]:
    """Return the fields of an API key's record; what is None has none."""
    known = {
        "id": api_key.id,
        "user_id": api_key.user_id,
        "name": api_key.name,
        "key_hash": api_key.key_hash,
        "created_at": api_key.created_at.isoformat(),
        "last_used_at": None if api_key.last_used_at is None else api_key.last_used_at.isoformat(),
        "is_active": encode_flag(api_key.is_active),
    }
    return {name: value for name, value in known.items() if value is not None}


def api_key_from_hash(fields: Mapping[str, str]) -> APIKey:
    """Return the API key in a record."""
    last_used_at = fields.get("last_used_at")
    return APIKey(
        id=fields["id"],
        user_id=fields["user_id"],
        name=fields.get("name"),
        key_hash=fields["key_hash"],
        created_at=datetime.fromisoformat(fields["created_at"]),
        last_used_at=None if last_used_at is None else datetime.fromisoformat(last_used_at),
        is_active=fields["is_active"] == "1",
    )


def encode_flag(value: bool) -> str:
    """Return a flag as records hold it."""
    return "1" if value else "0"
