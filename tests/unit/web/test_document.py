"""What `/openapi.json` says, wherever the routes are."""

import warnings
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.routing import APIRoute

from ci_eventstore.repository import RedisJobRepository
from ci_eventstore.web import EVERYTHING, WebSettings, create_app, create_router


@pytest.fixture
def repository() -> RedisJobRepository:
    return RedisJobRepository.from_url("redis://nowhere")


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return all operations by their ids."""
    found = [operation for path in document["paths"].values() for operation in path.values()]
    by_id = {operation["operationId"]: operation for operation in found}
    assert len(by_id) == len(found)
    return by_id


def test_the_document_has_what_clients_need(repository: RedisJobRepository) -> None:
    """Ids of their own, bodies, answers and errors in their shapes, and two ways to say who asks."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        document = create_app(repository).openapi()
    found = operations(document)
    assert {"create_job", "show_job", "list_events", "stream_job", "read_log", "cancel_job", "login"} <= set(found)
    assert set(found["create_job"]["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert set(found["login"]["requestBody"]["content"]) == {"application/json", "application/x-www-form-urlencoded"}
    assert found["cancel_job"]["requestBody"]["required"] is False
    assert found["show_job"]["security"] == [{"key": []}, {"session": []}]
    assert all("security" not in found[name] for name in ("health", "ready", "metrics", "login"))
    assert list(found["stream_job"]["responses"]["200"]["content"]) == ["text/event-stream"]
    assert list(found["read_log"]["responses"]["206"]["content"]) == ["text/plain"]
    error = {"$ref": "#/components/schemas/ErrorAnswer"}
    for name, operation in found.items():
        for status, answer in operation["responses"].items():
            if status[0] in "45" and status != "4XX":
                assert answer["content"]["application/json"]["schema"] == error, (name, status)
        assert {"413", "500"} <= set(operation["responses"])
    assert "HTTPValidationError" not in document["components"]["schemas"]


@pytest.mark.parametrize(
    ("queues", "schema"),
    [(frozenset({"b", "a"}), {"enum": ["a", "b"]}), (frozenset({"default"}), {"enum": ["default"]}), (None, {})],
)
def test_a_users_queues_are_in_the_document(
    repository: RedisJobRepository, queues: frozenset[str] | None, schema: dict[str, Any]
) -> None:
    """Those that a setting names, or any."""
    found = operations(create_app(repository, settings=WebSettings(queues=queues)).openapi())
    for content in found["create_job"]["requestBody"]["content"].values():
        queue = content["schema"]["properties"]["queue"]
        assert schema.items() <= queue.items()
        assert ("default" in queue) == (queues is None or "default" in queues)


def test_an_applications_own_users_are_its_own(repository: RedisJobRepository) -> None:
    """Its document has the routes under its prefix, without keys and sessions."""

    async def authenticate(request: Request) -> Any:
        return EVERYTHING

    app = FastAPI()
    app.include_router(create_router(repository, authenticate=authenticate), prefix="/ci")
    document = app.openapi()
    assert "/ci/jobs/{job_id}" in document["paths"]
    assert "securitySchemes" not in document["components"]
    assert "login" not in operations(document)


def test_an_application_makes_no_route_twice(repository: RedisJobRepository) -> None:
    """It has those of its router, and they share their description of errors: to make more takes tenths of a second."""
    app = create_app(repository)
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    assert routes == app.state.router.routes
    fields = [field for route in routes for status, field in route.response_fields.items() if status == 500]
    assert len(fields) > 20
    assert len(set(map(id, fields))) == 1
