"""Webhooks as owners change them: their limits, and changes at the same time."""

import asyncio
import logging

import pytest

from ci_common.errors import InvalidArgumentError, UserNotFoundError
from ci_common.models import User, utc_now
from ci_eventstore.accounts.erasure import begin_erasure
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.errors import StoreError, StoreFormatError, WebhookLimitError, WebhookNotFoundError
from ci_eventstore.history.erasing import Eraser
from ci_eventstore.keys import Keys
from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.webhooks import store
from ci_eventstore.webhooks.store import GROUP, MAX_OF_A_USER
from tests.deployments.homes import Home
from tests.integration.webhooks.conftest import run_job, sending, until
from tests.receivers import receiver

URL = "https://a.example/hook"


async def test_a_user_has_a_few_and_a_store_some_more(
    repository: RedisJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if all are asked for at the same time; the operator has none of a user's limit."""
    monkeypatch.setattr(store, "MAX_WEBHOOKS", MAX_OF_A_USER + 2)
    webhooks = repository.engine.webhooks
    asked = [webhooks.add(URL, user_id="ada") for _ in range(MAX_OF_A_USER + 5)]
    done = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(one, WebhookLimitError) for one in done) == 5
    assert len(await webhooks.all("ada")) == MAX_OF_A_USER
    await webhooks.add(URL)
    await webhooks.add(URL, user_id="bob")
    with pytest.raises(WebhookLimitError, match="a store may have"):
        await webhooks.add(URL)


async def test_changes_at_the_same_time_are_all_made(repository: RedisJobRepository) -> None:
    """Each is decided on what is there when it is made."""
    webhooks = repository.engine.webhooks
    hook = await webhooks.add(URL)
    await asyncio.gather(
        *(webhooks.test(hook.id) for _ in range(8)), webhooks.rotate(hook.id), webhooks.enable(hook.id)
    )
    found = (await webhooks.get(hook.id)).webhook
    assert (found.tests, len(found.secrets)) == (8, 2)


async def test_others_webhooks_are_not_there(repository: RedisJobRepository) -> None:
    """Neither to be seen nor to be changed."""
    webhooks = repository.engine.webhooks
    hook, all_jobs = await webhooks.add(URL, user_id="ada"), await webhooks.add(URL)
    for webhook_id in (hook.id, all_jobs.id, "none"):
        for change in (webhooks.get, webhooks.delete, webhooks.enable, webhooks.rotate, webhooks.test):
            with pytest.raises(WebhookNotFoundError, match=webhook_id):
                await change(webhook_id, "bob")
    assert await webhooks.all("bob") == []
    assert [listed.webhook.id for listed in await webhooks.all()] == [hook.id, all_jobs.id]
    for url, events in (("ftp://a.example/", []), (URL, ["job.finished"])):
        with pytest.raises(InvalidArgumentError):
            await webhooks.add(url, events=events)


async def test_one_that_can_not_be_read_disturbs_no_other(
    repository: RedisJobRepository, server: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named, left out, and can be deleted; others are sent."""
    webhooks = repository.engine.webhooks
    async with receiver() as opened, sending(repository, "127.0.0.1"):
        good, bad = await webhooks.add(opened.url), await webhooks.add(opened.url)
        await server.read("HSET", "{ci:accounts}:webhooks", bad.id, "garbage")
        await server.read("HSET", f"{{ci:accounts}}:webhook-queue:{good.id}", "msg_x", "garbage")
        await webhooks.test(good.id)
        await run_job(repository, "a")

        async def are_sent() -> bool:
            return len(opened.received) >= 4

        await until(are_sent)
        with caplog.at_level(logging.WARNING):
            assert [listed.webhook.id for listed in await webhooks.all()] == [good.id]
        assert bad.id in caplog.text
        with pytest.raises(StoreFormatError, match="can't be read"):
            await webhooks.get(bad.id)
        await webhooks.delete(bad.id)
        await webhooks.delete(good.id)
    assert await server.read("EXISTS", "{ci:accounts}:webhooks", f"{{ci:accounts}}:webhook-queue:{good.id}") == 0
    assert not any(group.name == GROUP for group in await repository.engine.facts.all())


@pytest.mark.parametrize("key", ["webhooks", "webhook-sender", "webhook-queue:{}"])
async def test_a_key_of_another_type_is_named(repository: RedisJobRepository, server: Nodes, key: str) -> None:
    """Nothing is changed, and the message says which it is."""
    webhooks = repository.engine.webhooks
    hook = await webhooks.add(URL)
    name = f"{{ci:accounts}}:{key.format(hook.id)}"
    await server.read("SET", name, "no hash")
    if "queue" in key:
        assert [listed.waiting for listed in await webhooks.all()] == [0]
    with pytest.raises(StoreError, match=r"another type|wrong kind"):
        await webhooks.add(URL) if key == "webhooks" else await webhooks.delete(hook.id)
    await server.read("DEL", name)


async def test_whoever_only_reads_sends_nothing(
    repository: RedisJobRepository, valkey: Home, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says so, and others may send."""
    async with RedisJobRepository.from_url(valkey.url, access="read") as reader, sending(reader) as task:
        await asyncio.wait_for(task, 30)
    assert "opened for reading" in caplog.text


async def test_erasing_a_user_takes_webhooks_along(repository: RedisJobRepository, keys: Keys) -> None:
    """With what waits for them; nobody adds one meanwhile, and others keep theirs."""
    webhooks, nodes = repository.engine.webhooks, repository.engine.nodes
    await repository.create_user(User(id="ada", name="Ada", email="ada@example.org", created_at=utc_now()))
    hers, his = await webhooks.add(URL, user_id="ada"), await webhooks.add(URL, user_id="bob")
    await nodes.read("HSET", f"{{ci:accounts}}:webhook-queue:{hers.id}", "msg_x", '["job.ended",1]')
    await begin_erasure(nodes, keys, "ada")
    with pytest.raises(UserNotFoundError):
        await webhooks.add(URL, user_id="ada")
    receipt = await Eraser(repository, "ada", settle_seconds=0).erase()
    assert receipt.webhooks == 1
    assert [listed.webhook.id for listed in await webhooks.all()] == [his.id]
    assert await nodes.read("EXISTS", f"{{ci:accounts}}:webhook-queue:{hers.id}") == 0
    # One whom an application knows, who has nothing but a webhook.
    assert (await Eraser(repository, "bob", settle_seconds=0).erase()).webhooks == 1
