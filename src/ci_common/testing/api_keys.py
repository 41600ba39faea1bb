"""What every repository does with API keys."""

from collections.abc import Callable, Coroutine

import pytest

from ci_common.api_keys import generate_api_key, hash_api_key
from ci_common.errors import APIKeyAlreadyExistsError, APIKeyNotFoundError, UserNotFoundError
from ci_common.models import User
from ci_common.repository import JobRepository
from ci_common.testing.samples import at, new_key, new_user


async def create_owner(repository: JobRepository) -> User:
    """Create a user to give keys to."""
    user = new_user()
    await repository.create_user(user)
    return user


class APIKeyContract:
    """Keys: found by their hash, which is unique, as their id is."""

    async def test_a_key_comes_back_as_stored(self, repository: JobRepository) -> None:
        """All fields of a key are kept, the hash too."""
        user = await create_owner(repository)
        key = new_key(user, name="laptop ❤", key_hash=hash_api_key(generate_api_key()), last_used_at=at(5))
        await repository.create_api_key(key)
        found = await repository.get_api_key_by_hash(key.key_hash)
        assert found == key

    async def test_a_key_may_be_bare(self, repository: JobRepository) -> None:
        """A key without name and last use comes back without them."""
        key = new_key(await create_owner(repository))
        await repository.create_api_key(key)
        (found,) = await repository.list_api_keys()
        assert (found.name, found.last_used_at, found.is_active) == (None, None, True)

    @pytest.mark.parametrize("key_hash", ["0" * 64, "", "{}", "\udcff"], ids=repr)
    async def test_an_unknown_hash_reads_as_none(self, repository: JobRepository, key_hash: str) -> None:
        """A wrong key is not an error, whatever it looks like."""
        await repository.create_api_key(new_key(await create_owner(repository)))
        assert await repository.get_api_key_by_hash(key_hash) is None

    async def test_a_key_needs_its_user(self, repository: JobRepository) -> None:
        """A key of a user who isn't there is refused, and not stored."""
        key = new_key(new_user())
        with pytest.raises(UserNotFoundError) as caught:
            await repository.create_api_key(key)
        assert caught.value.user_id == key.user_id
        assert await repository.get_api_key_by_hash(key.key_hash) is None

    @pytest.mark.parametrize("same", ["id", "key_hash"])
    async def test_an_id_and_a_hash_are_given_once(self, repository: JobRepository, same: str) -> None:
        """A key with the id or the hash of another one is refused, and the first one stays."""
        user = await create_owner(repository)
        first = new_key(user)
        await repository.create_api_key(first)
        second = new_key(user, **{same: getattr(first, same)})
        with pytest.raises(APIKeyAlreadyExistsError) as caught:
            await repository.create_api_key(second)
        assert caught.value.key_id == second.id
        assert await repository.list_api_keys() == [first]

    async def test_a_refused_id_leaves_the_hash_free(self, repository: JobRepository) -> None:
        """A hash that came with a refused key finds nothing, and can be given to another key."""
        user = await create_owner(repository)
        first = new_key(user)
        await repository.create_api_key(first)
        refused = new_key(user, id=first.id)
        with pytest.raises(APIKeyAlreadyExistsError):
            await repository.create_api_key(refused)
        assert await repository.get_api_key_by_hash(refused.key_hash) is None
        second = new_key(user, key_hash=refused.key_hash)
        await repository.create_api_key(second)
        assert await repository.get_api_key_by_hash(refused.key_hash) == second

    async def test_the_same_key_twice_is_refused(self, repository: JobRepository) -> None:
        """A second call with the same content is an error too."""
        key = new_key(await create_owner(repository))
        await repository.create_api_key(key)
        with pytest.raises(APIKeyAlreadyExistsError):
            await repository.create_api_key(key)

    async def test_keys_are_listed_oldest_first(self, repository: JobRepository) -> None:
        """Keys come in the order of `created_at`, those of the same moment by id: all of them, or a user's."""
        ada, bob = await create_owner(repository), await create_owner(repository)
        for key in [
            new_key(ada, id="c", created_at=at(1)),
            new_key(ada, id="d", created_at=at(2)),
            new_key(ada, id="a", created_at=at(3)),
            new_key(bob, id="b", created_at=at(2)),
        ]:
            await repository.create_api_key(key)
        assert [key.id for key in await repository.list_api_keys()] == ["c", "b", "d", "a"]
        assert [key.id for key in await repository.list_api_keys(ada.id)] == ["c", "d", "a"]
        assert [key.id for key in await repository.list_api_keys(bob.id)] == ["b"]

    async def test_a_user_without_keys_has_an_empty_list(self, repository: JobRepository) -> None:
        """That is so for a missing user, too."""
        owner, other = await create_owner(repository), await create_owner(repository)
        await repository.create_api_key(new_key(owner))
        assert await repository.list_api_keys(other.id) == []
        assert await repository.list_api_keys("nobody") == []

    async def test_a_revoked_key_is_found_and_inactive(self, repository: JobRepository) -> None:
        """Revoking changes `is_active` alone; revoking again is no error."""
        user = await create_owner(repository)
        key, other = new_key(user, id="a"), new_key(user, id="b")
        for each in (key, other):
            await repository.create_api_key(each)
        for _ in range(2):
            await repository.revoke_api_key(key.id)
            revoked = new_key(user, id=key.id, key_hash=key.key_hash, is_active=False)
            assert await repository.get_api_key_by_hash(key.key_hash) == revoked
            assert await repository.list_api_keys() == [revoked, other]

    async def test_the_last_use_is_noted(self, repository: JobRepository) -> None:
        """`update_api_key_last_used` stores the given time and changes nothing else, on a revoked key too."""
        user = await create_owner(repository)
        key = new_key(user)
        await repository.create_api_key(key)
        await repository.update_api_key_last_used(key.id, at(7))
        used = new_key(user, id=key.id, key_hash=key.key_hash, last_used_at=at(7))
        assert await repository.get_api_key_by_hash(key.key_hash) == used
        await repository.revoke_api_key(key.id)
        await repository.update_api_key_last_used(key.id, at(8))
        (found,) = await repository.list_api_keys(user.id)
        assert (found.last_used_at, found.is_active) == (at(8), False)

    @pytest.mark.parametrize(
        "call",
        [
            lambda repository: repository.revoke_api_key("no key"),
            lambda repository: repository.update_api_key_last_used("no key", at(0)),
        ],
        ids=["revoke", "use"],
    )
    async def test_a_missing_key_cannot_be_changed(
        self, repository: JobRepository, call: Callable[[JobRepository], Coroutine[None, None, None]]
    ) -> None:
        """The error names the key, and no key appears."""
        with pytest.raises(APIKeyNotFoundError) as caught:
            await call(repository)
        assert caught.value.key_id == "no key"
        assert await repository.list_api_keys() == []

    async def test_a_key_of_an_inactive_user_stays(self, repository: JobRepository) -> None:
        """Deactivating a user changes none of their keys."""
        key = new_key(await create_owner(repository))
        await repository.create_api_key(key)
        await repository.update_user_active(key.user_id, False)
        assert await repository.get_api_key_by_hash(key.key_hash) == key
