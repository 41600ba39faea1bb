"""Units for systemd: what is started can be stopped in time, and nobody but root reads the store's password."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.operating.units import UNITS, Unit, read_unit, seconds

SERVICES = {path.name: read_unit(path) for path in sorted(UNITS.glob("*.service"))}
SERVER, CONTROLLER = SERVICES["ci-eventstore-server.service"], SERVICES["ci-eventstore-controller@.service"]
STAYING = [SERVER, CONTROLLER]


@pytest.mark.parametrize("unit", SERVICES.values(), ids=list(SERVICES))
def test_the_password_is_opened_by_systemd(unit: Unit) -> None:
    """The URL comes through standard input, from a file that the service's user needn't be able to read."""
    assert unit.service("StandardInput").startswith("file:/etc/ci-eventstore/")
    command = unit.command("default")
    assert command[0] == "/opt/ci-eventstore/bin/ci-eventstore"
    assert command[command.index("--url-file") + 1] == "/dev/fd/0"
    assert unit.service("NoNewPrivileges") == "yes"
    assert unit.service("User") not in {"", "root"}


@pytest.mark.parametrize("unit", STAYING, ids=lambda unit: str(unit.name))
def test_what_stays_is_started_again_and_stopped_in_time(unit: Unit) -> None:
    """SIGTERM reaches the program alone, what is left is killed later; a crash isn't the end."""
    assert (unit.service("Type"), unit.service("KillMode"), unit.service("Restart")) == ("exec", "mixed", "always")
    assert int(unit.service("LimitNOFILE")) >= 65536
    assert unit.service("StateDirectory")


def test_a_controller_has_time_for_its_jobs() -> None:
    """It isn't killed before its grace is over; a job without memory is no reason to stop it."""
    command = CONTROLLER.command("default")
    grace = seconds(command[command.index("--grace") + 1])
    assert seconds(CONTROLLER.service("TimeoutStopSec")) > grace
    assert CONTROLLER.service("OOMPolicy") == "continue"
    assert CONTROLLER.service("User") != SERVER.service("User")
    assert CONTROLLER.service("StandardInput") != SERVER.service("StandardInput")


def test_the_server_leaves_projects_to_its_group() -> None:
    """Controllers run as another user, of the group that may read what was uploaded."""
    assert CONTROLLER.service("SupplementaryGroups") == SERVER.service("Group")
    assert SERVER.service("StateDirectory").split() == ["ci-eventstore", "ci-eventstore/files"]
    assert SERVER.settings == {"XDG_DATA_HOME": "/var/lib"}
    assert (SERVER.service("StateDirectoryMode"), SERVER.service("UMask")) == ("0750", "0027")


def test_timers_start_services() -> None:
    """Each timer has a service of its name, which runs once."""
    timers = [read_unit(path) for path in UNITS.glob("*.timer")]
    assert [timer.name for timer in timers] == ["ci-eventstore-retention.timer"]
    for timer in timers:
        assert SERVICES[timer.name.replace(".timer", ".service")].service("Type") == "oneshot"
        assert timer.values("Timer", "Persistent") == ["yes"]


@pytest.mark.needs("systemd-analyze")
def test_systemd_understands_them(tmp_path: Path) -> None:
    """It finds nothing unknown in them, once the program is where they expect it."""
    paths = []
    for path in sorted(UNITS.iterdir()):
        # An instance, since a template by itself can't be checked.
        copy = tmp_path / path.name.replace("@.", "@default.")
        copy.write_text(path.read_text().replace("/opt/ci-eventstore/bin/ci-eventstore", shutil.which("true") or ""))
        paths.append(copy)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("text", ["Type=exec", "[Service]\nType"])
def test_what_is_no_unit_is_refused(tmp_path: Path, text: str) -> None:
    """The reader passes over no line."""
    (tmp_path / "unit").write_text(text)
    with pytest.raises(ValueError, match="is no setting in a section"):
        read_unit(tmp_path / "unit")
