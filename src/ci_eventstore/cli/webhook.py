"""`webhook`: what happens to jobs, sent to addresses that ask for it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import click

from ci_eventstore.cli.history import until_stopped, working
from ci_eventstore.cli.output import NOTHING, echo_json, json_option, say, table
from ci_eventstore.cli.store import find_user, uses_store
from ci_eventstore.cli.usage import examples
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.webhooks.addresses import Network, check_reachable, networks_of
from ci_eventstore.webhooks.posting import Poster
from ci_eventstore.webhooks.sender import Means, Sender
from ci_eventstore.webhooks.store import Listed
from ci_eventstore.webhooks.webhook import EVENTS, Webhook, checked_url


def _read_networks(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> list[Network]:
    try:
        return networks_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


#: Of programs that send webhooks.
allow_option = click.option(
    "--webhook-allow",
    metavar="ADDRESS",
    multiple=True,
    callback=_read_networks,
    help="Let webhooks reach this address, or this network of addresses, although it isn't public, and without TLS. "
    "May be repeated.",
)


def _sender(repository: RedisJobRepository, allowed: Sequence[Network]) -> Sender:
    engine = repository.engine
    return Sender(Means(engine.nodes, engine.keys, engine.reader.source, engine.facts, Poster(allowed).post))


@asynccontextmanager
async def sending(
    repository: RedisJobRepository, allowed: Sequence[Network], *, is_wanted: bool
) -> AsyncIterator[None]:
    """Send webhooks meanwhile, if that is wanted."""
    if not is_wanted:
        yield
        return
    async with working(_sender(repository, allowed).run(), "sending webhooks"):
        yield


@click.group(
    epilog=examples(
        "webhook create https://chat.example/hooks/ci",
        "webhook create https://ada.example/ci --user ada@example.com --event job.ended",
        "webhook list",
    )
)
def webhook() -> None:
    """Have what happens to jobs sent to an address.

    Messages are signed as the Standard Webhooks specification says (docs/webhooks.md). `serve` sends them, or `webhook
    send`: one process at a time does.
    """


@webhook.command(
    epilog=examples(
        "webhook create https://chat.example/hooks/ci",
        "webhook create https://ada.example/ci --user ada@example.com --event job.ended --json",
    )
)
@click.argument("address", metavar="URL")
@click.option("--user", metavar="USER", help="Only for this user's jobs, who may change it, too: an id or an email.")
@click.option(
    "--event",
    "events",
    metavar="TYPE",
    multiple=True,
    type=click.Choice(EVENTS),
    help="Send events of this type. May be repeated.  [default: those that change a job's status]",
)
@allow_option
@json_option
@uses_store
async def create(
    repository: RedisJobRepository,
    address: str,
    user: str | None,
    events: tuple[str, ...],
    webhook_allow: Sequence[Network],
    as_json: bool,
) -> None:
    """Create a webhook, and print its secret.

    The secret can't be shown again. What happens to jobs from now on is sent. A private address that URL has by its
    numbers is refused unless --webhook-allow names it, as it has to where messages are sent.
    """
    check_reachable(checked_url(address), webhook_allow)
    user_id = None if user is None else (await find_user(repository, user)).id
    made = await repository.engine.webhooks.add(address, user_id=user_id, events=events)
    _show_secret(made, as_json)


@webhook.command("list", epilog=examples("webhook list", "webhook list --user ada@example.com --json"))
@click.option("--user", metavar="USER", help="Only this user's: an id or an email.")
@json_option
@uses_store
async def list_webhooks(repository: RedisJobRepository, user: str | None, as_json: bool) -> None:
    """List webhooks, the oldest first, and how sending goes.

    WAITING is the number of messages that are still to be sent. Notices stand below.
    """
    user_id = None if user is None else (await find_user(repository, user)).id
    found = await repository.engine.webhooks.all(user_id)
    if as_json:
        echo_json([one.webhook.to_json(one.waiting) for one in found])
    elif not found:
        say("there are no such webhooks")
    else:
        click.echo(table(("ID", "USER", "STATE", "WAITING", "EVENTS", "URL"), [_row(one) for one in found]))
        for shown in (one.webhook.to_json(one.waiting) for one in found):
            for notice in shown["notices"]:
                click.echo(f"{shown['id']}: {notice['at']} {notice['text']}")


@webhook.command(epilog=examples("webhook delete 9d41c0ffee15aa07"))
@click.argument("webhook_id", metavar="ID")
@uses_store
async def delete(repository: RedisJobRepository, webhook_id: str) -> None:
    """Delete a webhook, with all that waits for it."""
    await repository.engine.webhooks.delete(webhook_id)
    click.echo(f"webhook {webhook_id} is deleted")


@webhook.command(epilog=examples("webhook enable 9d41c0ffee15aa07"))
@click.argument("webhook_id", metavar="ID")
@uses_store
async def enable(repository: RedisJobRepository, webhook_id: str) -> None:
    """Have a webhook sent again that was disabled.

    What waited is sent now. What happened while it was disabled isn't.
    """
    await repository.engine.webhooks.enable(webhook_id)
    click.echo(f"webhook {webhook_id} is enabled")


@webhook.command(epilog=examples("webhook rotate 9d41c0ffee15aa07"))
@click.argument("webhook_id", metavar="ID")
@json_option
@uses_store
async def rotate(repository: RedisJobRepository, webhook_id: str, as_json: bool) -> None:
    """Give a webhook a new secret, and print it.

    For a day, messages are signed with the secret before, too.
    """
    _show_secret(await repository.engine.webhooks.rotate(webhook_id), as_json)


@webhook.command(epilog=examples("webhook test 9d41c0ffee15aa07"))
@click.argument("webhook_id", metavar="ID")
@uses_store
async def test(repository: RedisJobRepository, webhook_id: str) -> None:
    """Have a test message sent, of the type webhook.test.

    `webhook list` shows what came of it.
    """
    await repository.engine.webhooks.test(webhook_id)
    click.echo(f"a test message for webhook {webhook_id} is on its way")


@webhook.command(epilog=examples("webhook send", "webhook send --webhook-allow 10.1.0.0/16"))
@allow_option
@uses_store
async def send(repository: RedisJobRepository, webhook_allow: Sequence[Network]) -> int:
    """Send messages to webhooks until Ctrl-C or SIGTERM.

    `serve` does so, too. Of all processes that could, one sends, and another takes over when it is gone.
    """
    return await until_stopped(_sender(repository, webhook_allow).run())


def _show_secret(made: Webhook, as_json: bool) -> None:
    [newest, *_] = made.secrets
    if as_json:
        echo_json({**made.to_json(0), "secret": newest.text})
    else:
        click.echo(newest.text)
        say(f"this is the secret of webhook {made.id}; keep it, it can't be shown again")


def _row(one: Listed) -> tuple[str, ...]:
    hook = one.webhook
    state = "failing" if hook.failures else "enabled"
    events = ",".join(event.removeprefix("job.") for event in hook.events)
    shown = state if hook.is_enabled else "disabled"
    return hook.id, hook.user_id or NOTHING, shown, str(one.waiting), events, hook.url
