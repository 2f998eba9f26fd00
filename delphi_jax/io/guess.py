"""A first study file from tables of runs: columns, units, suites, budgets and held-out runs, guessed and commented."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delphi_jax.io.files import READERS, read_table
from delphi_jax.schema import VALUE, Schema
from delphi_jax.status import InputError
from delphi_jax.tables import rounded
from delphi_jax.text import scientific, shown

__all__ = ["study_text"]

_ALIASES = {
    "name": ("name", "runname", "run", "displayname", "runid", "id"),
    "params": (
        "params",
        "parameters",
        "parametercount",
        "paramcount",
        "nparams",
        "numparams",
        "modelsize",
        "size",
        "n",
    ),
    "tokens": ("tokens", "totaltokens", "trainingtokens", "traintokens", "ntokens", "numtokens", "d"),
    "loss": ("loss", "macroloss", "evalloss", "finalloss", "validationloss", "valloss", "testloss", "trainloss"),
    "flops": ("flops", "totalflops", "totalgflops", "gflops", "trainingflop", "trainingflops", "compute", "c"),
    "budget": ("budget", "computebudget", "flopbudget", "flopsbudget", "isoflopbudget"),
    "state": ("state", "status"),
    "suite": ("suite", "experiment", "recipe", "model", "dataset", "group", "condition"),
    "held_out": ("heldout", "isheldout", "validation"),
    "seed": ("seed", "dataseed"),
}
"""What others call our columns, in lower case without punctuation, the likeliest first."""

_NUMBERS = ("params", "tokens", "loss", "flops", "budget")
_UNWANTED = ("outlier", "excluded", "exclude", "ignore", "ignored", "bad")
"""Columns of true and false that mark rows which do not count."""
_HELD_OUT = ("optimal", "held-out", "heldout", "held_out", "validation")
_UNITS = (1.0, 1e3, 1e6, 1e9, 1e12, 1e15, 1e18)
_SHORTEST_ENDING = 4
"""Letters of an alias that counts at the end of a column's name too."""
_MOST_SUITES = 12
_FEWEST_RUNS = 3
_ODD = 3.0
"""Factor by which FLOPs may differ from 6*N*D before a unit is doubted."""

Floats = NDArray[np.float64]


@dataclass
class _Table:
    """One table as it stands, and what its columns seem to be."""

    path: Path
    cells: dict[str, list[Any]]
    found: dict[str, str] = field(default_factory=dict)
    """Their column, by our name."""
    unit: float = 1.0
    derive: str = ""
    where: str = ""
    """A column of true and false that must be false."""
    notes: list[str] = field(default_factory=list)

    @property
    def layout(self) -> tuple[Any, ...]:
        return (tuple(sorted(self.found.items())), self.unit, self.derive, self.where)

    def numbers(self, ours: str) -> Floats:
        return _numbers(self.cells[self.found[ours]])

    def texts(self, ours: str) -> list[str]:
        return ["" if cell is None else str(cell) for cell in self.cells[self.found[ours]]]

    def kept(self) -> NDArray[np.bool_]:
        """Rows [n] that would count."""
        keep = np.ones(len(next(iter(self.cells.values()))), dtype=np.bool_)
        if self.where:
            keep &= np.array([_word(cell) in ("false", "0", "no") for cell in self.cells[self.where]])
        for ours in _NUMBERS:
            if ours in self.found:
                keep &= np.isfinite(self.numbers(ours))
        return keep

    def compute(self) -> Floats:
        """FLOPs [n]."""
        if self.derive == "flops":
            return 6 * self.numbers("params") * self.numbers("tokens")
        return self.unit * self.numbers("flops" if "flops" in self.found else "budget")


