"""A new field of a job is one line in the model and one in the table: then everyone has it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import RealServer, find_valkey

SRC = Path(__file__).parents[2] / "src"
#: What somebody writes who adds fields: after which line of which file.
ADDED = (
    (
        "ci_common/models.py",
        "    signal: str | None = None\n\n\n@dataclass(frozen=True, kw_only=True)\nclass Job(",
        "    signal: str | None = None\n    branch: str | None = None\n    priority: int = 3\n"
        "\n\n@dataclass(frozen=True, kw_only=True)\nclass Job(",
    ),
    (
        "ci_eventstore/job_fields.py",
        "}\n#: The names alone",
        '    "branch": JobField(str, "branch", is_public=True, about="of the project"),\n'
        '    "priority": JobField(int, "priority"),\n}\n#: The names alone',
    ),
)
#: Runs with these sources, and prints what it sees.
PROGRAM = """
import asyncio, json, sys

import httpx
from ci_common.models import Job
from ci_eventstore import RedisJobRepository
from ci_eventstore.controllers import Controller
from ci_eventstore.events.codec import decode
from ci_eventstore.web import create_app
from ci_eventstore.web.authentication import this_machine_sees_everything

URL = sys.argv[1]


async def main():
    seen = {}
    async with RedisJobRepository.from_url(URL) as repository:
        for job_id, status in (("a", "queued"), ("b", "running")):
            await repository.create_job(Job(id=job_id, status=status, branch="main", priority=7))
        await repository.create_job(Job(id="c", status="queued"))
        nodes, keys = repository.engine.nodes, [repository.engine.keys.job(name) for name in "abc"]
        entries = [await nodes.read("XRANGE", job.stream, "-", "+", "COUNT", 1) for job in keys]
        facts = [decode(entry[0][1][1], 0).fields for entry in entries]
        seen["facts"] = [[fact.get("branch"), fact.get("priority")] for fact in facts]
        hashes = [await nodes.read("HMGET", job.hash, "branch", "priority") for job in keys]
        seen["hashes"] = [[text and text.decode() for text in found] for found in hashes]
        jobs = [await repository.get_job_summary(name) for name in "abc"]
        seen["jobs"] = [[job.branch, job.priority] for job in jobs]
        controller = Controller(repository)
        seen["claimed"] = []

        async def handle(claimed):
            seen["claimed"].append([claimed.job.id, claimed.job.branch, claimed.job.priority])
            if len(seen["claimed"]) == 2:
                controller.stop()

        async with controller:
            await controller.run(handle)
        seen["clean"] = await repository.verify() == []
        await nodes.read("HSET", keys[0].hash, "branch", "other")
        await nodes.read("HDEL", keys[1].hash, "priority")
        seen["verify"] = sorted(difference.place for difference in await repository.verify())
        await repository.rebuild()
        seen["rebuilt"] = await repository.verify() == []
        app = create_app(repository, authenticate=this_machine_sees_everything)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            answer = (await client.get("/jobs/a")).json()
            seen["http"] = [answer["branch"], "priority" in answer]
            shape = (await client.get("/openapi.json")).json()["components"]["schemas"]["JobAnswer"]
            seen["document"] = [shape["properties"]["branch"]["description"], "branch" in shape["required"]]
            seen["in document"] = "priority" in shape["properties"]
    print(json.dumps(seen))


asyncio.run(main())
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """The sources with two more fields."""
    copied = tmp_path / "src"
    shutil.copytree(SRC, copied, ignore=shutil.ignore_patterns("__pycache__"))
    for name, before, after in ADDED:
        text = (copied / name).read_text()
        assert text.count(before) == 1, f"{name} has changed"
        (copied / name).write_text(text.replace(before, after))
    return copied


@pytest.mark.slow  # four processes import all sources anew
def test_a_new_field_is_everywhere(sources: Path) -> None:
    """In the stream, the hash, what is claimed, `verify`, HTTP and its document, JSON and `jobs show`."""
    with RealServer(find_valkey(), "appendonly no") as server:
        environment = os.environ | {"PYTHONPATH": str(sources), "PYTHONDONTWRITEBYTECODE": "1"}

        def run(*words: str) -> str:
            command = [sys.executable, *words]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert json.loads(run("-c", PROGRAM, server.url)) == {
            "facts": [["main", 7], ["main", 7], [None, 3]],
            "hashes": [["main", "7"], ["main", "7"], [None, "3"]],
            "jobs": [["main", 7], ["main", 7], [None, 3]],
            "claimed": [["a", "main", 7], ["c", None, 3]],
            "clean": True,
            "verify": ["field branch", "field priority"],
            "rebuilt": True,
            "http": ["main", False],
            "document": ["of the project", True],
            "in document": False,
        }
        shown = run("-m", "ci_eventstore.cli", "--url", server.url, "jobs", "show", "a")
        assert ["branch", "main"] in [line.split() for line in shown.splitlines()]
        assert ["priority", "7"] in [line.split() for line in shown.splitlines()]
        as_json = json.loads(run("-m", "ci_eventstore.cli", "--url", server.url, "jobs", "list", "--json"))
        assert [[job["branch"], job["priority"]] for job in as_json] == [[None, 3], ["main", 7], ["main", 7]]
