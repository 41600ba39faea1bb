"""Make API keys and hash them: the plaintext is shown once, only its SHA-256 is stored."""

import hashlib
import secrets

#: 30 bytes are the 240 random bits of a key; they make 40 URL-safe characters.
RANDOM_BYTES = 30
PREFIX = "ci_"


def generate_api_key() -> str:
    """Return a new key: `ci_` and 40 URL-safe characters from 240 random bits."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def hash_api_key(api_key: str) -> str:
    """Return the SHA-256 of a key in hex: what `APIKey.key_hash` holds and is looked up by."""
    return hashlib.sha256(api_key.encode()).hexdigest()
