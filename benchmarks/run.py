"""Measure everything, one server after the other."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.appending import Appending
from benchmarks.coding import coding_rows
from benchmarks.compression import compression_lines
from benchmarks.log_writing import LogWriting
from benchmarks.masking import Masking
from benchmarks.memory import memory_rows
from benchmarks.partitions import partition_rows
from benchmarks.reading import reading_rows
from benchmarks.results import Report, Section
from benchmarks.scale import QUICK, Scale
from benchmarks.servers import FILE_SETTINGS, running, server_binaries
from benchmarks.sides import Sides, open_sides
from benchmarks.verifying import verifying_rows

#: Reading and memory are measured, and the targets are set, without the file.
_WITHOUT_FILE = next(iter(FILE_SETTINGS))


async def run(scale: Scale, *, tcp: bool = False) -> Report:
    """Measure on every server and with every setting of the append-only file, then the codec alone."""
    places = [(binary, setting) for binary in server_binaries() for setting in FILE_SETTINGS]
    setting, masking = _setting(scale, tcp=tcp), Masking(scale)
    sections = [await _on_server(binary, setting, scale, masking, tcp=tcp) for binary, setting in places]
    sections.append(Section("codec alone", await coding_rows(scale)))
    sections.append(Section("masker alone", await masking.rows()))
    return Report(setting, sections, compression_lines(scale))


async def _on_server(binary: Path, file_setting: str, scale: Scale, masking: Masking, *, tcp: bool) -> Section:
    with running(binary, file_setting, tcp=tcp) as url:
        async with open_sides(url, scale) as sides:
            is_without_file = file_setting == _WITHOUT_FILE
            rows = await Appending(sides).rows(has_targets=is_without_file)
            if is_without_file:
                rows += await reading_rows(sides) + await memory_rows(sides)
                rows += await verifying_rows(sides, url, has_targets=scale != QUICK)
                rows += await partition_rows(url, scale)
                writing = LogWriting(sides)
                rows += await writing.speed_rows(has_targets=scale != QUICK) + await writing.memory_rows()
                rows += await masking.writer_rows(sides)
            return Section(f"{await _server_name(sides)}, {file_setting}", rows)


async def _server_name(sides: Sides) -> str:
    info = await sides.info("server")
    name = info.get("server_name", "redis")
    return f"{name} {info[f'{name}_version']}"


def machine_setting(*packages: str) -> dict[str, str]:
    """Return when and on what this runs, with the versions of packages."""
    load, *_ = os.getloadavg()
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return {
        "When": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Python": f"{platform.python_version()}, {versions}",
        "Machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, load {load:.1f} at the start",
    }


def _setting(scale: Scale, *, tcp: bool) -> dict[str, str]:
    return {
        **machine_setting("redis", "hiredis", "msgpack", "zstandard"),
        "Connections": "TCP, loopback" if tcp else "Unix socket",
        "Rounds": str(scale.rounds) if scale != QUICK else "one, and so short that the figures say nothing",
    }
