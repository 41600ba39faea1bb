"""Run a real command through the store, follow it from elsewhere, kill the server, delete the projections; compare.

Then two controllers run jobs of two users; one job is cancelled, one controller killed.

Everything is asserted: a difference ends it with exit code 1.
"""

import asyncio
import difflib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from demo_controllers import show_controllers
from demo_steps import TOOL, expect, title, tool

from ci_eventstore import RedisJobRepository
from ci_eventstore.connection.deployments import from_url
from ci_eventstore.connection.nodes import Nodes
from ci_eventstore.embedded import EmbeddedServer
from ci_eventstore.events.codec import decode
from ci_eventstore.events.records import Place
from ci_eventstore.keys import Keys

#: Some seconds of real output: tests of Python's own that every installation has, with colours and a progress line.
COMMAND = """{{
printf '\\033[1mrunning the tests of difflib\\033[0m\\n'
for percent in 20 40 60 80 100; do printf 'warming up %s%%\\r' $percent; sleep 0.2; done; printf '\\n'
{python} -u -m doctest -v {tests} 2>&1 | while IFS= read -r line; do printf '%s\\n' "$line"; sleep 0.005; done
printf '\\033[32mdone\\033[0m, not valid UTF-8: \\377\\n'
}} | tee {copy}"""


def run_and_follow(job_id: str, copy: Path) -> tuple[bytes, bytes]:
    """Run the command through the store and follow it from a second process; return what each of them printed.

    The command writes what it prints into a file too, past the store.
    """
    paths = {"python": sys.executable, "tests": difflib.__file__, "copy": copy}
    command = COMMAND.format(**{name: shlex.quote(str(path)) for name, path in paths.items()})
    runner = subprocess.Popen(
        [*TOOL, "run", "--id", job_id, "--name", "demo", "--", "sh", "-c", command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert runner.stderr is not None
    print("  ", runner.stderr.readline().decode().rstrip())
    follower = subprocess.Popen([*TOOL, "tail", job_id[:6]], stdout=subprocess.PIPE)
    assert follower.stdout is not None
    followed = b""
    while piece := os.read(follower.stdout.fileno(), 4096):
        followed += piece
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    printed, _ = runner.communicate()
    expect(runner.wait() == 0 and follower.wait() == 0, "the command passed, and both processes say so")
    return printed, followed


async def show_raw(url: str, job_id: str) -> None:
    """Show a few entries of the job's stream, and its hash."""
    nodes, keys = Nodes(from_url(url)), Keys("ci").job(job_id)
    entries = await nodes.read("XRANGE", keys.stream, "-", "+")
    print(f"   {keys.stream}: {len(entries)} entries")
    for stream_id, (_, payload) in [*entries[:5], *entries[-3:]]:
        record = decode(payload, Place.parse(stream_id).position)
        print(f"   {stream_id.decode():>6}  {record.type:<12} {len(payload):>5} bytes  {str(record)[:70]}…")
    print(f"   {keys.hash}:")
    flat = await nodes.read("HGETALL", keys.hash)
    for name, value in zip(flat[::2], flat[1::2], strict=True):
        print(f"   {name.decode():>20} = {value.decode()[:70].splitlines()[0] if value else ''}")
    await nodes.close()


async def kill_server(url: str) -> int:
    """End the server as `kill -9` does, and return its process id."""
    nodes = Nodes(from_url(url))
    pid = int((await nodes.all[0].info())["process_id"])
    os.kill(pid, signal.SIGKILL)
    await nodes.close()
    return pid


async def delete_projections(url: str) -> int:
    """Delete every job hash and every index, and return how many keys that were."""
    nodes, deleted = Nodes(from_url(url)), 0
    for kind in ("job:", "jobs:", "owned:", "ids", "index:"):
        for page in [page async for page in nodes.scan(f"{{ci:0}}:{kind}*")]:
            deleted += await nodes.read("DEL", *page) if page else 0
    await nodes.close()
    return deleted


async def main(directory: Path) -> None:
    """Do it step by step."""
    url, job_id = f"embedded://{directory}", "demo-0001"
    os.environ["CI_EVENTSTORE_URL"] = url
    os.environ.pop("CI_EVENTSTORE_PREFIX", None)
    keeper = EmbeddedServer(directory)

    title(1, "A server of its own starts, because somebody wants to use it")
    keeper.ensure_running()
    print(f"   {url}\n   listens on {keeper.socket_path}")

    title(2, "A real command runs through the store; this is what a second process sees of it, live")
    copy = directory.with_name("printed")
    shown, followed = run_and_follow(job_id, copy)
    printed = copy.read_bytes()
    expect(printed != b"" and shown == printed, f"run showed what the command printed ({len(printed)} bytes)")
    expect(followed == printed, "the follower saw the same, byte for byte")

    title(3, "What the store holds: a stream of events and facts, and the hash made from it")
    await show_raw(url, job_id)

    title(4, "The server is killed hard; the next command starts it again")
    print(f"   killed process {await kill_server(url)}")
    expect(tool("tail", job_id, "--no-follow") == printed, "the log is what was printed")
    print(tool("jobs", "list").decode(), end="")

    title(5, "Every hash and index is deleted, and made again from the stream")
    async with RedisJobRepository.from_url(url) as repository:
        before = await repository.get_job(job_id)
        print(f"   deleted {await delete_projections(url)} keys")
        expect(await repository.verify() != [], "verify finds that they are missing")
        await repository.rebuild()
        expect(await repository.verify() == [], "after rebuild, verify finds no difference")
        expect(await repository.get_job(job_id) == before, "the job is what it was")

    title(6, "Two controllers run jobs of two users, from two queues; one job is cancelled, one controller is killed")
    await show_controllers(url, directory.parent)
    keeper.release()

    title(7, "Now you")
    print("   .venv/bin/ci-eventstore demo                   # a page with jobs to look at")
    print("   .venv/bin/ci-eventstore run -- make check      # in one terminal")
    print("   .venv/bin/ci-eventstore tail <its id>          # in another")
    print("   .venv/bin/ci-eventstore controller             # runs what others submit:")
    print("   .venv/bin/ci-eventstore submit --dir . -- make check")
    print("   .venv/bin/ci-eventstore jobs list")
    print("   README.md says how to use it from a program.")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="ci-eventstore-demo-") as folder:
        asyncio.run(main(Path(folder) / "data"))
