"""`key`: create, list and revoke API keys."""

import secrets

import click

from ci_common.api_keys import generate_api_key, hash_api_key
from ci_common.models import APIKey
from ci_eventstore.cli.display import NOTHING, echo_json, json_option, local_time, table
from ci_eventstore.cli.help import examples
from ci_eventstore.cli.messages import say
from ci_eventstore.cli.store import find_user, uses_store
from ci_eventstore.repository import RedisJobRepository


@click.group(
    "key", epilog=examples("key create ada@example.com --name laptop", "key list", "key revoke 9d41c0ffee15aa07")
)
def keys() -> None:
    """Create, list and revoke users' API keys."""


@keys.command(epilog=examples("key create ada@example.com --name laptop", "key create ada --json"))
@click.argument("user")
@click.option("--name", metavar="TEXT", help="What the key is for.")
@json_option
@uses_store
async def create(repository: RedisJobRepository, user: str, name: str | None, as_json: bool) -> None:
    """Create a key for a user, and print it.

    The user is given by id or email. The key can't be shown again, because only its hash is stored.
    """
    owner = await find_user(repository, user)
    plaintext = generate_api_key()
    api_key = APIKey(id=secrets.token_hex(8), user_id=owner.id, name=name, key_hash=hash_api_key(plaintext))
    await repository.create_api_key(api_key)
    if as_json:
        echo_json({**api_key.to_dict(), "key": plaintext})
    else:
        click.echo(plaintext)
        say(f"this is the key {api_key.id} of {owner.email}; keep it, it can't be shown again")


@keys.command("list", epilog=examples("key list", "key list --user ada@example.com", "key list --json"))
@click.option("--user", metavar="USER", help="Only this user's keys: an id or an email.")
@json_option
@uses_store
async def list_keys(repository: RedisJobRepository, user: str | None, as_json: bool) -> None:
    """List keys, the oldest first."""
    user_id = None if user is None else (await find_user(repository, user)).id
    found = await repository.list_api_keys(user_id)
    if as_json:
        echo_json([api_key.to_dict() for api_key in found])
    elif not found:
        say("there are no such keys")
    else:
        rows = [_row(api_key) for api_key in found]
        click.echo(table(("ID", "USER", "NAME", "ACTIVE", "CREATED", "LAST USED"), rows))


@keys.command(epilog=examples("key revoke 9d41c0ffee15aa07"))
@click.argument("key_id", metavar="ID")
@uses_store
async def revoke(repository: RedisJobRepository, key_id: str) -> None:
    """Make a key useless, for good."""
    await repository.revoke_api_key(key_id)
    click.echo(f"key {key_id} is revoked")


def _row(api_key: APIKey) -> tuple[str, ...]:
    active = "yes" if api_key.is_active else "no"
    times = (local_time(api_key.created_at), local_time(api_key.last_used_at))
    return (api_key.id, api_key.user_id, api_key.name or NOTHING, active, *times)
