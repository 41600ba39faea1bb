"""Help texts that stay as they were written."""


def literally(*lines: str) -> str:
    """Return a paragraph whose lines click doesn't join."""
    return "\n".join(("\b", *lines))


def examples(*commands: str) -> str:
    """Return the examples that end a command's help."""
    return literally("Examples:", *(f"  ci-eventstore {command}" for command in commands))
