"""Which of a source's columns stand for the columns of a table, and the tables in the form that the reader takes."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from delphi_jax.checked import has_suffix
from delphi_jax.definition import Definition
from delphi_jax.io.files import READERS, RawTable
from delphi_jax.schema import LABEL, Range, Schema, evals_schema, externals_schema, runs_schema, sweep_schema
from delphi_jax.status import InputError

__all__ = [
    "FILE_TYPES",
    "ColumnMap",
    "Table",
    "json_table",
    "missing_values",
    "quoted",
    "schemas",
    "table_from_file",
    "table_type",
]

FILE_TYPES = ("json", "jsonl", "csv", "parquet")
"""What a table can be read from, by suffix; JSON Lines (a row object a line) are kept as JSON."""

_MAX_SHOWN = 12
_LONGEST_NAME = 120

Row = dict[str, Any]


@dataclass(frozen=True)
class ColumnMap:
    """Names in the source of one table's columns; a column that is not named here keeps its name.

    Examples:

    >>> import delphi_jax as dj
    >>> dj.ColumnMap("runs", {"loss": "eval/loss"}).sources["loss"]
    'eval/loss'
    """

    table: str = "runs"
    sources: Mapping[str, str] = field(default_factory=dict)
    """Name in the source by name in the table."""

    def schemas(self, definition: Definition) -> tuple[Schema, ...]:
        """Of all that a study reads from the table; raises ValueError where it has no such table, or column."""
        tables = schemas(definition)
        if self.table not in tables:
            raise ValueError(f"{definition.name} has no table {self.table!r} to fetch: choose from {', '.join(tables)}")
        columns = _columns(tables[self.table])
        if unknown := [column for column in self.sources if column not in columns]:
            raise ValueError(f"{self.table} has no column {unknown[0]!r}: it has {', '.join(columns)}")
        return tables[self.table]


@dataclass(frozen=True)
class Table:
    """One table as it is kept."""

    name: str
    suffix: str
    """".json", or the source's where the file is kept as it is; empty where the name has one."""
    content: bytes
    rows: int
    missing: Mapping[str, int]
    """Rows that count without a value, by needed column; they are kept."""

    @property
    def file(self) -> str:
        return self.name + self.suffix


def schemas(definition: Definition) -> dict[str, tuple[Schema, ...]]:
    """What a study reads from each of its tables, by their paths in a data folder, with or without a suffix."""
    found = [runs_schema(definition, source, file) for source in definition.runs for file in source.files]
    found += [sweep_schema(definition.sweep)] if definition.sweep is not None else []
    found += [make(task) for task in definition.tasks for make in (evals_schema, externals_schema)]
    tables: dict[str, tuple[Schema, ...]] = {}
    for schema in found:
        # A name with a backslash is a path on some systems alone.
        if "\\" not in schema.table:
            tables[schema.table] = (*tables.get(schema.table, ()), schema)
    return tables


def table_from_file(
    content: bytes,
    file_type: str,
    columns: ColumnMap,
    read_as: Sequence[Schema],
    where: str,
    *,
    all_columns: bool = False,
) -> Table:
    """The table that the bytes of a file hold, for all that it is ``read_as``: its needed columns as JSON.

    A table whose name has a suffix stays of that type; with ``all_columns`` the file stays as it is. ``where`` names
    the source in errors. Raises ValueError for a file of another type than the table's name says, InputError for what
    the reader of a data folder would refuse, and for a mapped column that is not there.
    """
    named = PurePosixPath(columns.table).suffix.lower() if has_suffix(columns.table) else ""
    suffix = f".{file_type}"
    if file_type == "jsonl":
        lines = [line for line in content.splitlines() if line.strip()]
        content, suffix = b"[" + b",\n".join(lines) + b"]", ".json"
    if named and named != suffix:
        raise ValueError(f"the study reads {columns.table}, not a {file_type} file: name one of that type")
    if columns.sources:
        content = _RENAMERS[suffix](content, columns.sources, where)
    raws = [_read(content, suffix, schema, where) for schema in read_as]
    if not all_columns:
        select = _SELECTORS[named or ".json"]
        content, suffix = select(content, suffix, raws), named or ".json"
    return Table(columns.table, "" if named else suffix, content, len(raws[0]), missing_values(raws))


def json_table(rows: Sequence[Row], schema: Schema, where: str) -> Table:
    """The table of ``rows``, by column; raises as :func:`table_from_file`."""
    return table_from_file(_lines(rows), "json", ColumnMap(schema.table), [schema], where, all_columns=True)


def missing_values(raws: Sequence[RawTable]) -> dict[str, int]:
    """Rows that count without a value, by needed column that has such rows, over all that a table is read as."""
    counts: dict[str, int] = {}
    for raw in (raw.counted() for raw in raws):
        for column, kind in raw.schema.needed.items():
            values = raw.columns[column].tolist()
            absent = sum(math.isnan(value) for value in values) if isinstance(kind, Range) else values.count(None)
            counts[column] = counts.get(column, 0) + absent
    return {column: count for column, count in counts.items() if count}


