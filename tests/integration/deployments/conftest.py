"""Where jobs' logs that can't be stored are kept: removed with the test."""

import tempfile
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _rescue_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
