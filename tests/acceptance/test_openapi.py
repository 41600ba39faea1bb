"""`/openapi.json` is true: nothing that it says is refused, and a client that is generated from it works."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.command_line import CommandLine, start_serving
from tests.acceptance.test_serve import create_key, fetch

ROOT = Path(__file__).parents[2]
CONFIGURATION = Path(__file__).with_name("openapi") / "schemathesis.toml"

#: What a program does with the generated client: it submits, follows and cancels. It knows nothing of this project.
PROGRAM = '''
import sys, time

from client import AuthenticatedClient
from client.api.default import cancel_job, create_job, list_events, list_jobs, read_log, show_job, stream_job
from client.models import CreateJobJsonSubmission, CreateJobFilesSubmissionForm, ErrorAnswer
from client.types import File

url, key = sys.argv[1:]
api = AuthenticatedClient(base_url=url, token=key, raise_on_unexpected_status=True)


def submit(seconds):
    line = f"for i in 1 2 3; do echo line $i; done; sleep {seconds}"
    return create_job.sync(client=api, body=CreateJobJsonSubmission(command=line, name="generated"))


def follow(job_id, until=lambda events: events and events[-1].type_ == "complete"):
    """Return the job's events as they come, by pages."""
    events = []
    while not until(events):
        page = list_events.sync(job_id, client=api, after=events[-1].id if events else 0)
        events += page.events
        time.sleep(0.1)
    return events


job = submit(0)
events = follow(job.job_id)
assert "".join(event.data or "" for event in events).startswith("line 1\\nline 2\\nline 3\\n"), events
assert events[-1].success is True
assert read_log.sync(job.job_id, client=api).startswith("line 1\\nline 2\\nline 3\\n")
assert show_job.sync(job.job_id, client=api).exit_code == 0

form = CreateJobFilesSubmissionForm(command=["echo", "from a form"])
sent = create_job.sync(client=api, body=form)
assert "from a form" in "".join(event.data or "" for event in follow(sent.job_id))

other = submit(600)
follow(other.job_id, lambda events: len(events) > 0)
cancel_job.sync(other.job_id, client=api)
assert follow(other.job_id)[-1].success is False
assert show_job.sync(other.job_id, client=api).status == "cancelled"
stream = stream_job.sync_detailed(other.job_id, client=api, from_beginning=True)
assert b'"type": "complete", "success": false' in stream.content, stream.content

assert {found.job_id for found in list_jobs.sync(client=api)} == {job.job_id, sent.job_id, other.job_id}
missing = show_job.sync("none", client=api)
assert isinstance(missing, ErrorAnswer) and missing.error.code == "not_found"
'''


@pytest.mark.slow  # A thousand requests to a server process.
@pytest.mark.timeout(600)
def test_schemathesis_finds_nothing(cli: CommandLine, tmp_path: Path) -> None:
    """What the document allows is accepted, what it forbids is refused, and each answer is as it says."""
    key = create_key(cli)
    # Whatever it registers as a webhook, nobody out there is sent anything.
    _, url = start_serving(cli, "--no-webhooks")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "run"]
    command += [f"{url}/openapi.json", "--header", f"Authorization: Bearer {key}", "--no-color"]
    done = run(command, tmp_path, {"PYTHONPATH": str(ROOT)})
    paths = json.loads(fetch(f"{url}/openapi.json", key))["paths"]
    assert f"Tested: {sum(map(len, paths.values()))}" in done


@pytest.mark.slow  # A generator, a server and a controller.
def test_a_generated_client_submits_follows_and_cancels(cli: CommandLine, tmp_path: Path) -> None:
    """It is made by a generator that others keep, without a warning; it is told that lines of JSON are text."""
    key = create_key(cli)
    _, url = start_serving(cli)
    document = tmp_path / "openapi.json"
    document.write_bytes(fetch(f"{url}/openapi.json", key))
    generate = [sys.executable, "-m", "openapi_python_client", "generate", "--path", str(document), "--meta", "none"]
    settings = tmp_path / "generator.yaml"
    settings.write_text("content_type_overrides: {application/x-ndjson: text/plain}\n")
    generate += ["--config", str(settings), "--fail-on-warning", "--output-path", str(tmp_path / "client")]
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    run(generate, tmp_path, path)
    controller = cli.start("controller")
    (tmp_path / "program.py").write_text(PROGRAM)
    run([sys.executable, "program.py", url, key], tmp_path, path)
    controller.send(signal.SIGINT)
    assert controller.end().code == 0


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """Run a program that has to succeed, and return what it printed."""
    done = subprocess.run(
        command, check=False, cwd=folder, env=environment, capture_output=True, timeout=590, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
