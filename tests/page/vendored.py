"""The page's libraries: copied from `node_modules`, where npm put them by the registry's hashes.

After a version in `package.json` has changed, `python -m tests.page.vendored` copies them and records their own hashes.
Files stay as they are; icons are put into one file, each with all its shapes.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Final, TypedDict

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "node_modules"
PAGE = ROOT / "src/ci_eventstore/web/page"
RECORD = Path(__file__).with_name("vendored.json")

LIT = ("lit-html", "directive", "directive-helpers", "directives/repeat")
#: The types of a library stand beside it, where `tsc` looks for them; the wheel leaves them out.
FILES: Final[dict[str, dict[str, str]]] = {
    "lit-html": {"LICENSE": "LICENSE"} | {f"{name}{end}": f"{name}{end}" for name in LIT for end in (".js", ".d.ts")},
    "@preact/signals-core": {
        "LICENSE": "LICENSE",
        "signals-core.js": "dist/signals-core.module.js",
        "signals-core.d.ts": "dist/signals-core.d.ts",
    },
    "eventsource-parser": {"LICENSE": "LICENSE", "index.js": "dist/index.js", "index.d.ts": "dist/index.d.ts"},
    "lucide-static": {"LICENSE": "LICENSE"},
}
ICONS = (
    *("archive", "arrow-down-to-line", "arrow-left", "ban", "chevron-down", "chevron-right", "chevron-up"),
    *("chevrons-down-up", "circle-check", "circle-dashed", "circle-x", "clock", "copy", "download", "external-link"),
    *("hourglass", "info", "keyboard", "link", "list-tree", "loader-circle", "log-out", "moon", "pause", "play"),
    *("rotate-cw", "search", "settings", "sun", "sun-moon", "triangle-alert", "wifi-off", "wrap-text", "x"),
)


class Library(TypedDict):
    """What is known of a library: its version, the registry's hash of it, and the hashes of the files taken from it."""

    version: str
    integrity: str
    files: dict[str, str]


def find_folder(library: str) -> Path:
    """Return the folder of a library's files in the page."""
    return PAGE / "vendor" / library.rpartition("/")[2]


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_lock(library: str) -> tuple[str, str]:
    """Return the version of a library in the lock file, and the hash by which npm accepts it from the registry."""
    package = json.loads((ROOT / "package-lock.json").read_text())["packages"][f"node_modules/{library}"]
    return package["version"], package["integrity"]


def make_icons() -> str:
    """Return all icons as symbols of one SVG file, named as the library names them."""
    symbols = [_make_symbol(name, (MODULES / f"lucide-static/icons/{name}.svg").read_text()) for name in ICONS]
    version, _ = read_lock("lucide-static")
    head = f"<!-- @license lucide-static v{version} - ISC; see vendor/lucide-static/LICENSE -->"
    return "\n".join((head, '<svg xmlns="http://www.w3.org/2000/svg">', *symbols, "</svg>", ""))


def _make_symbol(name: str, icon: str) -> str:
    found = re.search(r"<svg(.*?)>(.*)</svg>", icon, re.DOTALL)
    if found is None:
        raise ValueError(f"the icon {name} has no svg element")
    kept = dict(re.findall(r'([\w-]+)="([^"]*)"', found[1]))
    attributes = "".join(f' {key}="{kept[key]}"' for key in kept if key not in {"class", "xmlns", "width", "height"})
    shapes = "".join(line.strip() for line in found[2].splitlines())
    return f'<symbol id="{name}"{attributes}>{shapes}</symbol>'


def write() -> None:
    """Copy all libraries and icons into the page, and record their hashes."""
    record: dict[str, Library] = {}
    for library, files in FILES.items():
        folder = find_folder(library)
        shutil.rmtree(folder, ignore_errors=True)
        for name, source in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(MODULES / library / source, folder / name)
        version, integrity = read_lock(library)
        hashes = {name: hash_file(folder / name) for name in files}
        record[library] = {"version": version, "integrity": integrity, "files": hashes}
    (PAGE / "icons.svg").write_text(make_icons())
    record["lucide-static"]["files"]["../../icons.svg"] = hash_file(PAGE / "icons.svg")
    RECORD.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    write()
