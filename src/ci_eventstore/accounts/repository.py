"""The part of the contract that is about users and API keys."""

from abc import abstractmethod
from datetime import datetime

from ci_common.errors import InvalidIdError
from ci_common.models import APIKey, User
from ci_common.repository import JobRepository
from ci_common.validation import as_text, check_api_key, check_flag, check_id, check_time, check_user, optional_id
from ci_eventstore.accounts.store import AccountStore


class AccountRepository(JobRepository):
    """Users and their keys, as records on one server."""

    @property
    @abstractmethod
    def _accounts(self) -> AccountStore:
        """Where they are; NotInitializedError."""

    async def create_user(self, user: User) -> None:
        """Store a new user; UserAlreadyExistsError, EmailAlreadyExistsError."""
        check_user(user)
        await self._accounts.create_user(user)

    async def get_user(self, user_id: str) -> User | None:
        """Return the user of that id."""
        return await self._accounts.get_user(check_id("user id", user_id))

    async def get_user_by_email(self, email: str) -> User | None:
        """Return the user with that email, whatever its case."""
        return await self._accounts.get_user_by_email(email) if is_id(as_text("email", email)) else None

    async def list_users(self) -> list[User]:
        """Return all users, the oldest first."""
        return await self._accounts.list_users()

    async def update_user_active(self, user_id: str, is_active: bool) -> None:
        """Let a user authenticate, or not; UserNotFoundError."""
        await self._accounts.update_user_active(check_id("user id", user_id), check_flag("is_active", is_active))

    async def create_api_key(self, api_key: APIKey) -> None:
        """Store a new key; UserNotFoundError, APIKeyAlreadyExistsError."""
        check_api_key(api_key)
        await self._accounts.create_api_key(api_key)

    async def get_api_key_by_hash(self, key_hash: str) -> APIKey | None:
        """Return the key with that hash, a revoked one too."""
        as_text("API key hash", key_hash)
        return await self._accounts.get_api_key_by_hash(key_hash) if is_id(key_hash) else None

    async def list_api_keys(self, user_id: str | None = None) -> list[APIKey]:
        """Return all keys, or a user's, the oldest first."""
        return await self._accounts.list_api_keys(optional_id("user id", user_id))

    async def revoke_api_key(self, key_id: str) -> None:
        """Make the key inactive, for good; APIKeyNotFoundError."""
        await self._accounts.revoke_api_key(check_id("API key id", key_id))

    async def update_api_key_last_used(self, key_id: str, timestamp: datetime) -> None:
        """Note when a key was used; APIKeyNotFoundError."""
        check_time("timestamp", timestamp)
        await self._accounts.update_api_key_last_used(check_id("API key id", key_id), timestamp)


def is_id(value: str) -> bool:
    """Tell whether a text could be an id, an email or a hash: what couldn't is looked up in vain."""
    try:
        check_id("id", value)
    except InvalidIdError:
        return False
    return True
