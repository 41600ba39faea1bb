"""`user`: create, list, activate and deactivate accounts."""

import secrets

import click

from ci_common.models import User, utc_now
from ci_eventstore.cli.display import echo_json, json_option, local_time, table
from ci_eventstore.cli.help import examples
from ci_eventstore.cli.messages import say
from ci_eventstore.cli.store import find_user, uses_store
from ci_eventstore.repository import RedisJobRepository


@click.group("user", epilog=examples("user create 'Ada Lovelace' ada@example.com", "user list"))
def users() -> None:
    """Create, list, activate and deactivate users."""


@users.command(
    epilog=examples("user create 'Ada Lovelace' ada@example.com", "user create Ada ada@example.com --id ada")
)
@click.argument("name")
@click.argument("email")
@click.option("--id", "user_id", metavar="ID", help="The user's id; a random one if it is left out.")
@json_option
@uses_store
async def create(repository: RedisJobRepository, name: str, email: str, user_id: str | None, as_json: bool) -> None:
    """Create a user, and print the id."""
    new_id = secrets.token_hex(8) if user_id is None else user_id
    user = User(id=new_id, name=name, email=email, created_at=utc_now())
    await repository.create_user(user)
    if as_json:
        echo_json(user.to_dict())
    else:
        click.echo(user.id)


@users.command("list", epilog=examples("user list", "user list --json"))
@json_option
@uses_store
async def list_users(repository: RedisJobRepository, as_json: bool) -> None:
    """List users, the oldest first."""
    found = await repository.list_users()
    if as_json:
        echo_json([user.to_dict() for user in found])
    elif not found:
        say("there are no users yet")
    else:
        rows = [_row(user) for user in found]
        click.echo(table(("ID", "NAME", "EMAIL", "ACTIVE", "CREATED"), rows))


@users.command(epilog=examples("user activate ada@example.com"))
@click.argument("user")
@uses_store
async def activate(repository: RedisJobRepository, user: str) -> None:
    """Let a user, given by id or email, authenticate again."""
    await _set_active(repository, user, True)


@users.command(epilog=examples("user deactivate ada@example.com"))
@click.argument("user")
@uses_store
async def deactivate(repository: RedisJobRepository, user: str) -> None:
    """Keep a user, given by id or email, from authenticating.

    Jobs and keys stay.
    """
    await _set_active(repository, user, False)


async def _set_active(repository: RedisJobRepository, id_or_email: str, is_active: bool) -> None:
    user = await find_user(repository, id_or_email)
    await repository.update_user_active(user.id, is_active)
    click.echo(f"user {user.id} ({user.email}) is {'active' if is_active else 'inactive'}")


def _row(user: User) -> tuple[str, ...]:
    return (user.id, user.name, user.email, "yes" if user.is_active else "no", local_time(user.created_at))
