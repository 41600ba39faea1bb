"""The program with all its imports done: a process that waits, and forks for each call of the program.

It is run with the number of a socket that leads to the tests. A message is four files: standard input, output and error
of the new process, and one that says which call it is. The answer is the new process's number, sent when nobody but the
system is its parent any more. `tests/acceptance/warm_start.py` asks.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import socket
import sys
import tempfile
import threading
import time

import ci_eventstore
from ci_eventstore.cli import main

#: Modules that libraries import while the program runs.
IMPORTED_LATE = ("asyncio.subprocess", "concurrent.futures.thread", "encodings.idna")
#: Standard streams as Python opens them.
STREAMS = ((0, "stdin", "r", "strict"), (1, "stdout", "w", "strict"), (2, "stderr", "w", "backslashreplace"))


def import_everything() -> None:
    """Import what any call of the program may need."""
    for module in pkgutil.walk_packages(ci_eventstore.__path__, "ci_eventstore."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
    for name in IMPORTED_LATE:
        importlib.import_module(name)


def fork_for_each_call(connection: socket.socket) -> bool:
    """Return True in each new process, and False once nobody can ask any more."""
    while True:
        message, files, *_ = socket.recv_fds(connection, 1, 4)
        if not message:
            return False
        reader, writer = os.pipe()
        forked = os.fork()
        if forked == 0:
            orphan = os.fork()
            if orphan == 0:
                connection.detach()
                become_the_program(*files)
                return True
            os.write(writer, str(orphan).encode())
            os._exit(0)
        os.waitpid(forked, 0)
        connection.send(os.read(reader, 16))
        for descriptor in (reader, writer, *files):
            os.close(descriptor)


def become_the_program(stdin: int, stdout: int, stderr: int, call: int) -> None:
    """Let this process look as if it had been started for this call."""
    os.setsid()
    with open(call, "rb") as file:
        arguments, environment, folder = json.load(file)
    for target, source in enumerate((stdin, stdout, stderr)):
        os.dup2(source, target)
    os.closerange(3, 64)
    for descriptor, name, mode, errors in STREAMS:
        setattr(sys, name, os.fdopen(descriptor, mode, errors=errors, closefd=False))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    time.tzset()
    tempfile.tempdir = None
    sys.argv = arguments
    sys.orig_argv = [sys.executable, *arguments]


def end(ending: SystemExit) -> None:
    """End this process, as Python does but for one thing: it leaves all modules as they are.

    To take them apart would touch, and so copy, all pages that they are on, which takes longer than most calls.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    # What is found here says that it wasn't closed or awaited.
    gc.collect()
    if not isinstance(ending.code, int):
        raise ending
    # What can't be written is Python's to say.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ending.code)


if __name__ == "__main__":
    import_everything()
    gc.collect()
    # A collection that touched all these objects would copy the pages that they are on.
    gc.freeze()
    if fork_for_each_call(socket.socket(fileno=int(sys.argv[1]))):
        try:
            main()
        except SystemExit as ending:
            end(ending)
