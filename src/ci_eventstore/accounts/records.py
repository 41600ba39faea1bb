"""Users and API keys as hashes. Pure."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from ci_common.models import APIKey, User
from ci_eventstore.errors import StoreFormatError


def user_to_hash(user: User) -> dict[str, str]:
    """Return the fields of a user's record."""
    return {
        "id": user.id,
        "name": user.name,
        "email": user.email,
        "created_at": user.created_at.isoformat(),
        "is_active": encode_flag(user.is_active),
    }


def user_from_hash(user_id: str, reply: Sequence[bytes]) -> User:
    """Return the user in a record, given as names and values by turns; StoreFormatError."""
    fields = _Fields(f"user {user_id!r}", reply)
    return User(
        id=fields.get("id"),
        name=fields.get("name"),
        email=fields.get("email"),
        created_at=fields.get("created_at", datetime.fromisoformat),
        is_active=fields.get("is_active", decode_flag),
    )


def api_key_to_hash(api_key: APIKey) -> dict[str, str]:
    """Return the fields of an API key's record, without those that are None."""
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


def api_key_from_hash(key_id: str, reply: Sequence[bytes]) -> APIKey:
    """Return the API key in a record, given as names and values by turns; StoreFormatError."""
    fields = _Fields(f"API key {key_id!r}", reply)
    return APIKey(
        id=fields.get("id"),
        user_id=fields.get("user_id"),
        name=fields.get("name") if "name" in fields else None,
        key_hash=fields.get("key_hash"),
        created_at=fields.get("created_at", datetime.fromisoformat),
        last_used_at=fields.get("last_used_at", datetime.fromisoformat) if "last_used_at" in fields else None,
        is_active=fields.get("is_active", decode_flag),
    )


class _Fields:
    """A record's fields, each read when it is asked for."""

    def __init__(self, subject: str, reply: Sequence[bytes]) -> None:
        self._subject = subject
        self._values = dict(zip(reply[::2], reply[1::2], strict=True))

    def __contains__(self, name: str) -> bool:
        return name.encode() in self._values

    def get(self, name: str, decode: Callable[[str], Any] = str) -> Any:
        """Return a field; StoreFormatError."""
        value = self._values.get(name.encode())
        if value is None:
            raise StoreFormatError(f"the record of {self._subject} has no field {name}")
        try:
            return decode(value.decode())
        except ValueError as error:
            raise StoreFormatError(f"the record of {self._subject} is damaged: field {name} holds {value!r}") from error


def encode_flag(value: bool) -> str:
    """Return a flag as records hold it."""
    return "1" if value else "0"


def decode_flag(text: str) -> bool:
    """Return a flag that a record holds; ValueError."""
    if text not in ("0", "1"):
        raise ValueError(f"{text!r} is no flag")
    return text == "1"
