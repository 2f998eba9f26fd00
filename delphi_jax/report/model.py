"""What a report holds, before it is a page: plain texts, tables and figure documents."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from delphi_jax.plots.drawers import Document
from delphi_jax.text import scientific

__all__ = [
    "Cell",
    "Column",
    "File",
    "Group",
    "Headline",
    "PageFigure",
    "Report",
    "Section",
    "Sentence",
    "Table",
    "shortened",
    "table_of",
]


_ONE_LINE = 42
"""Characters of a text that stands on one line of a table."""
_LONGEST = 160
"""Characters of a name that a reader is shown; downloads hold all of it."""


def shortened(name: str) -> str:
    """``name``, cut where it is longer than a reader takes in."""
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}… ({len(name)} characters)"


@dataclass(frozen=True)
class Column:
    name: str
    numeric: bool


@dataclass(frozen=True)
class Cell:
    shown: str
    """What a reader sees."""
    value: str
    """What is sorted by and downloaded: a number in full, a text as it is, nothing where there is none."""

    @property
    def short(self) -> bool:
        """Whether it fits on one line."""
        return len(self.shown) <= _ONE_LINE


@dataclass(frozen=True)
class Table:
    key: str
    """Name within the page, and of the downloaded file."""
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class PageFigure:
    """One figure, with its data as a table for readers who cannot see it."""

    key: str
    title: str
    reading: str
    """How to read it, and what it says here, in a sentence or two."""
    wide: Document
    mobile: Document | None
    table: Table


@dataclass(frozen=True)
class Headline:
    """One number that leads the page, never without its interval and status."""

    what: str
    of: str
    value: str
    interval: str
    status: str


@dataclass(frozen=True)
class Sentence:
    of: str
    """The suite or task that it is of; empty where it is of the study."""
    text: str


@dataclass(frozen=True)
class Group:
    """Sentences on one question."""

    title: str
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True)
class Section:
    """Figures under one heading, and why others are not there."""

    key: str
    title: str
    short: str
    """In the page's list of contents."""
    figures: tuple[PageFigure, ...]
    absent: tuple[str, ...] = ()
    """Name and reason of those whose data are missing, or that were not asked for."""
    failed: tuple[str, ...] = ()
    """Name and error of those whose builder broke: a defect of this package."""


@dataclass(frozen=True)
class File:
    """A file that was read."""

    name: str
    size: int
    """Bytes."""
    sha256: str
    recorded: str
    """Whether the folder's provenance file holds the same checksum, in words."""


@dataclass(frozen=True)
class Report:
    """A whole report."""

    title: str
    source: str
    made: str
    """Date, ISO 8601."""
    simulated: bool
    headlines: tuple[Headline, ...]
    says: tuple[Group, ...]
    headline_table: Table
    sections: tuple[Section, ...]
    tables: tuple[Table, ...]
    skipped: Table
    missing: tuple[str, ...]
    notices: tuple[str, ...]
    methods: tuple[str, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    files: Table | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    """What the data says of its own origin, by what it says it of."""
    origin: Table | None = None
    """Where each table came from."""


def table_of(key: str, title: str, rows: Iterable[Mapping[str, Any]]) -> Table:
    """``rows`` as a table; a row may lack columns that others have."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = tuple(Column(name, _is_numeric([row.get(name) for row in rows])) for name in names)
    return Table(key, title, columns, tuple(tuple(_cell(row.get(name)) for name in names) for row in rows))


def _is_numeric(values: list[Any]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(_is_number(value) for value in present)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _cell(value: Any) -> Cell:
    if value is None:
        return Cell("", "")
    if isinstance(value, (bool, np.bool_)):
        word = "yes" if value else "no"
        return Cell(word, word)
    if not _is_number(value):
        return Cell(shortened(str(value)), str(value))
    number = value.item() if isinstance(value, np.generic) else value
    if not math.isfinite(number):
        return Cell("–" if math.isnan(number) else str(number), "" if math.isnan(number) else str(number))
    return Cell(_number(number), repr(number))


def _number(value: float) -> str:
    """To five significant digits; whole numbers in full up to six."""
    if value == 0:
        return "0"
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e6):
        return str(int(value)) if abs(value) < 1e6 else scientific(value)
    if 1e-3 <= abs(value) < 1e5:
        # With its zeros at the end, so that points stand under points.
        return f"{value:#.5g}".rstrip(".")
    return scientific(value)
