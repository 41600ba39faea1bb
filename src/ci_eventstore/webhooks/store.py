"""The webhooks of a store, as their owners change them: users their own, the operator all of them."""

import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, NamedTuple

from ci_common.errors import UserNotFoundError
from ci_common.validation import check_id, optional_id
from ci_eventstore.connection.call_names import Key
from ci_eventstore.connection.nodes import Nodes, time_ms
from ci_eventstore.connection.replies import WRONG_TYPE, as_text, as_texts
from ci_eventstore.connection.scripts import load_script
from ci_eventstore.errors import FactReaderReplacedError, StoreFormatError, WebhookLimitError, WebhookNotFoundError
from ci_eventstore.facts.groups import Groups
from ci_eventstore.keys import Keys, account_key
from ci_eventstore.webhooks.webhook import Secret, Webhook, checked_events, checked_url, visible_to

logger = logging.getLogger("ci_eventstore.webhooks")

#: The group that reads facts for all webhooks.
GROUP: Final = "webhooks"
#: The most webhooks of a user, and of a store.
MAX_OF_A_USER = 10
MAX_WEBHOOKS = 200


class ChangeCall(NamedTuple):
    """What `change_webhook.lua` is called with."""

    webhooks: Key
    sender: Key
    queue: Key
    #: The record of the user whose webhook it is; of the operator's, one that never is.
    owner: Key
    id: str
    expected: str
    record: str
    #: How often webhooks had been changed when it was decided to add one.
    known: str
    limit: int


CHANGE = load_script(__package__, "change_webhook", call=ChangeCall)


class Listed(NamedTuple):
    """A webhook, and how many messages wait for it."""

    webhook: Webhook
    waiting: int


class WebhookStore:
    """All webhooks of a store."""

    def __init__(self, nodes: Nodes, keys: Keys, groups: Groups) -> None:
        self._nodes = nodes
        self._keys = keys
        self._groups = groups

    async def add(self, url: str, *, user_id: str | None = None, events: Iterable[str] = ()) -> Webhook:
        """Add a webhook for a user's jobs, or with None for all; events that happen from then on are sent.

        Its secret is shown by nothing else. InvalidArgumentError, WebhookLimitError, UserNotFoundError (a user who is
        being erased), StoreError.
        """
        wanted, owner = (checked_url(url), checked_events(events)), optional_id("user id", user_id)
        while True:
            changes = await self._nodes.read("HGET", account_key(self._keys, "webhook-sender"), "changes")
            there = [listed.webhook for listed in await self.all()]
            if owner is not None and len(visible_to(there, owner)) >= MAX_OF_A_USER:
                raise WebhookLimitError(f"a user may have {MAX_OF_A_USER} webhooks")
            if not there:
                try:
                    await self._groups.begin_here(GROUP)
                except FactReaderReplacedError:
                    # A webhook that was deleted just now took the group with it.
                    continue
            now = await time_ms(self._nodes, self._keys.store)
            webhook = Webhook(
                id=secrets.token_hex(8),
                url=wanted[0],
                user_id=owner,
                events=wanted[1],
                created_ms=now,
                enabled_ms=now,
                secrets=(Secret.new(),),
            )
            known = "0" if changes is None else as_text(changes)
            match await self._change(webhook.id, owner, "", webhook.to_text(), known):
                case b"ok":
                    return webhook
                case b"full":
                    raise WebhookLimitError(f"a store may have {MAX_WEBHOOKS} webhooks")
                case b"erasing":
                    raise UserNotFoundError(owner or "")

    async def all(self, user_id: str | None = None) -> list[Listed]:
        """Return the webhooks of a user, or with None all, the oldest first; the log names what can't be read."""
        words = as_texts(await self._nodes.read("HGETALL", account_key(self._keys, "webhooks")))
        found = []
        for webhook_id, text in zip(words[::2], words[1::2], strict=True):
            try:
                found.append(Webhook.from_text(text))
            except StoreFormatError as error:
                logger.warning("left out: webhook %s: %s", webhook_id, error)
        seen = visible_to(found, user_id)
        sizes = await self._nodes.read_many(
            [("HLEN", account_key(self._keys, "webhook-queue", one.id)) for one in seen]
        )
        return [Listed(one, 0 if size is WRONG_TYPE else size) for one, size in zip(seen, sizes, strict=True)]

    async def get(self, webhook_id: str, user_id: str | None = None) -> Listed:
        """Return a webhook; WebhookNotFoundError, also for one of another user; StoreFormatError."""
        webhook = Webhook.from_text(await self._text(webhook_id, user_id))
        return Listed(webhook, await self._nodes.read("HLEN", account_key(self._keys, "webhook-queue", webhook_id)))

    async def delete(self, webhook_id: str, user_id: str | None = None) -> None:
        """Delete a webhook with all that waits for it; WebhookNotFoundError, StoreError."""
        while await self._change(webhook_id, user_id, await self._text(webhook_id, user_id), "") != b"ok":
            pass
        if not await self._nodes.read("EXISTS", account_key(self._keys, "webhooks")):
            # Without a group, the store keeps no facts.
            await self._groups.drop_where_possible(GROUP)

    async def delete_of_user(self, user_id: str) -> int:
        """Delete all webhooks of a user; return how many it were."""
        mine = await self.all(user_id)
        for listed in mine:
            await self.delete(listed.webhook.id)
        return len(mine)

    async def enable(self, webhook_id: str, user_id: str | None = None) -> Webhook:
        """Send again what waits, and what happens from now on; as `get`."""
        return await self._alter(webhook_id, user_id, Webhook.enabled)

    async def rotate(self, webhook_id: str, user_id: str | None = None) -> Webhook:
        """Give a webhook another secret; the one before goes on to sign for a day. As `get`."""
        return await self._alter(webhook_id, user_id, Webhook.rotated)

    async def test(self, webhook_id: str, user_id: str | None = None) -> Webhook:
        """Have a test message sent; as `get`."""
        return await self._alter(webhook_id, user_id, lambda webhook, _: webhook.tested())

    async def _alter(self, webhook_id: str, user_id: str | None, change: Callable[[Webhook, int], Webhook]) -> Webhook:
        while True:
            before = await self._text(webhook_id, user_id)
            changed = change(Webhook.from_text(before), await time_ms(self._nodes, self._keys.store))
            after = replace(changed, revision=secrets.token_hex(8))
            if await self._change(webhook_id, user_id, before, after.to_text()) == b"ok":
                return after

    async def _text(self, webhook_id: str, user_id: str | None) -> str:
        """Return what stands in the store of a webhook; WebhookNotFoundError."""
        found = await self._nodes.read("HGET", account_key(self._keys, "webhooks"), check_id("webhook id", webhook_id))
        if found is None:
            raise WebhookNotFoundError(webhook_id)
        text = as_text(found)
        # Whatever can't be read is the operator's to see.
        if user_id is not None and Webhook.from_text(text).user_id != user_id:
            raise WebhookNotFoundError(webhook_id)
        return text

    async def _change(self, webhook_id: str, user_id: str | None, before: str, after: str, known: str = "0") -> bytes:
        keys = self._keys
        call = ChangeCall(
            *(
                account_key(keys, "webhooks"),
                account_key(keys, "webhook-sender"),
                account_key(keys, "webhook-queue", webhook_id),
            ),
            owner=keys.user(user_id or ""),
            id=webhook_id,
            expected=before,
            record=after,
            known=known,
            limit=MAX_WEBHOOKS,
        )
        reply: bytes = await self._nodes.run(CHANGE, *CHANGE.order(call))
        return reply
