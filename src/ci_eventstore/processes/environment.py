"""The variables that commands are started with. Pure."""

from collections.abc import Iterable, Mapping

#: What this program is told by variables that begin so: above all, where the store is, and with which password.
OWN_PREFIX = "CI_EVENTSTORE_"


def without_own(
    environment: Mapping[str, str], withheld: Iterable[str] = (), passed: Iterable[str] = ()
) -> dict[str, str]:
    """Return an environment without what this program is told by it, and without some more variables.

    Those that are to be passed on stay, whatever they are.
    """
    kept, hidden = set(passed), set(withheld)
    return {
        name: value
        for name, value in environment.items()
        if name in kept or not (name in hidden or name.startswith(OWN_PREFIX))
    }
