"""Tell what a machine can't do from what a job can't. Pure."""

import errno

from ci_eventstore.errors import MachineError

#: For want of files, processes, memory or disk; another machine may well be able to.
MACHINE_ERRORS = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.EAGAIN,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
    }
)


def raise_machine_error(what: str, error: OSError) -> None:
    """Raise MachineError if an error is the machine's; return if it is the job's."""
    if error.errno in MACHINE_ERRORS:
        raise machine_error(what, error) from error


def machine_error(what: str, error: OSError) -> MachineError:
    """Return the error that says what this machine can't do, and why."""
    return MachineError(f"{what}: {error.strerror or error}")
