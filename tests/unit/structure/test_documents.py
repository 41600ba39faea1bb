"""Documents are made of the code, and how they are made."""

import re
from pathlib import Path

import pytest

from tests import error_tree, key_table
from tests.documents import DOCUMENTS, with_part
from tests.unit.structure.source import ROOT


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_documents_say_what_the_code_says(path: Path) -> None:
    """`make docs` would change nothing but line breaks, which depend on the version of click."""
    assert path.read_text().split() == DOCUMENTS[path]().split(), "run `make docs`"


def test_each_decision_is_listed_once() -> None:
    """Under its number, in their order."""
    folder = ROOT / "docs/decisions"
    files = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert re.findall(r"^\| \[\d{4}\]\((\d{4}-[^)]+)\)", (folder / "README.md").read_text(), re.MULTILINE) == files


def test_a_part_of_a_page_is_made() -> None:
    """What stands around it stays, and making it twice changes nothing."""
    page = "before\n<!-- keys: made by make docs -->\nold\n<!-- end of keys -->\nafter\n"
    made = with_part(page, "keys", "new")
    assert made == "before\n<!-- keys: made by make docs -->\n\nnew\n\n<!-- end of keys -->\nafter\n"
    assert with_part(made, "keys", "new") == made
    with pytest.raises(ValueError, match="no part 'rooms'"):
        with_part(page, "rooms", "new")


class RootError(Exception):
    """Root of all."""


class LostError(RootError):
    """Raised when it is lost.

    More of it.
    """


class LongLostError(LostError, ValueError, OSError):
    """Raised when it is long lost."""


class OtherError(RootError):
    """Raised otherwise."""


def test_a_tree_is_drawn() -> None:
    """Each error below its first base, with its other ones."""
    assert error_tree.draw([RootError, LostError, LongLostError, OtherError]) == [
        "RootError",
        "├── LostError",
        "│   └── LongLostError (also a ValueError, an OSError)",
        "└── OtherError",
    ]
    assert error_tree.first_sentence(LostError) == "Raised when it is lost."


def test_a_tree_of_another_modules_errors_has_their_names() -> None:
    """A parent that is none of them stands above its children."""
    assert error_tree.draw([LongLostError, OtherError]) == [
        "RootError",
        "├── LostError",
        "│   └── LongLostError (also a ValueError, an OSError)",
        "└── OtherError",
    ]


def test_only_the_tree_of_a_docstring_is_drawn_anew() -> None:
    """Text before it and after it stays, and so does what is indented in the code."""
    source = '"""Head.\n\n    Old\n    └── Older\n\nTail.\n"""\n\nif True:\n    pass\n'
    drawn = error_tree.with_tree(source, [RootError, OtherError])
    assert drawn == source.replace("    Old\n    └── Older\n", "    RootError\n    └── OtherError\n")
    with pytest.raises(ValueError, match="draws no tree"):
        error_tree.with_tree('"""Head."""\n', [RootError])


def test_keys_are_read_from_a_docstring() -> None:
    """Lines that are indented more belong to the key above; what is no key of a partition is left out."""
    docstring = (
        "Name keys.\n\n    {ci:0}:job:<id>    hash: the job\n    {ci:0}:index:<id>  sorted set: what stands\n"
        "                       where: in lines\n    {ci:accounts}:...  users\n\nMore: of it.\n"
    )
    assert key_table.keys_of(docstring) == [
        ("job:<id>", "hash", "the job"),
        ("index:<id>", "sorted set", "what stands where: in lines"),
    ]
    assert "| `<tag>:job:<id>` | hash | the job |" in key_table.table(docstring).splitlines()
