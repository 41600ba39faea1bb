"""Errors: one root, messages that say what to do, facts as attributes."""

import inspect
import re
from typing import Any

import pytest

from ci_common import errors
from ci_common.errors import RepositoryError

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]

MESSAGES: list[tuple[RepositoryError, str, dict[str, Any]]] = [
    (errors.JobNotFoundError("j"), "there is no job 'j'", {"job_id": "j"}),
    (errors.UserNotFoundError("u"), "there is no user 'u'", {"user_id": "u"}),
    (errors.APIKeyNotFoundError("k"), "there is no API key 'k'", {"key_id": "k"}),
    (
        errors.JobAlreadyExistsError("j"),
        "there is a job 'j' already: give every job an id of its own",
        {"job_id": "j"},
    ),
    (errors.UserAlreadyExistsError("u"), "there is a user 'u' already", {"user_id": "u"}),
    (errors.EmailAlreadyExistsError("a@b"), "there is a user with the email 'a@b' already", {"email": "a@b"}),
    (
        errors.APIKeyAlreadyExistsError("k"),
        "there is an API key 'k', or one with the same hash, already",
        {"key_id": "k"},
    ),
    (
        errors.InvalidTransitionError("j", "queued", "completed", "call complete_job"),
        "job 'j' is queued and can't become completed: call complete_job",
        {"job_id": "j", "current": "queued", "requested": "completed"},
    ),
    (
        errors.ResultConflictError("j", True, False),
        "job 'j' has the result success=True already, it can't become success=False",
        {"job_id": "j", "current": True, "requested": False},
    ),
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_has_the_root(kind: type[Exception]) -> None:
    """Whoever catches RepositoryError catches them all, and each says when it is raised."""
    assert issubclass(kind, RepositoryError)
    assert re.match("Raised when |Root of ", inspect.getdoc(kind) or "")


@pytest.mark.parametrize(("error", "message", "attributes"), MESSAGES, ids=lambda value: type(value).__name__)
def test_an_error_says_what_it_is_about(error: RepositoryError, message: str, attributes: dict[str, Any]) -> None:
    """In its message as well as in its attributes."""
    assert str(error) == message
    assert vars(error) == attributes


def test_bad_arguments_are_value_errors() -> None:
    """So they can be caught by code that knows nothing of this package."""
    assert all(issubclass(kind, ValueError) for kind in CLASSES if issubclass(kind, errors.InvalidInputError))
    assert not issubclass(errors.ConflictError, ValueError)
