"""Browsers' sessions: each stands for an API key, and is worth nothing without it."""

import secrets

from ci_common.api_keys import hash_api_key
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.keys import Keys, session_key

#: How long a browser stays logged in.
SESSION_SECONDS = 7 * 24 * 3600


class SessionStore:
    """Sessions as keys that expire. Only the hash of a session's token is stored, and only the hash of its key."""

    def __init__(self, nodes: Nodes, keys: Keys) -> None:
        self._nodes = nodes
        self._keys = keys

    async def create(self, key_hash: str) -> str:
        """Begin a session for an API key, given by its hash, and return its token."""
        token = secrets.token_urlsafe(32)
        await self._nodes.read("SET", self._key(token), key_hash, "EX", SESSION_SECONDS)
        return token

    async def find(self, token: str) -> str | None:
        """Return the hash of the API key that a session stands for; whether the key is still good is another matter."""
        found = await self._nodes.read("GET", self._key(token))
        return None if found is None else str(found.decode())

    async def end(self, token: str) -> None:
        """End a session; one that isn't there has ended."""
        await self._nodes.read("DEL", self._key(token))

    def _key(self, token: str) -> str:
        return session_key(self._keys, hash_api_key(token))
