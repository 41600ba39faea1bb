"""The pure parts of the page's JavaScript do what their tests say, which Node's own runner runs."""

from pathlib import Path

from tests.page.javascript import node


def test_the_tests_in_javascript_pass() -> None:
    """All of them pass, and there are some."""
    files = sorted(Path(__file__).parent.glob("*.test.js"))
    done = node("--test", "--test-reporter=tap", *files, timeout=100)
    assert done.returncode == 0, done.stdout
    assert "\n# fail 0\n" in done.stdout
    assert len(files) >= 1
