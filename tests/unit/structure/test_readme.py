"""The README's program runs, its links lead somewhere, and it stays short."""

import re
from pathlib import Path

import pytest

from ci_common import MemoryJobRepository
from ci_eventstore import RedisJobRepository

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_readme_is_short() -> None:
    """House style: 150 lines at most."""
    assert README.count("\n") <= 150


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link names a file that is there, and a heading of it."""
    targets = re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", document.read_text())
    found = [(document.parent / path if path else document, heading) for path, heading in targets]
    assert [path for path, _ in found if not path.exists()] == []
    assert [(path, heading) for path, heading in found if heading and heading not in headings(path)] == []


def headings(document: Path) -> set[str]:
    """Return what a document's headings are called in links."""
    found = re.findall(r"^#+ (.*)", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_the_program_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With only its server replaced, it prints the job's two events."""
    [program] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.setattr(RedisJobRepository, "from_url", MemoryJobRepository)
    exec(compile(program, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.splitlines() == [
        "1 {'type': 'log', 'data': 'Running tests...\\n'}",
        "2 {'type': 'complete', 'success': True}",
    ]
