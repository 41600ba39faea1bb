"""The pure parts of the page's JavaScript do what their tests say, which Node's own runner runs."""

import json
import random
from pathlib import Path

from ci_eventstore.lines.plain import plain_line
from tests.page.javascript import node

FOLDER = Path(__file__).parent
#: Beginnings, ends and whole sequences, in any order.
PIECES = [
    *"\b\t\r\x00\x07\x18\x1a\x1b\x7f\x85\x9b\x9c:?<=!~\\é3CDGKX",
    "abc ",
    "\x1b[",
    "\x1b]8;;https://a.example\x07",
]
PIECES += ["31m", "0m", "38;5;", "0K", "1K", "2K", "9999999999C", "\x1bP", "(B", "\x1b[31m", "\x1b[K", "👩‍🔧"]


def test_the_tests_in_javascript_pass() -> None:
    """All of them pass, and there are some."""
    files = sorted(FOLDER.glob("*.test.js"))
    done = node("--test", "--test-reporter=tap", *files, timeout=100)
    assert done.returncode == 0, done.stdout
    assert "\n# fail 0\n" in done.stdout
    assert len(files) >= 1


def test_server_and_page_show_the_same_text(tmp_path: Path) -> None:
    """The server searches, and the page highlights: places in a line mean the same to both."""
    known = json.loads((FOLDER / "plain_text.json").read_text())
    chance = random.Random(15)
    lines = ["".join(chance.choices(PIECES, k=chance.randrange(20))) for _ in range(3000)]
    lines += [case["raw"] for case in known]
    file = tmp_path / "lines.json"
    file.write_text(json.dumps(lines))
    done = node(FOLDER / "print_plain.js", file, timeout=100)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout) == [plain_line(line) for line in lines]
    assert [plain_line(case["raw"]) for case in known] == [case["plain"] for case in known]
