"""What the parts of a study's definition share: how they are read from a file, and how they say what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar

from annotated_types import Gt, Len

__all__ = [
    "TABLE_SUFFIXES",
    "Checked",
    "Label",
    "Positive",
    "Text",
    "Unfit",
    "Value",
    "Where",
    "as_tuples",
    "has_suffix",
    "stays",
    "table_file",
]

TABLE_SUFFIXES = (".json", ".csv", ".parquet")
"""Of the files that hold a table; one that is named without is looked for with each."""

Text = Annotated[str, Len(1, 10_000)]
Label = Annotated[str, Len(1, 60)]
"""A name that figures show whole."""
Positive = Annotated[float, Gt(0)]
Value = str | bool | float
"""Of a cell that sorts rows; text in any case, and true and false as CSV writes them."""
Where = Mapping[Text, Value | tuple[Value, ...]]
"""Values of a table's columns, one or several, of the rows that count."""


class Checked:
    """Base of a dataclass that is read from a file: just its fields as keys, with values of just their types."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


class Unfit(ValueError):
    """Parts that contradict each other: ``path`` leads from the object to the key that is wrong."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


def stays(file: str) -> bool:
    """Whether a path, on any system, is relative and never climbs."""
    parts = file.replace("\\", "/").split("/")
    return not (file.startswith(("/", "\\", "~")) or ".." in parts or ":" in parts[0] or "\0" in file)


def as_tuples(where: Where) -> dict[str, tuple[Value, ...]]:
    """The values by column, one or several."""
    return {column: value if isinstance(value, tuple) else (value,) for column, value in where.items()}


def has_suffix(table: str) -> bool:
    """Whether the name of a table is that of one file."""
    return PurePosixPath(table).suffix.lower() in TABLE_SUFFIXES


def table_file(table: str) -> str:
    """A file that would hold the table."""
    return table if has_suffix(table) else f"{table}{TABLE_SUFFIXES[0]}"
