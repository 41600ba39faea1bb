"""One machine in the place of many: what containers, pods and units are told to run runs here, as processes."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.acceptance.command_line import PATIENCE_SECONDS, PROGRAM, Ended, Running
from tests.operating.images import IMAGE
from tests.servers import find_valkey, start_guard, wait_until

#: Calls Debian's client under the name that it has in Valkey's image, for the port of one service.
CLIENT = '#!/bin/sh\nexec redis-cli -p "$STAND_IN_PORT" "$@"\n'
#: Of a server of Valkey's image: what the image sets, and what this machine shares with others.
DEFAULTS = ("--bind", "127.0.0.1")


@dataclass
class Machine:
    """Runs commands in an environment of their own, with what stands for addresses, folders and programs elsewhere."""

    folder: Path
    #: By what is replaced, wherever it stands.
    replaced: dict[str, str]
    started: list[Running] = field(default_factory=list)
    guards: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def __post_init__(self) -> None:
        """Put programs where their names lead to them."""
        programs = self.folder / "bin"
        for path in (programs, self.folder / "home", self.folder / "tmp", self.folder / "var" / "lib"):
            path.mkdir(parents=True)
        (programs / "valkey-server").symlink_to(find_valkey())
        (programs / "valkey-cli").write_text(CLIENT)
        (programs / "valkey-cli").chmod(0o755)
        self.replaced = {"/var/lib": str(self.folder / "var" / "lib"), **self.replaced}

    def here(self, text: str) -> str:
        """Return a text with what is here in the place of what is elsewhere, wherever that stands as a whole."""
        olds = sorted(map(re.escape, self.replaced), key=len, reverse=True)
        return re.sub(rf"(?<![\w.])(?:{'|'.join(olds)})(?![\w.])", lambda found: self.replaced[found[0]], text)

    def _options(self, environment: Mapping[str, str]) -> dict[str, Any]:
        path = os.pathsep.join([str(self.folder / "bin"), str(PROGRAM.parent), os.environ["PATH"]])
        own = {"PATH": path, "HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp"), "LANG": "C.UTF-8"}
        given = {name: self.here(value) for name, value in environment.items() if name != "PATH"}
        return {"env": {**own, **given}, "cwd": self.folder / "home", "start_new_session": True}

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], standard_input: Path | None = None
    ) -> Running:
        """Start a command, and leave it running."""
        words = [self.here(word) for word in command]
        # Whether the first process collects others is its own affair; here it isn't the first.
        words = words[words.index("--") + 1 :] if words[0] == "tini" else words
        with (standard_input or Path(os.devnull)).open() as file:
            process = subprocess.Popen(
                words, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **self._options(environment)
            )
        running = Running(process)
        self.guards.append(start_guard(process.pid, self.folder / "nothing"))
        self.started.append(running)
        return running

    def call(self, command: Sequence[str], environment: Mapping[str, str]) -> Ended:
        """Run a command to its end."""
        words = [self.here(word) for word in command]
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=PATIENCE_SECONDS,
            **self._options(environment),
        )
        return Ended(done.returncode, done.stdout, done.stderr.decode())

    def wait_until_healthy(self, running: Running, check: Sequence[str], environment: Mapping[str, str]) -> None:
        """Ask again and again, as Docker does, whether a service is healthy."""
        command = ["sh", "-c", *check[1:]] if check[0] == "CMD-SHELL" else check[check[0] == "CMD" :]

        def is_healthy() -> bool:
            assert running.process.poll() is None, running.end()
            return self.call(command, environment).code == 0

        wait_until(is_healthy, f"the health of {running.process.args!r}", PATIENCE_SECONDS)

    def stop(self, running: Running) -> Ended:
        """End a process as an operator would."""
        running.send(signal.SIGTERM)
        return running.end()

    def remove(self) -> None:
        """Kill what is left, and remove all files."""
        for guard in self.guards:
            # Before the ids of what they guard are free for others.
            guard.kill()
            guard.communicate()
        for running in self.started:
            if running.process.poll() is None:
                os.killpg(running.process.pid, signal.SIGKILL)
            running.process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Service:
    """What a service of docker-compose.yml is told: words, variables, and how its health is found out."""

    command: Sequence[str]
    environment: Mapping[str, str]
    health_check: Sequence[str]


def ours(command: Sequence[str], environment: Mapping[str, str], health_check: Sequence[str] = ()) -> Service:
    """Return a container of this project's image."""
    words = [*IMAGE.command("ENTRYPOINT"), *command]
    return Service(words, {**IMAGE.settings, **environment}, health_check or IMAGE.health_check)


def theirs(service: Mapping[str, Any], folder: Path, port: int) -> Service:
    """Return a container of Valkey's image that keeps its data in a folder and listens on a port."""
    folder.mkdir()
    places = ("--port", str(port), "--dir", str(folder))
    check = service["healthcheck"]["test"]
    return Service([*service["command"], *DEFAULTS, *places], {"STAND_IN_PORT": str(port)}, check)
