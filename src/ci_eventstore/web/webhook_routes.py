"""Routes of webhooks: users register their own; a caller who may see all jobs, any."""

from collections.abc import Callable
from functools import partial
from types import GenericAlias
from typing import Annotated, Any

from fastapi import Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ci_eventstore.web.context import Web
from ci_eventstore.web.document import ASKED, ID_SCHEMA, answers, body
from ci_eventstore.web.errors import invalid
from ci_eventstore.webhooks.addresses import check_reachable, networks_of
from ci_eventstore.webhooks.store import WebhookStore
from ci_eventstore.webhooks.webhook import DEFAULT_EVENTS, EVENTS, MAX_URL_LENGTH, URL_PATTERN, Webhook, checked_url

WebhookId = Annotated[str, Path(description="The webhook's id.", json_schema_extra=dict(ID_SCHEMA))]


class WebhookRequest(BaseModel):
    """Where to send what."""

    model_config = ConfigDict(extra="forbid")

    #: `checked_url` checks it, and says what is wrong more readably than a pattern does.
    url: Annotated[
        str,
        Field(
            description="https, or http where that is allowed",
            json_schema_extra={"maxLength": MAX_URL_LENGTH, "pattern": URL_PATTERN},
        ),
    ]
    events: Annotated[
        list[str],
        Field(default=list(DEFAULT_EVENTS), json_schema_extra={"items": {"type": "string", "enum": list(EVENTS)}}),
    ]


class NoticeAnswer(BaseModel):
    """Something that the webhook's owner has to know."""

    at: str
    text: str


class WebhookAnswer(BaseModel):
    """A webhook, and how sending goes; more keys may follow."""

    id: str
    url: str
    user_id: Annotated[str | None, Field(description="whose jobs it is about; null: all jobs")]
    events: list[str]
    created_at: str
    disabled_at: Annotated[str | None, Field(description="null: it is enabled")]
    failing_since: Annotated[str | None, Field(description="null: the last try was good")]
    failures: Annotated[int, Field(description="how many tries have failed since the last good one")]
    last_error: str | None
    waiting: Annotated[int, Field(description="how many messages are still to be sent")]
    notices: list[NoticeAnswer]


class SecretAnswer(WebhookAnswer):
    """A webhook with its secret, which nothing shows again."""

    secret: str


class WebhookRoutes:
    """The routes under `/webhooks`."""

    #: What the document says of a registration's body.
    BODY = body(json=WebhookRequest.model_json_schema())

    def __init__(self, web: Web) -> None:
        self._web = web
        self._allowed = networks_of(web.settings.webhook_allow)

    async def list_webhooks(self, request: Request) -> list[dict[str, Any]]:
        """List webhooks, the oldest first."""
        store, user_id = await self._asked(request)
        return [listed.webhook.to_json(listed.waiting) for listed in await store.all(user_id)]

    async def create(self, request: Request) -> Response:
        """Have what happens to the caller's jobs sent to an address; the answer has the secret that signs it."""
        store, user_id = await self._asked(request)
        try:
            asked = WebhookRequest.model_validate_json(await request.body())
        except ValidationError as error:
            raise invalid(error.errors()) from None
        check_reachable(checked_url(asked.url), self._allowed)
        made = await store.add(asked.url, user_id=user_id, events=asked.events)
        return JSONResponse(_with_secret(made), 201, {"Location": f"{request.url.path}/{made.id}"})

    async def show(self, request: Request, webhook_id: WebhookId) -> dict[str, Any]:
        """Show a webhook, and how sending goes."""
        store, user_id = await self._asked(request)
        listed = await store.get(webhook_id, user_id)
        return listed.webhook.to_json(listed.waiting)

    async def delete(self, request: Request, webhook_id: WebhookId) -> Response:
        """Delete a webhook, with all that waits for it."""
        store, user_id = await self._asked(request)
        await store.delete(webhook_id, user_id)
        return Response(status_code=204)

    async def enable(self, request: Request, webhook_id: WebhookId) -> dict[str, Any]:
        """Send again what waits for a webhook, and what happens from now on."""
        store, user_id = await self._asked(request)
        await store.enable(webhook_id, user_id)
        return await self.show(request, webhook_id)

    async def rotate(self, request: Request, webhook_id: WebhookId) -> dict[str, Any]:
        """Give a webhook another secret; the one before goes on to sign for a day."""
        store, user_id = await self._asked(request)
        return _with_secret(await store.rotate(webhook_id, user_id))

    async def test(self, request: Request, webhook_id: WebhookId) -> dict[str, Any]:
        """Have a test message sent."""
        store, user_id = await self._asked(request)
        await store.test(webhook_id, user_id)
        return await self.show(request, webhook_id)

    async def _asked(self, request: Request) -> tuple[WebhookStore, str | None]:
        caller = await self._web.caller(request)
        return self._web.engine.webhooks, caller.user_id


def _with_secret(webhook: Webhook) -> dict[str, Any]:
    return {**webhook.to_json(0), "secret": webhook.secrets[0].text}


def add_webhooks(add: Callable[..., None], web: Web) -> None:
    """Add the routes of webhooks."""
    routes, one = WebhookRoutes(web), answers(WebhookAnswer, *ASKED, 404)
    add(
        "GET", "/webhooks", routes.list_webhooks, "list_webhooks", answers(GenericAlias(list, (WebhookAnswer,)), *ASKED)
    )
    created = answers(SecretAnswer, *ASKED, 404, 409, status=201)
    add(
        "POST", "/webhooks", routes.create, "create_webhook", created, status_code=201, openapi_extra=WebhookRoutes.BODY
    )
    path = "/webhooks/{webhook_id}"
    add("GET", path, routes.show, "show_webhook", one)
    deleted = answers(None, *ASKED, 404, status=204, says="It is gone")
    add("DELETE", path, routes.delete, "delete_webhook", deleted, status_code=204, response_class=Response)
    post = partial(add, "POST")
    post(f"{path}/enable", routes.enable, "enable_webhook", one)
    post(f"{path}/rotate", routes.rotate, "rotate_webhook", answers(SecretAnswer, *ASKED, 404))
    post(f"{path}/test", routes.test, "test_webhook", one)
