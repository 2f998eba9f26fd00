"""What each input table must hold: columns, types and physical ranges (methods, section 1).

pydantic checks the types; it is imported when a table is read, not before.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from delphi_jax.checked import Value, Where, as_tuples
from delphi_jax.definition import RUN_COLUMNS, Definition, RunSource
from delphi_jax.heuristics import SweepDesign
from delphi_jax.tasks import BITS_PER_BYTE, LOG_PROBABILITY, LOSS, Task

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = [
    "LABEL",
    "TEXT",
    "VALUE",
    "Range",
    "Schema",
    "evals_schema",
    "externals_schema",
    "row_adapter",
    "runs_schema",
    "sweep_schema",
]


TEXT = "text"
"""Kind of a column that holds text or null."""
LABEL = "label"
"""Kind of a column that only serves to name a row: whatever is not text is ignored."""
VALUE = "value"
"""Kind of a column that sorts rows: text, a number, true or false, or null."""


@dataclass(frozen=True)
class Range:
    """Kind of a column that holds numbers: the values that make sense, both ends included."""

    words: str
    low: float
    high: float
    whole: bool = False

    def holds(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Where ``values`` (any shape) lie in the range."""
        inside = (values >= self.low) & (values <= self.high)
        return inside & (values == np.round(values)) if self.whole else inside


Kind = Range | str


@dataclass(frozen=True)
class Schema:
    """One input table: its columns by how much they matter, and what it is for."""

    table: str
    needed: Mapping[str, Kind]
    """Columns without which a row is of no use: rows that miss one are left out."""
    nullable: Mapping[str, Kind] = field(default_factory=dict)
    """Columns that must be there, with values that may be missing."""
    optional: Mapping[str, Kind] = field(default_factory=dict)
    """Columns that may be absent."""
    loss: str | None = None
    """The column whose value is infinite for a diverged run, if the table has one."""
    finished: str = ""
    """The column that says "finished" in the rows that count; empty where all do."""
    names: tuple[str, ...] = ()
    """Columns that name a row; of several, the last one with text."""
    in_house: tuple[str, ...] = ()
    """Parts of the first of those names, in any case, that mark a row as none of the external models."""
    where: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    """Values, by column, of the rows that count."""
    needed_for: str = ""

    @property
    def columns(self) -> dict[str, Kind]:
        """Every column that is read, by kind."""
        return {**self.needed, **self.nullable, **self.optional}

    @property
    def must_have(self) -> tuple[str, ...]:
        return (*self.needed, *self.nullable)


# The upper ends are far beyond any study; past them float64 overflows further down (C**-alpha, 10**x).
_TINY = 1e-30
_MOST_FLOPS = 1e69
_FLOPS = Range("a positive number of FLOPs, 1e-30 to 1e69", _TINY, _MOST_FLOPS)
_PARAMS = Range("a positive number of parameters, 1e-30 to 1e30", _TINY, 1e30)
_TOKENS = Range("a positive number of tokens, 1e-30 to 1e30", _TINY, 1e30)
_LOSS = Range("a positive loss, 1e-30 to 1e9", _TINY, 1e9)
_BITS = Range("positive bits per byte, 1e-30 to 1e6", _TINY, 1e6)
_LOG_PROBABILITY = Range("a negative log-probability, -1e6 to -1e-30", -1e6, -_TINY)
_SHARE = Range("a share from 0 to 1", 0.0, 1.0)
_RATE = Range("a positive learning rate, 1e-30 to 1e6", _TINY, 1e6)
_EPSILON = Range("an epsilon from 0 to 1e6", 0.0, 1e6)
_BETA = Range("a beta of at least 0 and below 1", 0.0, float(np.nextafter(1.0, 0.0)))
_NUMBER = Range("a number, -1e30 to 1e30", -1e30, 1e30)
_SIZE = Range("a size from 1 to 1e9", 1.0, 1e9)
_SHOT = Range("a whole number of examples, 0 to 1e6", 0.0, 1e6, whole=True)

_SOFT = {LOG_PROBABILITY: _LOG_PROBABILITY, BITS_PER_BYTE: _BITS, LOSS: _LOSS}
_HYPER_PARAMETERS = {"rate": _RATE, "epsilon": _EPSILON, "beta": _BETA, "number": _NUMBER}


def evals_schema(task: Task) -> Schema:
    """Of the evaluations of the study's own runs."""
    shot = {task.shot_column: _SHOT} if task.shot_column else {}
    soft = {task.budget_column: _FLOPS, task.soft_column: _SOFT[task.soft]}
    hard = {task.hard_column: _SHARE}
    needed = shot | soft | (hard if task.hard_required else {})
    name = {task.run_column: LABEL}
    nullable, optional = _sorted_by(task.where, needed, {}, name if task.hard_required else hard | name)
    return Schema(
        task.table,
        needed=needed,
        nullable=nullable,
        optional=optional,
        names=(task.run_column,),
        where=as_tuples(task.where),
        needed_for=f"the {task.name} views of mmlu-emergence",
    )


