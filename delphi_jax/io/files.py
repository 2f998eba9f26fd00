"""One cache file (JSON, CSV or Parquet) to typed columns; whatever is wrong with it is an InputError."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delphi_jax.schema import LABEL, TEXT, VALUE, Range, Schema, row_adapter
from delphi_jax.status import InputError
from delphi_jax.tables import is_one_of
from delphi_jax.text import shown

__all__ = ["READERS", "Fault", "RawTable", "objects", "read_table", "refuse"]

_MISSING_WORDS = frozenset({"", "nan", "null", "none", "na", "n/a", "<na>"})
"""What stands for a missing value in a CSV cell, in any case."""

_MAX_FAULTS = 5


@dataclass(frozen=True, eq=False)
class RawTable:
    """Columns of one file as read: numbers with NaN, text with None, where a value is missing."""

    path: Path
    schema: Schema
    columns: dict[str, NDArray[Any]]
    """[n] each; float64 for numbers, object for text."""
    places: NDArray[np.object_]
    """[n] where each row stands in the file: "row 3" (counted from 0) or, in a CSV, "line 5"."""

    def __len__(self) -> int:
        return len(self.places)

    def where(self, keep: NDArray[np.bool_]) -> RawTable:
        """The rows where ``keep`` (bool [n]) is True."""
        columns = {name: values[keep] for name, values in self.columns.items()}
        return RawTable(self.path, self.schema, columns, self.places[keep])

    def unwanted(self) -> list[str | None]:
        """[n] why the table's filter leaves a row out; None for a row that counts."""
        reasons: list[str | None] = [None] * len(self)
        for column, values in self.schema.where.items():
            reason = f"{column} is not {' or '.join(shown(value) for value in values)}"
            for i, cell in enumerate(self.columns[column].tolist()):
                if reasons[i] is None and not is_one_of(cell, values):
                    reasons[i] = reason
        return reasons

    def counted(self) -> RawTable:
        """The rows that the table's filter keeps."""
        return self.where(np.array([reason is None for reason in self.unwanted()], dtype=np.bool_))

    def names(self) -> list[str]:
        """Each row by its name, or by its place where it has none."""
        out = self.places.tolist()
        for column in self.schema.names:
            if column in self.columns:
                out = [name or place for name, place in zip(self.columns[column].tolist(), out, strict=True)]
        return out


@dataclass(frozen=True)
class Fault:
    """One value that cannot be used."""

    place: str
    column: str
    found: object
    expected: str

    def __str__(self) -> str:
        return f"{self.place}, column {self.column!r}: found {shown(self.found)}, expected {self.expected}"


def refuse(path: Path, faults: Sequence[Fault], remedy: str) -> InputError:
    """The error that names the first few of ``faults``, how many more there are, and the way out."""
    counted = " (rows counted from 0)" if faults[0].place.startswith("row") else ""
    lines = [f"{path}: {len(faults)} value{'s' * (len(faults) != 1)} cannot be used{counted}"]
    lines += [f"  {fault}" for fault in faults[:_MAX_FAULTS]]
    if len(faults) > _MAX_FAULTS:
        lines.append(f"  and {len(faults) - _MAX_FAULTS} more")
    return InputError("\n".join([*lines, remedy]))


