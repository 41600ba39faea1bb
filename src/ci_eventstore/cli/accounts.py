"""`user` and `key`: accounts, and the API keys by which their users are known."""

import secrets
from dataclasses import asdict
from pathlib import Path

import click

from ci_common.errors import UserNotFoundError
from ci_common.models import APIKey, User, generate_api_key, hash_api_key, utc_now
from ci_eventstore.cli.output import NOTHING, echo_json, json_option, local_time, properties, say, table
from ci_eventstore.cli.store import find_user, uses_store
from ci_eventstore.cli.usage import ExitCode, duration_option, examples
from ci_eventstore.connection.nodes import servers_of
from ci_eventstore.diagnosis.findings import plural
from ci_eventstore.errors import StoreError
from ci_eventstore.history.erasing import SETTLE_SECONDS, Eraser, Receipt, rewrite_files
from ci_eventstore.repository import RedisJobRepository

#: What no store can erase.
ELSEWHERE = (
    "files of replicas, backups, exports, copies, and old versions in a bucket",
    "logs of servers and controllers, and the server's slow log",
    "ids of jobs in tombstones and facts, which have nothing else, but for jobs that were deleted before: until their "
    "facts have been read, these recognise whose the jobs were, if both ids are known",
)


@click.group("user", epilog=examples("user create 'Ada Lovelace' ada@example.com", "user list"))
def users() -> None:
    """Create, list, activate, deactivate and erase users."""


@users.command(
    "create", epilog=examples("user create 'Ada Lovelace' ada@example.com", "user create Ada ada@example.com --id ada")
)
@click.argument("name")
@click.argument("email")
@click.option("--id", "user_id", metavar="ID", help="The user's id; a random one if it is left out.")
@json_option
@uses_store
async def create_user(
    repository: RedisJobRepository, name: str, email: str, user_id: str | None, as_json: bool
) -> None:
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
        rows = [
            (user.id, user.name, user.email, "yes" if user.is_active else "no", local_time(user.created_at))
            for user in found
        ]
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


@users.command(epilog=examples("user erase ada@example.com", "user erase ada --cancel --rewrite"))
@click.argument("user")
@click.option("--cancel", is_flag=True, help="Cancel jobs of theirs that run; without it, such a user isn't erased.")
@click.option("--rewrite", is_flag=True, help="Have the server write its files anew, and wait for it.")
@click.option(
    "--projects",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Delete the jobs' projects, too, which `serve` keeps in this folder.",
)
@duration_option(
    "--settle", "How long requests that were let in before may still create jobs.", default=f"{SETTLE_SECONDS:.0f}s"
)
@json_option
@uses_store
async def erase(
    repository: RedisJobRepository,
    user: str,
    cancel: bool,
    rewrite: bool,
    projects: Path | None,
    settle: float,
    as_json: bool,
) -> int:
    """Erase a user, given by id or email, with all their jobs.

    Nothing brings them back. The user can't authenticate from the beginning on, and the account goes last: if this is
    stopped, repeat it. It prints how much has gone, and what is left outside of the store. Without --rewrite, the
    server's append-only file and snapshot have the user's data until they are written anew.
    """
    account = await repository.get_user(user) or await repository.get_user_by_email(user)
    user_id = user if account is None else account.id
    eraser = Eraser(repository, user_id, cancels=cancel, project_folder=projects, settle_seconds=settle)
    try:
        receipt = await eraser.erase()
    except UserNotFoundError:
        # It may have been stopped between the end of the account and the rewriting.
        if rewrite:
            await rewrite_files(await servers_of(repository.engine.nodes))
        raise
    failure = await _rewritten(repository, receipt) if rewrite and not receipt.left else None
    remains = [] if receipt.left else _remains(receipt, has_files=not rewrite or failure is not None)
    if as_json:
        echo_json({**asdict(receipt), "remains": remains})
    else:
        click.echo(properties(_went(receipt)))
        for text in _left(receipt) if receipt.left else ["what may be left of the user: " + "; ".join(remains)]:
            say(text)
    if failure is not None:
        raise failure
    return ExitCode.FAILED if receipt.left else ExitCode.SUCCESS


async def _rewritten(repository: RedisJobRepository, receipt: Receipt) -> StoreError | None:
    """Have the files written anew; return what went wrong, as the receipt has to be printed first."""
    try:
        receipt.rewritten = await rewrite_files(await servers_of(repository.engine.nodes))
    except StoreError as error:
        return error
    return None


def _went(receipt: Receipt) -> list[tuple[str, str]]:
    counted = {name: value for name, value in asdict(receipt).items() if isinstance(value, int)}
    return [(name.replace("_", " "), str(value)) for name, value in counted.items()]


def _left(receipt: Receipt) -> list[str]:
    """Return the messages about jobs that can't be deleted."""
    named = [f"job {job_id} can't be deleted: {why}" for job_id, why in sorted(receipt.left.items())]
    return [*named, "the account stays, inactive, until they are gone: erase the user again then"]


def _remains(receipt: Receipt, *, has_files: bool) -> list[str]:
    """Return where something of an erased user may be left."""
    files = [] if not has_files else ["the server's append-only file and snapshot, until they are written anew"]
    queues = [f"the memory of queue {name}, until others' tickets there are taken" for name in receipt.queues]
    projects = (
        [f"projects of {plural(receipt.projects_left, 'job')} outside of the folder"] if receipt.projects_left else []
    )
    return [*files, *queues, *projects, *ELSEWHERE]


async def _set_active(repository: RedisJobRepository, id_or_email: str, is_active: bool) -> None:
    user = await find_user(repository, id_or_email)
    await repository.update_user_active(user.id, is_active)
    click.echo(f"user {user.id} ({user.email}) is {'active' if is_active else 'inactive'}")


@click.group(
    "key", epilog=examples("key create ada@example.com --name laptop", "key list", "key revoke 9d41c0ffee15aa07")
)
def keys() -> None:
    """Create, list and revoke users' API keys."""


@keys.command("create", epilog=examples("key create ada@example.com --name laptop", "key create ada --json"))
@click.argument("user")
@click.option("--name", metavar="TEXT", help="What the key is for.")
@json_option
@uses_store
async def create_key(repository: RedisJobRepository, user: str, name: str | None, as_json: bool) -> None:
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
        rows = [_key_row(api_key) for api_key in found]
        click.echo(table(("ID", "USER", "NAME", "ACTIVE", "CREATED", "LAST USED"), rows))


@keys.command(epilog=examples("key revoke 9d41c0ffee15aa07"))
@click.argument("key_id", metavar="ID")
@uses_store
async def revoke(repository: RedisJobRepository, key_id: str) -> None:
    """Make a key useless, for good."""
    await repository.revoke_api_key(key_id)
    click.echo(f"key {key_id} is revoked")


def _key_row(api_key: APIKey) -> tuple[str, ...]:
    active = "yes" if api_key.is_active else "no"
    times = (local_time(api_key.created_at), local_time(api_key.last_used_at))
    return (api_key.id, api_key.user_id, api_key.name or NOTHING, active, *times)
