"""What every repository does with users and their API keys."""

from collections.abc import Callable, Coroutine

import pytest

from ci_common.errors import (
    APIKeyAlreadyExistsError,
    APIKeyNotFoundError,
    EmailAlreadyExistsError,
    UserAlreadyExistsError,
    UserNotFoundError,
)
from ci_common.models import User, generate_api_key, hash_api_key
from ci_common.repository import JobRepository
from ci_common.testing.samples import at, new_key, new_user


class UserContract:
    """Accounts: unique by id and by email, whatever its case."""

    async def test_a_user_comes_back_as_stored(self, repository: JobRepository) -> None:
        """All five fields of a user are kept, other scripts' letters too."""
        user = new_user(name="Жанна d'Arc 🚒", email="Zoë+ci@Example.org", is_active=False)
        await repository.create_user(user)
        assert await repository.get_user(user.id) == user

    async def test_a_missing_user_reads_as_none(self, repository: JobRepository) -> None:
        """Neither an unknown id nor an unknown email is an error."""
        assert await repository.get_user("nobody") is None
        assert await repository.get_user_by_email("nobody@example.org") is None

    @pytest.mark.parametrize("email", ["", "{x}@example.org", "a\nb", "\udcff", "x" * 1000], ids=repr)
    async def test_an_email_that_nobody_can_have_reads_as_none(self, repository: JobRepository, email: str) -> None:
        """What someone types into a login form is looked up, whatever it is."""
        assert await repository.get_user_by_email(email) is None

    @pytest.mark.parametrize(
        ("stored", "asked"),
        [
            ("Ada@Example.ORG", "ada@example.org"),
            ("ada@example.org", "ADA@EXAMPLE.ORG"),
            ("ÉMILIE@example.org", "émilie@example.org"),
            ("straße@example.org", "STRASSE@example.org"),
        ],
    )
    async def test_an_email_is_found_whatever_its_case(
        self, repository: JobRepository, stored: str, asked: str
    ) -> None:
        """The email comes back as it was written, and is found in any case."""
        user = new_user(email=stored)
        await repository.create_user(user)
        assert await repository.get_user_by_email(asked) == user

    async def test_a_user_id_is_given_once(self, repository: JobRepository) -> None:
        """A second user of the same id is refused, and the first one stays."""
        first = new_user()
        await repository.create_user(first)
        with pytest.raises(UserAlreadyExistsError) as caught:
            await repository.create_user(new_user(id=first.id))
        assert caught.value.user_id == first.id
        assert await repository.list_users() == [first]

    async def test_the_same_user_twice_is_refused_for_its_id(self, repository: JobRepository) -> None:
        """A second call with the same content is an error too, and speaks of the id before the email."""
        user = new_user()
        await repository.create_user(user)
        with pytest.raises(UserAlreadyExistsError):
            await repository.create_user(user)
        assert await repository.list_users() == [user]

    async def test_an_email_is_given_once_whatever_its_case(self, repository: JobRepository) -> None:
        """A second user with the same email in another case is refused, and nothing of it is stored."""
        await repository.create_user(new_user(email="ada@example.org"))
        second = new_user(email="ADA@example.org")
        with pytest.raises(EmailAlreadyExistsError) as caught:
            await repository.create_user(second)
        assert caught.value.email == "ADA@example.org"
        assert await repository.get_user(second.id) is None

    async def test_a_refused_id_leaves_the_email_free(self, repository: JobRepository) -> None:
        """An email that came with a refused user can be given to another one."""
        first = new_user()
        await repository.create_user(first)
        with pytest.raises(UserAlreadyExistsError):
            await repository.create_user(new_user(id=first.id, email="free@example.org"))
        second = new_user(email="free@example.org")
        await repository.create_user(second)
        assert await repository.get_user_by_email("free@example.org") == second

    async def test_users_are_listed_oldest_first(self, repository: JobRepository) -> None:
        """Users come in the order of `created_at`, those of the same moment by id."""
        users = [
            new_user(id="c", created_at=at(1)),
            new_user(id="d", created_at=at(2)),
            new_user(id="a", created_at=at(3)),
            new_user(id="b", created_at=at(2)),
        ]
        for user in users:
            await repository.create_user(user)
        assert [user.id for user in await repository.list_users()] == ["c", "b", "d", "a"]

    async def test_no_users_are_an_empty_list(self, repository: JobRepository) -> None:
        """A new store has no users."""
        assert await repository.list_users() == []

    async def test_a_user_is_deactivated_and_activated(self, repository: JobRepository) -> None:
        """`update_user_active` changes one field, in every view of the user, as often as one likes."""
        user = new_user(email="Ada@example.org")
        await repository.create_user(user)
        for is_active in (False, False, True):
            await repository.update_user_active(user.id, is_active)
            changed = new_user(id=user.id, email=user.email, is_active=is_active)
            assert await repository.get_user(user.id) == changed
            assert await repository.get_user_by_email("ada@example.org") == changed
            assert await repository.list_users() == [changed]

    async def test_a_missing_user_cannot_be_activated(self, repository: JobRepository) -> None:
        """The error names the user, and no user appears."""
        with pytest.raises(UserNotFoundError) as caught:
            await repository.update_user_active("nobody", True)
        assert caught.value.user_id == "nobody"
        assert await repository.list_users() == []


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
