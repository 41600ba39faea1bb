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
    """Every relative link names a file that is there."""
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_the_program_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With only its server replaced, it prints the job's two events."""
    [program] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.setattr(RedisJobRepository, "from_url", MemoryJobRepository)
    exec(compile(program, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.splitlines() == [
        "1 {'type': 'log', 'data': 'Running tests...\\n'}",
        "2 {'type': 'complete', 'success': True}",
    ]
