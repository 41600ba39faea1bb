"""What `docs/page.md` says of the page names the tests that check it, which are there; its keys are the page's."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/page.md").read_text()
TESTS = ROOT / "tests/page"


def rows(heading: str) -> dict[str, list[str]]:
    """Return the rows of the table below a heading, by their first cells."""
    section = re.split(r"^## ", PAGE.partition(f"## {heading}\n")[2], flags=re.MULTILINE)[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    return {first: rest for first, *rest in cells if first.strip("-")}


def test_each_claim_beside_other_viewers_names_its_tests() -> None:
    """Each feature that ours has, whole or in part."""
    claimed = {name for name, (ours, *_) in rows("Beside other viewers").items() if "Y" in ours or "P" in ours}
    assert len(claimed) > 20
    assert claimed - set(rows("What checks it")) == set()


def test_each_point_about_a_log_names_its_tests() -> None:
    """Those that begin with a word in bold."""
    points = {point.lower().rstrip(".") for point in re.findall(r"^- \*\*(.+?)\*\*", PAGE, flags=re.MULTILINE)}
    assert len(points) > 10
    assert points - set(rows("What checks it")) == set()


def test_the_keys_are_those_of_the_page() -> None:
    """All of them, in order, each with the words that the page's own list has for it."""
    keys = (ROOT / "src/ci_eventstore/web/page/js/job/keys.js").read_text()
    listed = re.findall(r'\{ keys: \["(.+?)"\], command: "\w+", about: "(.+?)" \}', keys)
    assert len(listed) > 10
    told = {key: about for key, (about,) in rows("Keys").items() if key.startswith("`")}
    assert list(told) == [f"`{key}`" for key, _ in listed]
    for key, about in listed:
        assert told[f"`{key}`"].startswith(about[0].lower() + about[1:]), key


def test_the_tests_that_are_named_are_there() -> None:
    """Each row names at least one of Chromium or Node; none was renamed or removed."""
    sources = "".join(path.read_text() for path in TESTS.parent.rglob("test_*.py"))
    in_python = set(re.findall(r"def (test_\w+)\(", sources))
    for claim, (named,) in rows("What checks it").items():
        python = re.findall(r"`(test_\w+)`", named)
        node = re.findall(r"`(\w+\.test\.js)` “([^”]+)”", named)
        assert python + node, claim
        assert set(python) <= in_python, claim
        for file, title in node:
            assert f'test("{title}"' in (TESTS / file).read_text(), (claim, title)
