"""The jobs of `demo`: real commands, which need nothing but this Python and a shell."""

from dataclasses import dataclass
from typing import Final

#: No controller takes jobs from it.
IDLE_QUEUE: Final = "nightly"

_DOCTESTS: Final = """
import doctest, importlib, sys
failed = 0
for name in ("collections", "difflib", "json", "statistics"):
    print(f"::group::{name}", flush=True)
    outcome = doctest.testmod(importlib.import_module(name), verbose=True)
    print("::endgroup::")
    colour = 31 if outcome.failed else 32
    print(f"\\033[{colour}m{name}: {outcome.attempted} examples, {outcome.failed} failed\\033[0m", flush=True)
    failed += outcome.failed
sys.exit(failed > 0)
"""

_COMPILING: Final = """
import pathlib, py_compile, sysconfig, time
library = pathlib.Path(sysconfig.get_path("stdlib"))
packages = ["asyncio", "concurrent", "email", "json", "logging", "unittest"]
files = {package: sorted((library / package).rglob("*.py")) for package in packages}
total, done = sum(map(len, files.values())), 0
print("\\033[1mcompiling the standard library\\033[0m, documented at https://docs.python.org/3/library/")
print("::group::compile")
for package in packages:
    print(f"::group::{package}")
    for path in files[package]:
        compiled = py_compile.compile(path, cfile=f"out/{path.relative_to(library)}c", doraise=True)
        print(f"\\r\\033[K{path.relative_to(library)} \\033[2m{pathlib.Path(compiled).stat().st_size:,} bytes\\033[0m")
        done += 1
        bar = "#" * (40 * done // total)
        print(f"\\033[36m[{bar:40}]\\033[0m {100 * done // total:3} %", end="", flush=True)
        time.sleep(0.02)
    print("\\n::endgroup::")
print("::endgroup::")
print(f"\\033[38;2;80;160;80m{done} files compiled\\033[0m")
"""

_PRICES: Final = """
def discounted(price, percent):
    return price - price * percent // 100
"""

_TEST_PRICES: Final = """
import unittest

from prices import discounted


class TestPrices(unittest.TestCase):
    def test_nothing_off(self):
        self.assertEqual(discounted(100, 0), 100)

    def test_everything_off(self):
        self.assertEqual(discounted(100, 100), 0)

    def test_cents_are_kept(self):
        self.assertEqual(discounted(9.99, 50), 4.995)
"""

_TEST_SCRIPT: Final = """
echo "::group::environment"
"$1" -VV
uname -sm
echo "::endgroup::"
echo "::group::tests"
"$1" -m unittest -v test_prices
code=$?
[ $code = 0 ] || echo "::error file=prices.py,line=2::cents are cut off"
echo "::endgroup::"
exit $code
"""

_MANY_LINES: Final = """
import itertools, pathlib, sysconfig
library = pathlib.Path(sysconfig.get_path("stdlib"))
files = (path for path in sorted(library.rglob("*.py")) if "site-packages" not in path.parts)
lines = (
    f"{path.relative_to(library)}:{number}: {line}"
    for path in files
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
)
for line in itertools.islice(lines, 200_000):
    print(line)
"""

_WATCHING: Final = """
import os, sys, time
for _ in range(int(sys.argv[1])):
    load = os.getloadavg()
    colour = 32 if load[0] < (os.cpu_count() or 1) else 33
    texts = (f"\\033[{colour}m{value:5.2f}\\033[0m" for value in load)
    print(time.strftime("%H:%M:%S"), "load", *texts, flush=True)
    time.sleep(0.5)
"""


#: The files of the project in which the commands run.
PROJECT: Final = {
    "compile.py": _COMPILING,
    "doctests.py": _DOCTESTS,
    "prices.py": _PRICES,
    "test_prices.py": _TEST_PRICES,
    "test.sh": _TEST_SCRIPT,
    "library.py": _MANY_LINES,
    "watch.py": _WATCHING,
}


@dataclass(frozen=True, slots=True)
class DemoJob:
    """A job of the demo."""

    name: str
    command: list[str]
    #: How it ends; None: not by itself.
    passes: bool | None = True
    queue: str = "default"


def demo_jobs(python: str, watched_seconds: int) -> list[DemoJob]:
    """Return the jobs in the order of their submission; the last one prints for that long. Pure."""
    return [
        DemoJob("compile", [python, "-u", "compile.py"]),
        DemoJob("unit tests", ["sh", "test.sh", python], passes=False),
        DemoJob("documentation tests", [python, "-u", "doctests.py"]),
        DemoJob("nightly build", ["make", "nightly"], passes=None, queue=IDLE_QUEUE),
        DemoJob("200,000 lines", [python, "library.py"]),
        DemoJob("load of this machine", [python, "-u", "watch.py", str(2 * watched_seconds)]),
    ]
