"""A controller that runs each job in a container, by the `docker` program.

    python examples/docker_controller.py IMAGE URL [PREFIX]

The container's id is the job's `container_id`. The container is removed when the job ends, is cancelled or lost; if
this program is killed, the job's next attempt on the same machine removes it.
"""

import asyncio
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from pathlib import Path

from ci_eventstore import RedisJobRepository
from ci_eventstore.controllers import ClaimedJob, Controller, ControllerSettings
from ci_eventstore.controllers.project import unpack

SETTINGS = ControllerSettings(concurrency=4, grace_seconds=60)


async def docker(*arguments: str) -> str:
    """Call docker, and return what it prints; RuntimeError, which fails the job and is in its log."""
    process = await asyncio.create_subprocess_exec("docker", *arguments, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
    out, error = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"docker {arguments[0]} failed: {error.decode(errors='replace').strip()}")
    return out.decode().strip()


async def run(claimed: ClaimedJob, image: str) -> bool:
    """Run one job in a container of its own."""
    job = claimed.job
    if job.container_id is not None:
        await claimed.write(f"[removing {job.container_id}, left by a controller that was lost]\n")
        await docker("rm", "--force", job.container_id)
    container = await docker(
        "create", "--workdir=/project", f"--label=ci-eventstore.job={job.id}", image, *job.command or []
    )
    try:
        await claimed.writer.update_status("running", container_id=container)
        if job.zip_file_path is not None:
            with tempfile.TemporaryDirectory() as folder:
                await asyncio.to_thread(unpack, Path(job.zip_file_path), Path(folder))
                await docker("cp", f"{folder}/.", f"{container}:/project")
        process = await asyncio.create_subprocess_exec(
            "docker", "start", "--attach", container, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
        )
        assert process.stdout is not None
        while piece := await process.stdout.read(65536):
            await claimed.write(piece)
        return await process.wait() == 0
    finally:
        # However it ends: by an exception, because the job is cancelled or lost, or because it is to be given back.
        await docker("rm", "--force", container)


async def main(image: str, url: str, prefix: str = "ci") -> None:
    """Run jobs until SIGTERM."""
    async with (
        RedisJobRepository.from_url(url, prefix=prefix) as repository,
        Controller(repository, settings=SETTINGS) as controller,
    ):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, controller.stop)
        print(f"controller {controller.name} takes jobs", file=sys.stderr, flush=True)
        await controller.run(lambda claimed: run(claimed, image))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
