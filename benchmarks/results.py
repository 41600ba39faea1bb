"""What was measured, and whether it reaches what design §12 asks for."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """What a row is to reach: at least, or at most, so much."""

    limit: float
    is_most: bool = False

    def is_met_by(self, value: float) -> bool:
        """Tell whether a value keeps the limit."""
        return value <= self.limit if self.is_most else value >= self.limit

    def __str__(self) -> str:
        """Return the limit as the table shows it."""
        return f"{'<=' if self.is_most else '>='} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing measured, mostly beside its peer, in rounds that took turns."""

    what: str
    unit: str
    #: A figure for each round.
    ours: Sequence[float]
    #: What ours is compared with, and its figures for the same rounds.
    peer: str = ""
    theirs: Sequence[float] = ()
    #: Of the median of the rounds' ratios; without a peer, of our figure.
    target: Target | None = None

    @property
    def ratios(self) -> list[float]:
        """Ours by theirs, for each round; empty without a peer."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)] if self.theirs else []

    @property
    def is_missed(self) -> bool:
        """Whether the row has a target and doesn't reach it."""
        return self.target is not None and not self.target.is_met_by(median(self.ratios or self.ours))

    def to_dict(self) -> dict[str, Any]:
        """Return all that is known, ready for JSON."""
        ratio = median(self.ratios) if self.ratios else None
        return {**asdict(self), "ratios": self.ratios, "ratio": ratio, "is_missed": self.is_missed}


@dataclass(frozen=True, slots=True)
class Compression:
    """What Zstandard makes of texts of one size, at one level."""

    text: str
    bytes: int
    level: int
    #: Compressed size by size.
    share: float
    write_us_per_kib: float
    read_us_per_kib: float


@dataclass(frozen=True, slots=True)
class Section:
    """The rows measured at one place: on a server with one configuration, or in this process alone."""

    title: str
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Report:
    """All results of one run."""

    #: When, on what, and the versions of all that took part, in the order in which they are shown.
    setting: dict[str, str]
    sections: Sequence[Section]
    compression: Sequence[Compression] = ()

    def missed(self) -> list[tuple[Section, Row]]:
        """Return the rows that don't reach their targets, with the sections that they stand in."""
        return [(section, row) for section in self.sections for row in section.rows if row.is_missed]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        sections = [{"title": part.title, "rows": [row.to_dict() for row in part.rows]} for part in self.sections]
        compression = [asdict(line) for line in self.compression]
        return {"setting": self.setting, "sections": sections, "compression": compression}