def externals_schema(task: Task) -> Schema:
    """Of the evaluations of external models."""
    soft, hard = {task.soft_column: _SOFT[task.soft]}, {task.hard_column: _SHARE}
    # Of the name that comes second, whatever is not text is ignored.
    by_run = task.named_by == "run"
    kinds = {
        task.run_column: TEXT if by_run or task.in_house else LABEL,
        task.display_column: LABEL if by_run else TEXT,
    }
    needed = soft | hard if task.hard_required else soft
    nullable, optional = _sorted_by(task.external_where, needed, {} if task.hard_required else hard, kinds)
    return Schema(
        task.external_table,
        needed=needed,
        nullable=nullable,
        optional=optional,
        names=(task.run_column, task.display_column),
        in_house=task.in_house,
        where=as_tuples(task.external_where),
        needed_for=f"the curve from soft to hard metric in the {task.name} views of mmlu-emergence",
    )


def _sorted_by(
    where: Where, needed: Mapping[str, Kind], nullable: Mapping[str, Kind], optional: Mapping[str, Kind]
) -> tuple[dict[str, Kind], dict[str, Kind]]:
    """Nullable and optional columns, where those of ``where`` must be there: as what they are read as anyway."""
    sorting = {column: optional.get(column, VALUE) for column in where if column not in needed}
    return sorting | dict(nullable), {column: kind for column, kind in optional.items() if column not in where}


def sweep_schema(design: SweepDesign) -> Schema:
    """Of the trials of a hyper-parameter sweep."""
    return Schema(
        design.table,
        needed={
            design.batch_column: _SIZE,
            design.hidden_column: _SIZE,
            design.tokens_column: _TOKENS,
            **{parameter.column: _HYPER_PARAMETERS[parameter.range] for parameter in design.hyper_parameters},
            design.loss_column: _LOSS,
        },
        nullable={design.state_column: TEXT} if design.state_column else {},
        loss=design.loss_column,
        finished=design.state_column,
        needed_for="hparam-scaling",
    )


def runs_schema(definition: Definition, source: RunSource, table: str) -> Schema:
    """Of the training runs in one of a source's files, by their names of the columns; ``table`` is its name."""
    theirs = {ours: source.columns.get(ours, ours) for ours in RUN_COLUMNS}
    flops = _flops(source.flops_unit)
    kinds = {"name": TEXT, "params": _PARAMS, "tokens": _TOKENS, "loss": _LOSS, "flops": flops, "budget": flops}
    absent = {source.derive}
    if not ("name" in source.columns or definition.reads_names):
        absent.add("name")
    if "budget" not in source.columns:
        absent.add("budget")
    elif "flops" not in source.columns:
        absent.add("flops")
    mapped = {"suite": VALUE, "held_out": VALUE, "seed": VALUE, "state": TEXT}
    needed = {theirs[ours]: kind for ours, kind in kinds.items() if ours not in absent}
    nullable = {theirs[ours]: kind for ours, kind in mapped.items() if ours in source.columns}
    nullable |= {column: VALUE for column in source.where if column not in nullable}
    optional = {theirs[ours]: TEXT for ours in ("name", "state")}
    return Schema(
        table,
        needed=needed,
        nullable={column: kind for column, kind in nullable.items() if column not in needed},
        optional={column: kind for column, kind in optional.items() if column not in needed | nullable},
        loss=theirs["loss"],
        names=(theirs["name"],),
        where=as_tuples(source.where),
        needed_for="every fit of the scaling law",
    )


def _flops(unit: float) -> Range:
    """Of a column in units of ``unit`` FLOPs."""
    if unit == 1:
        return _FLOPS
    what = "GFLOPs" if unit == 1e9 else f"{unit:g} FLOPs"
    return Range(f"a positive number of {what}, 1e-30 to {_MOST_FLOPS / unit:g}", _TINY, _MOST_FLOPS / unit)


def row_adapter(schema: Schema) -> TypeAdapter[list[dict[str, Any]]]:
    """The pydantic validator of one table's rows: numbers or null, text or null, other columns dropped.

    NaN in a text column, as pandas writes it, is null.
    """
    kinds = ((column, "number" if isinstance(kind, Range) else kind) for column, kind in schema.columns.items())
    return _adapter(tuple(kinds))


@functools.cache
def _adapter(columns: tuple[tuple[str, str], ...]) -> TypeAdapter[list[dict[str, Any]]]:
    from pydantic import BeforeValidator, TypeAdapter
    from typing_extensions import TypedDict

    def nan_is_null(value: object) -> object:
        return None if isinstance(value, float) and math.isnan(value) else value

    text = Annotated[str | None, BeforeValidator(nan_is_null)]
    types = {"number": float | None, TEXT: text, LABEL: Any, VALUE: Any}
    hints = {column: types[kind] for column, kind in columns}
    return TypeAdapter(list[TypedDict("row", hints, total=False)])  # type: ignore[misc]
