"""The contract suite, over every deployment."""

from collections import Counter

from ci_common.testing import JobRepositoryContract


class TestContract(JobRepositoryContract):
    """All of it; the fixture `repository` says on what."""


def test_no_part_of_the_suite_hides_another() -> None:
    """Every test has a name of its own, so that joining the parts loses none."""
    names = Counter(name for part in JobRepositoryContract.__mro__ for name in vars(part) if name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []
