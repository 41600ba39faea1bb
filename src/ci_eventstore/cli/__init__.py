"""The command line, `ci-eventstore`: run a command as a job, follow it, look after jobs, users, keys and the store."""

import sys

try:
    from ci_eventstore.cli.program import main
except ModuleNotFoundError as missing:
    if missing.name != "click":
        raise

    def main() -> None:
        """Say what has to be installed first."""
        sys.exit("ci-eventstore: the command line needs one more package: install ci-eventstore with its extra [cli]")


__all__ = ["main"]