def read_table(path: Path, schema: Schema) -> RawTable:
    """Read one file, format by suffix, and check columns and types.

    Raises InputError where the file cannot be read or parsed, is empty, lacks a column in every row, or holds
    a value of the wrong type.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: unknown file type {path.suffix!r}; use one of {', '.join(READERS)}")
    try:
        content = path.read_bytes()
    except IsADirectoryError:
        raise InputError(f"{path}: is a directory, expected a file with the rows of {schema.table}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not content.strip():
        raise InputError(f"{path}: is empty; {_expected(schema)}")
    table = reader(path, schema, content)
    if not len(table):
        raise InputError(f"{path}: holds no rows; {_expected(schema)}")
    # Rows that do not count need no name.
    counted = table.counted()
    blank = [
        Fault(place, column, value, "a name")
        for column in schema.needed
        if schema.needed[column] == TEXT
        for place, value in zip(counted.places.tolist(), counted.columns[column].tolist(), strict=True)
        if value is None or not value.strip()
    ]
    if blank:
        raise refuse(path, blank, "Name every row, or remove it: the name tells its suite, kind and seed.")
    return table


def _read_json(path: Path, schema: Schema, content: bytes) -> RawTable:
    from pydantic import ValidationError
    from pydantic_core import from_json

    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        rows = row_adapter(schema).validate_json(content, strict=True)
    except ValidationError as error:
        _refuse_shape(path, schema, error.errors(include_url=False), lambda i: f"row {i}")
        _require_columns(path, schema, {column for row in from_json(content) for column in row})
        raise _wrong_types(path, error.errors(include_url=False), lambda i: f"row {i}") from None
    if rows and not all(any(column in row for row in rows) for column in schema.must_have):
        _require_columns(path, schema, {column for row in from_json(content) for column in row})
    return _raw_table(path, schema, rows, [f"row {i}" for i in range(len(rows))])


def _read_csv(path: Path, schema: Schema, content: bytes) -> RawTable:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: line {line} is not UTF-8 text ({error.reason}); save the file as UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[dict[str, str | None]] = []
    places: list[str] = []
    try:
        header = [column.strip() for column in next(reader)]
        marks = [mark for mark in ";\t|" if len(header) == 1 and mark in header[0]]
        if marks:
            raise InputError(
                f"{path}: line 1 holds {marks[0]!r} between its columns; save the file with commas instead"
            )
        used = [(i, column) for i, column in enumerate(header) if column in schema.columns]
        twice = sorted({column for _, column in used if header.count(column) > 1})
        if twice:
            raise InputError(f"{path}: column {twice[0]!r} stands more than once in the header; keep one of them")
        _require_columns(path, schema, header)
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise InputError(
                    f"{path}: line {reader.line_num} has {len(cells)} fields, the header has {len(header)}; "
                    "the file may be cut off, or a comma unquoted: write it again"
                )
            rows.append({column: None if _is_missing(cells[i]) else cells[i] for i, column in used})
            places.append(f"line {reader.line_num}")
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num} is not valid CSV ({error}); write the file again") from None
    return _validated(path, schema, rows, places, strict=False)


def _read_parquet(path: Path, schema: Schema, content: bytes) -> RawTable:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(
            f"{path}: reading Parquet needs pyarrow; install delphi-jax with its [parquet] extra, "
            "or save the table as JSON"
        ) from None
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        header = file.schema_arrow.names
        _require_columns(path, schema, header)
        rows = file.read(columns=[column for column in schema.columns if column in header]).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: is not a readable Parquet file ({reason}); write it again") from None
    return _validated(path, schema, rows, [f"row {i}" for i in range(len(rows))], strict=True)


READERS: dict[str, Callable[[Path, Schema, bytes], RawTable]] = {
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
"""Reader by suffix."""


def _validated(
    path: Path, schema: Schema, rows: Sequence[dict[str, Any]], places: Sequence[str], *, strict: bool
) -> RawTable:
    from pydantic import ValidationError

    try:
        checked = row_adapter(schema).validate_python(rows, strict=strict)
    except ValidationError as error:
        raise _wrong_types(path, error.errors(include_url=False), lambda i: places[i]) from None
    return _raw_table(path, schema, checked, places)


def _raw_table(path: Path, schema: Schema, rows: Sequence[dict[str, Any]], places: Sequence[str]) -> RawTable:
    columns: dict[str, NDArray[Any]] = {}
    for column, kind in schema.columns.items():
        values = [row.get(column) for row in rows]
        if isinstance(kind, Range):
            columns[column] = np.array(values, dtype=np.float64)
        elif kind == VALUE:
            columns[column] = objects(
                [v if isinstance(v, (str, bool, int, float)) and v == v else None for v in values]
            )
        else:
            columns[column] = objects([v if kind != LABEL or isinstance(v, str) else None for v in values])
    return RawTable(path, schema, columns, objects(places))


def _refuse_shape(path: Path, schema: Schema, errors: Sequence[Any], place: Callable[[int], str]) -> None:
    """Raise where the file is not JSON, or not a list of objects."""
    first = errors[0]
    if first["type"] == "json_invalid":
        raise InputError(
            f"{path}: is not valid JSON ({first['ctx']['error']}); the file may be cut off: write it again"
        )
    if first["loc"] == ():
        raise InputError(f"{path}: found {shown(first['input'])} at the top; {_expected(schema)}")
    odd = [error for error in errors if len(error["loc"]) == 1]
    if odd:
        more = f" (and {len(odd) - 1} more such rows)" if len(odd) > 1 else ""
        where = place(odd[0]["loc"][0])
        raise InputError(f"{path}: {where} is {shown(odd[0]['input'])}{more}; {_expected(schema)}")


def _wrong_types(path: Path, errors: Sequence[Any], place: Callable[[int], str]) -> InputError:
    faults = [
        Fault(
            place(error["loc"][0]),
            error["loc"][1],
            error["input"],
            "text or null" if error["type"].startswith("string") else "a number or null",
        )
        for error in errors
    ]
    return refuse(path, faults, "Write numbers as numbers, names as text, and missing values as null (empty in CSV).")


def _require_columns(path: Path, schema: Schema, present: Iterable[str]) -> None:
    there = sorted(present)
    absent = [column for column in schema.must_have if column not in there]
    if absent:
        raise InputError(
            f"{path}: no row has column{'s' * (len(absent) > 1)} {', '.join(map(repr, absent))}; "
            f"the columns there are: {', '.join(map(repr, there)) or 'none'}. Rename or add what is missing."
        )


def _expected(schema: Schema) -> str:
    columns = ", ".join(schema.must_have)
    return f"expected a list of row objects (CSV: a header and rows) with the columns {columns}"


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in _MISSING_WORDS


def objects(items: Sequence[Any]) -> NDArray[np.object_]:
    out = np.empty(len(items), dtype=object)
    out[:] = items
    return out
