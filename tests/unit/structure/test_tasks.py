"""No task ends by an exception that nobody sees: whoever starts one says who does."""

import ast
from collections.abc import Iterator, Mapping

from tests.unit.structure.source import Module, source_modules

#: Functions that start a task by themselves, with who sees the error that ends it. All others go through
#: `tasks.begin`, which logs it, or are a `TaskGroup`'s.
OWNERS: Mapping[str, str] = {
    "ci_eventstore.cli.history:until_stopped": "whoever waits for it in the same function",
    "ci_eventstore.queues.holders:watched": "nobody: the loop logs it, and goes on",
    "ci_eventstore.queues.lost_jobs:watch": "nobody: the loop logs it, and lets go of the job",
    "ci_eventstore.controllers.command_handler:__init__": "`is_over_within`, `raise_failure` and `_execute`",
    "ci_eventstore.controllers.command_handler:_unpack": "whoever waits for it in the same function",
    "ci_eventstore.controllers.handlers:_grace": "nobody: waiting for an event can't fail",
    "ci_eventstore.controllers.handlers:begin": "nobody: it logs what its handler and its job raise",
    "ci_eventstore.controllers.intake:ask_ahead": "nobody: it logs what the store says; the rest is `find`'s",
    "ci_eventstore.events.archived_log:once": "those who wait for it",
    "ci_eventstore.events.lanes:do": "those who wait for their answers",
    "ci_eventstore.events.lanes:put": "those who wait for their answers",
    "ci_eventstore.lines.passages:_begin": "whoever reads the next page, or closes the reading",
    "ci_eventstore.history.freezing:frozen": "whoever leaves the block",
    "ci_eventstore.following.hub:_open": "nobody: the loop logs it, and goes on",
    "ci_eventstore.following.job_reader:start": "the followers of its feed",
    "ci_eventstore.following.job_reader:read": "those who wait for the page",
    "ci_eventstore.tasks:together": "whoever waits for it in the same function",
    "ci_eventstore.tasks:finish": "whoever waits for it in the same function",
    "ci_eventstore.tasks:begin": "the log",
    "ci_eventstore.connection.exchange:set_protocol": "those who wait for replies",
    "ci_eventstore.connection.pipeline:_send": "those who wait for replies",
    "ci_eventstore.connection.subscription:_start_sender": "nobody: it logs it, and the reader begins again",
    "ci_eventstore.connection.subscription:listen": "nobody: the loop logs it, and goes on",
    "ci_eventstore.web.streams.response:_ends_when_gone": "nobody: it logs it, and ends the stream",
    "ci_eventstore.writer.log_writer:open": "whoever writes next: a callback notes how the sender has ended",
}
STARTERS = frozenset({"create_task", "ensure_future"})


def starts(module: Module) -> Iterator[str]:
    """Yield the functions of a module that start tasks, as often as they do; those of a `TaskGroup` aside."""
    for function in module.nodes:
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                target = call.func
                if isinstance(target, ast.Attribute) and target.attr in STARTERS and not _is_group(target.value):
                    yield f"{module.name}:{function.name}"


def _is_group(owner: ast.expr) -> bool:
    return isinstance(owner, ast.Name) and owner.id == "tasks"


def test_each_task_has_an_owner_that_sees_its_failure() -> None:
    """A new `create_task` needs a row in the table, or better `tasks.begin`; a row without one is out of date."""
    found = {start for module in source_modules() if "testing" not in module.name for start in starts(module)}
    assert found == set(OWNERS)
