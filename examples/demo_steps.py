"""What the steps of the demo are told with: headings, comparisons, calls of the program."""

import subprocess
import sys

TOOL = [sys.executable, "-m", "ci_eventstore.cli"]


def title(number: int, text: str) -> None:
    """Print the heading of a step."""
    print(f"\n\033[1m{number}. {text}\033[0m")


def expect(holds: bool, what: str) -> None:
    """Say that something is so, or end the demo with what isn't."""
    if not holds:
        print(f"   \033[31mDIFFERENT:\033[0m {what}")
        sys.exit(1)
    print(f"   \033[32mok\033[0m  {what}")


def tool(*arguments: str) -> bytes:
    """Run the command line program and return what it prints."""
    return subprocess.run([*TOOL, *arguments], check=False, stdout=subprocess.PIPE).stdout
