"""What every repository does with users."""

import pytest

from ci_common.errors import EmailAlreadyExistsError, UserAlreadyExistsError, UserNotFoundError
from ci_common.repository import JobRepository
from ci_common.testing.samples import at, new_user


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