def study_text(paths: Sequence[Path], root: Path) -> str:
    """The text of a study file for tables of runs below ``root``, with comments on what was guessed.

    Raises InputError where a table cannot be read, or no column of it looks like one that is needed.
    """
    tables = [_understood(path) for path in paths]
    unsure = [f"{table.path.name}: {note}" for table in tables for note in table.notes]
    words = _held_out_words(tables)
    parts = [
        "# A first study file, guessed from the tables: read it, correct it, then run `delphi-jax check`.",
        *([""] + [f"# Unsure: {_comment(note)}" for note in unsure] if unsure else []),
        "",
        f"name = {_toml(root.resolve().name or 'Study')}  # what figures call the study",
        "# targets = [1e21, 1e22]  # FLOPs of the forecasts; by default the three powers of ten beyond the budgets",
        "",
        *_metric(tables[0]),
        *_runs(tables, root),
        *_suites(tables, words),
        *_held_out(tables, words),
        *_budgets(tables, words),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _understood(path: Path) -> _Table:
    table = _Table(path, _cells(path))
    for ours, aliases in _ALIASES.items():
        fitting = [
            column for column in table.cells if column not in table.found.values() and _fits(table, ours, column)
        ]
        ranked = [column for alias in aliases for column in fitting if alias in _plain(column)]
        if not ranked and ours in _NUMBERS:
            endings = tuple(alias for alias in aliases if len(alias) >= _SHORTEST_ENDING)
            ranked = [column for column in fitting if _plain(column)[0].endswith(endings)]
        if ranked:
            table.found[ours] = ranked[0]
            if len(set(ranked)) > 1:
                others = ", ".join(map(shown, dict.fromkeys(ranked[1:])))
                table.notes.append(f"{ours} is read from {shown(ranked[0])}; it might be {others}")
    _derive(table)
    if missing := [ours for ours in ("params", "tokens", "loss") if ours not in table.found and ours != table.derive]:
        columns = ", ".join(map(shown, table.cells))
        raise InputError(
            f"{path}: no column looks like {' or '.join(missing)}; the columns are {columns}. Give tables of training "
            "runs, or write the study file by hand"
        )
    flags = [
        column for column in table.cells if {_plain(column)[-1]} & set(_UNWANTED) and _is_flag(table.cells[column])
    ]
    table.where = flags[0] if flags else ""
    _unit(table)
    return table


def _cells(path: Path) -> dict[str, list[Any]]:
    """Every column of a table as it stands, missing values as None."""
    columns = _header(path)
    if not columns:
        # Its reader says what is wrong with it.
        read_table(path, Schema("runs", needed={"loss": VALUE}))
    raw = read_table(path, Schema("runs", needed={}, optional=dict.fromkeys(columns, VALUE)))
    return {column: raw.columns[column].tolist() for column in columns}


def _header(path: Path) -> list[str]:
    """The names of a table's columns; none where only its reader can say what is wrong with it."""
    suffix = path.suffix.lower()
    try:
        content = path.read_bytes() if suffix in READERS else b""
        if suffix == ".csv":
            first = next(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")), [])
            return list(dict.fromkeys(column.strip() for column in first if column.strip()))
        if suffix == ".json":
            rows = json.loads(content)
            return list(dict.fromkeys(column for row in rows for column in row))
        if suffix == ".parquet":
            import pyarrow.parquet as pq

            return list(pq.ParquetFile(path).schema_arrow.names)
    except (OSError, ValueError, TypeError, RecursionError, csv.Error, ImportError):
        pass
    return []


def _plain(column: str) -> tuple[str, ...]:
    """A column's name without punctuation, of its last part and whole."""
    parts = [part for part in re.split(r"[/.:]", column) if part]
    words = [re.sub(r"[^a-z0-9]", "", part.lower()) for part in (*parts[-1:], column)]
    return tuple(words)


def _fits(table: _Table, ours: str, column: str) -> bool:
    """Whether a column's values can be what our column holds."""
    cells = [cell for cell in table.cells[column] if cell is not None]
    if not cells:
        return False
    if ours in _NUMBERS:
        values = _numbers(cells)
        return bool(np.mean(values > 0) >= 0.8)
    if ours == "held_out":
        return _is_flag(cells)
    if ours == "suite":
        values = {str(cell) for cell in cells}
        return 2 <= len(values) <= _MOST_SUITES and len(cells) >= _FEWEST_RUNS * len(values)
    return ours == "seed" or not np.all(np.isfinite(_numbers(cells)))


def _is_flag(cells: Iterable[Any]) -> bool:
    return {_word(cell) for cell in cells if cell is not None} in ({"true", "false"}, {"0", "1"}, {"yes", "no"})


def _word(cell: Any) -> str:
    return f"{cell:g}" if isinstance(cell, float) else str(cell).strip().lower()


def _numbers(cells: Iterable[Any]) -> Floats:
    """Cells as numbers, NaN where they are none."""
    out = []
    for cell in cells:
        try:
            out.append(float("nan") if cell is None or isinstance(cell, bool) else float(cell))
        except ValueError:
            out.append(float("nan"))
    return np.array(out)


def _derive(table: _Table) -> None:
    """What the table lacks, by C = 6*N*D."""
    has_compute = "flops" in table.found or "budget" in table.found
    if has_compute and "tokens" not in table.found and "params" in table.found:
        table.derive = "tokens"
        table.notes.append("there are no tokens: they are taken from C = 6*N*D")
    if not has_compute:
        table.derive = "flops"
        table.notes.append("there are no FLOPs: they are taken from C = 6*N*D")


def _unit(table: _Table) -> None:
    """FLOPs of one unit of the column: what brings it nearest to 6*N*D."""
    if table.derive:
        return
    keep = table.kept()
    column = "flops" if "flops" in table.found else "budget"
    ratio = table.numbers(column)[keep] / (6 * table.numbers("params") * table.numbers("tokens"))[keep]
    if not ratio.size:
        return
    off = [abs(np.log(float(np.median(ratio)) * unit)) for unit in _UNITS]
    table.unit = _UNITS[int(np.argmin(off))]
    if min(off) > np.log(_ODD):
        found = shown(table.found[column])
        table.notes.append(
            f"{found} is {float(np.median(ratio)):.3g} times 6*N*D, no known unit: check the units of all three columns"
        )


def _held_out_words(tables: Sequence[_Table]) -> list[str]:
    """Parts of names that seem to say that a run is held out."""
    names = [name.lower() for table in tables if "name" in table.found for name in table.texts("name")]
    for word in _HELD_OUT:
        if 0 < sum(word in name for name in names) < 0.5 * len(names):
            return [word]
    return []


def _metric(table: _Table) -> list[str]:
    column = table.found["loss"]
    return [
        "[metric]",
        f"name = {_toml(column)}  # tag of the loss, and title of its axes: say what it is measured on",
        'unit = "nats per token"',
        "",
    ]


def _runs(tables: Sequence[_Table], root: Path) -> list[str]:
    """One table a layout; of several files, each is a suite unless a column or the names tell them."""
    apart = len(tables) > 1 and not any("suite" in table.found for table in tables)
    groups: dict[Any, list[_Table]] = {}
    for table in tables:
        groups.setdefault((table.layout, table.path if apart else None), []).append(table)
    labels = _file_labels([table.path for table in tables])
    lines = []
    for group in groups.values():
        first = group[0]
        files = ", ".join(_toml(table.path.relative_to(root).as_posix()) for table in group)
        lines += ["[[runs]]", f"files = [{files}]"]
        if apart:
            lines.append(f"suite = {_toml(labels[first.path])}  # every file is a suite")
        mapped = {ours: theirs for ours, theirs in first.found.items() if _is_mapped(ours, theirs)}
        if mapped:
            lines.append(f"columns = {{ {', '.join(f'{ours} = {_toml(theirs)}' for ours, theirs in mapped.items())} }}")
        if first.unit != 1:
            lines.append(f"flops_unit = {_number(first.unit)}  # by comparison with 6*N*D")
        if first.derive:
            lines.append(f"derive = {_toml(first.derive)}  # from C = 6*N*D")
        if first.where:
            lines.append(f"where = {{ {_key(first.where)} = false }}  # other rows are left out")
        lines.append("")
    return lines


def _is_mapped(ours: str, theirs: str) -> bool:
    return ours != theirs or ours in ("budget", "suite", "held_out", "seed")


def _file_labels(paths: Sequence[Path]) -> dict[Path, str]:
    """What tells the files apart in their names."""
    parts = {path: re.split(r"[-_. ]+", path.stem) for path in paths}
    common = set.intersection(*map(set, parts.values())) if len(paths) > 1 else set()
    labels = {path: "-".join(part for part in parts[path] if part not in common) or path.stem for path in paths}
    return labels if len(set(labels.values())) == len(paths) else {path: path.as_posix() for path in paths}


def _suites(tables: Sequence[_Table], words: Sequence[str]) -> list[str]:
    if len(tables) > 1 or "suite" in tables[0].found:
        return []
    parts = _telling_parts(tables[0].texts("name"), words) if "name" in tables[0].found else []
    if not parts:
        return ["# No suites were found: all runs are one. Else, one of these for each:", *_suite("A recipe", "#"), ""]
    lines = ["# Suites by parts of the runs' names; the first that matches takes a run."]
    for part in parts:
        lines += [*_suite(part), ""]
    return lines


def _suite(part: str, mark: str = "") -> list[str]:
    lead = f"{mark} " if mark else ""
    return [
        f"{lead}[[suites]]",
        f"{lead}label = {_toml(part)}  # as figures show it",
        f"{lead}match = [{_toml(part)}]",
    ]


def _telling_parts(names: Sequence[str], words: Sequence[str]) -> list[str]:
    """Parts of names that sort them: nearly every name has just one of them."""
    split = [set(re.split(r"[-_/. ]+", name.lower())) for name in names]
    counts = Counter(part for parts in split for part in parts if len(part) > 2 and part.isalpha())
    candidates = [part for part, n in counts.most_common(40) if n < 0.95 * len(names) and not _hidden(part, words)]
    for first in candidates:
        chosen = [first]
        for part in candidates:
            if not any({part, other} <= parts for other in chosen for parts in split):
                chosen.append(part)
        covered = sum(bool(parts & set(chosen)) for parts in split)
        if 2 <= len(chosen) <= _MOST_SUITES and covered >= 0.9 * len(names):
            # A part that lies within another would take its runs, so it comes last.
            return sorted(chosen, key=lambda part: sum(part in other for other in chosen))
    return []


def _hidden(part: str, words: Sequence[str]) -> bool:
    return any(part in word or word in part for word in words)


def _held_out(tables: Sequence[_Table], words: Sequence[str]) -> list[str]:
    lines = ["[held_out]"]
    if words:
        return [*lines, f"match = [{', '.join(map(_toml, words))}]  # parts of the names of held-out runs", ""]
    if any("held_out" in table.found for table in tables):
        return [*lines, "values = [true]  # of the column that is mapped to held_out", ""]
    return [
        *lines,
        "# No held-out runs were found. One of these says which they are:",
        '# match = ["optimal"]  # parts of their names',
        "# above = 1e21  # FLOPs: all larger budgets",
        "",
    ]


def _budgets(tables: Sequence[_Table], words: Sequence[str]) -> list[str]:
    compute = np.concatenate([_swept(table, words) for table in tables])
    for digits in (2, 1, 3):
        buckets = Counter(rounded(value, digits) for value in compute.tolist())
        if buckets and np.median(list(buckets.values())) >= _FEWEST_RUNS and min(buckets.values()) > 1:
            runs = f"{len(buckets)} budgets of {min(buckets.values())} to {max(buckets.values())} runs"
            return ["[budgets]", f"digits = {digits}  # of the compute, rounded: {runs}"]
    centres = _clusters(compute)
    if centres:
        values = ", ".join(map(_number, centres))
        return [
            "[budgets]",
            "# Rounding does not sort the runs into budgets; these are where their compute is dense.",
            f"values = [{values}]  # FLOPs",
            "tolerance = 0.15  # runs farther away, relatively, are left out",
        ]
    return ["[budgets]", "digits = 2  # unsure: few budgets have 3 runs; or list them: values = [3e18, 1e19]"]


def _swept(table: _Table, words: Sequence[str]) -> Floats:
    """FLOPs of the runs that are not held out."""
    keep = table.kept()
    if words and "name" in table.found:
        keep &= np.array([not any(word in name.lower() for word in words) for name in table.texts("name")])
    if "held_out" in table.found:
        keep &= np.array([_word(cell) not in ("true", "1", "yes") for cell in table.cells[table.found["held_out"]]])
    return table.compute()[keep]


def _clusters(compute: Floats) -> list[float]:
    """Centres of groups of runs that lie within about 10 % of one another."""
    ordered = np.sort(compute)
    if not ordered.size:
        return []
    groups = np.split(ordered, np.flatnonzero(np.diff(np.log(ordered)) > 0.1) + 1)
    return [rounded(float(np.median(group)), 2) for group in groups if len(group) >= _FEWEST_RUNS]


def _toml(text: str) -> str:
    """A TOML string."""
    plain = json.dumps(text.encode("utf-8", "replace").decode(), ensure_ascii=False)
    return plain.replace("\x7f", "\\u007f")


def _key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else _toml(text)


def _number(value: float) -> str:
    return scientific(value).replace("e+", "e")


def _comment(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