def quoted(name: object) -> str:
    """A name from a source as text for a terminal: one line, no control characters, longer than a value."""
    text = ascii(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."


def _read(content: bytes, suffix: str, schema: Schema, where: str) -> RawTable:
    # The path only names the source in what the reader says.
    source: Any = where
    if not content.strip():
        raise InputError(f"{where}: is empty, expected a table of {schema.table}")
    raw = READERS[suffix](source, schema, content)
    if not len(raw):
        raise InputError(f"{where}: holds no rows of {schema.table}; check the source, and the filter if there is one")
    return raw


def _columns(read_as: Sequence[Schema]) -> dict[str, Range | str]:
    """Every column that is read, by kind; of several, the kind that takes more than names."""
    columns: dict[str, Range | str] = {}
    for schema in read_as:
        columns |= {column: kind for column, kind in schema.columns.items() if columns.get(column, LABEL) == LABEL}
    return columns


def _needed_json(content: bytes, suffix: str, raws: Sequence[RawTable]) -> bytes:
    """The rows with just the columns that are read; JSON and Parquet keep NaN and null apart."""
    columns = _columns([raw.schema for raw in raws])
    if suffix == ".csv":
        lists = {column: values.tolist() for raw in raws for column, values in raw.columns.items()}
        return _lines(
            [
                {column: _null_if_nan(values[i]) for column, values in lists.items() if values[i] is not None}
                for i in range(len(raws[0]))
            ]
        )
    rows = _rows_of_json(content) if suffix == ".json" else _rows_of_parquet(content, columns)
    return _lines(
        [
            {column: row[column] for column, kind in columns.items() if column in row and _kept(row[column], kind)}
            for row in rows
        ]
    )


def _needed_csv(content: bytes, suffix: str, raws: Sequence[RawTable]) -> bytes:
    """The cells of just the columns that are read, as they are."""
    columns = _columns([raw.schema for raw in raws])
    rows = [row for row in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")) if row]
    places = [i for i, column in enumerate(rows[0]) if column.strip() in columns]
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows([row[i] for i in places] for row in rows)
    return out.getvalue().encode()


def _needed_parquet(content: bytes, suffix: str, raws: Sequence[RawTable]) -> bytes:
    """Just the columns that are read, of the types that they have."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = _columns([raw.schema for raw in raws])
    file = pq.ParquetFile(pa.BufferReader(content))
    # What a writer said of all columns does not hold of these.
    table = file.read(columns=[name for name in file.schema_arrow.names if name in columns]).replace_schema_metadata()
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


_SELECTORS: dict[str, Callable[[bytes, str, Sequence[RawTable]], bytes]] = {
    ".json": _needed_json,
    ".csv": _needed_csv,
    ".parquet": _needed_parquet,
}
"""What makes a file of a type, by suffix, with just the columns that are read."""


def _kept(value: object, kind: Range | str) -> bool:
    return kind != LABEL or isinstance(value, str)


def _null_if_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _rows_of_json(content: bytes) -> list[Row]:
    from pydantic_core import from_json

    return from_json(content.removeprefix(b"\xef\xbb\xbf"))


def _rows_of_parquet(content: bytes, columns: Collection[str]) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(content))
    return file.read(columns=[name for name in file.schema_arrow.names if name in columns]).to_pylist()


def _lines(rows: Sequence[Row]) -> bytes:
    """A JSON list with one compact row per line; Infinity and NaN stay, as the reader takes them."""
    return ("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]\n").encode()


def _rename_json(content: bytes, sources: Mapping[str, str], where: str) -> bytes:
    try:
        rows = _rows_of_json(content)
    except ValueError:
        # The reader says what is wrong with it.
        return content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return content
    names = _renamed(list(dict.fromkeys(name for row in rows for name in row)), sources, where)
    return _lines([{names[name]: value for name, value in row.items() if name in names} for row in rows])


def _rename_csv(content: bytes, sources: Mapping[str, str], where: str) -> bytes:
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        return content
    if not rows:
        return content
    header = [column.strip() for column in rows[0]]
    names = _renamed(header, sources, where)
    # A column that a mapped one stands in for keeps its place, under a name that no table reads.
    header = [names.get(column, f"source {column}") for column in header]
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows([header, *rows[1:]])
    return out.getvalue().encode()


def _rename_parquet(content: bytes, sources: Mapping[str, str], where: str) -> bytes:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(pa.BufferReader(content))
    except (ImportError, OSError, ValueError):
        return content
    names = _renamed(table.column_names, sources, where)
    table = table.select(list(names)).rename_columns(list(names.values()))
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


_RENAMERS: dict[str, Callable[[bytes, Mapping[str, str], str], bytes]] = {
    ".json": _rename_json,
    ".csv": _rename_csv,
    ".parquet": _rename_parquet,
}


def _renamed(there: Sequence[str], sources: Mapping[str, str], where: str) -> dict[str, str]:
    """The name in the table of each column that stays."""
    for column, source in sources.items():
        if source not in there:
            some = ", ".join(quoted(name) for name in there[:_MAX_SHOWN])
            raise InputError(
                f"{where}: no column {quoted(source)} for {column}; the columns there are: {some or 'none'}"
                f"{' and more' if len(there) > _MAX_SHOWN else ''}. Name another with --column"
            )
    ours = {source: column for column, source in sources.items()}
    return {name: ours.get(name, name) for name in there if name in ours or name not in sources}


def table_type(path: str) -> str | None:
    """The type of the file at ``path``, or None where its suffix is of no table."""
    suffix = PurePosixPath(path).suffix.lower().removeprefix(".")
    suffix = {"ndjson": "jsonl"}.get(suffix, suffix)
    return suffix if suffix in FILE_TYPES else None
