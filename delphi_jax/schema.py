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

from delphi_jax.heuristics import FEATURES
from delphi_jax.tasks import GSM8K, HUMANEVAL, MMLU, TASKS, Task

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["LABEL", "SCHEMAS", "SWEEP_LOSS_COLUMN", "TEXT", "Range", "Schema", "row_adapter"]

SWEEP_LOSS_COLUMN = "eval/paloma/macro_loss"

TEXT = "text"
"""Kind of a column that holds text or null."""
LABEL = "label"
"""Kind of a column that only serves to name a row: whatever is not text is ignored."""


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
    finished_only: bool = False
    """Whether rows count only where ``state`` is "finished"."""
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
_GFLOPS = Range("a positive number of GFLOPs, 1e-30 to 1e60", _TINY, 1e60)
_FLOPS = Range("a positive number of FLOPs, 1e-30 to 1e69", _TINY, 1e69)
_PARAMS = Range("a positive number of parameters, 1e-30 to 1e30", _TINY, 1e30)
_TOKENS = Range("a positive number of tokens, 1e-30 to 1e30", _TINY, 1e30)
_LOSS = Range("a positive loss, 1e-30 to 1e9", _TINY, 1e9)
_BITS = Range("positive bits per byte, 1e-30 to 1e6", _TINY, 1e6)
_LOG_PROBABILITY = Range("a negative log-probability, -1e6 to -1e-30", -1e6, -_TINY)
_SHARE = Range("a share from 0 to 1", 0.0, 1.0)
_RATE = Range("a positive learning rate, 1e-30 to 1e6", _TINY, 1e6)
_EPSILON = Range("an epsilon from 0 to 1e6", 0.0, 1e6)
_BETA = Range("a beta of at least 0 and below 1", 0.0, float(np.nextafter(1.0, 0.0)))
_SIZE = Range("a size from 1 to 1e9", 1.0, 1e9)
_SHOT = Range("a whole number of examples, 0 to 1e6", 0.0, 1e6, whole=True)

_SOFT = {MMLU.key: _LOG_PROBABILITY, HUMANEVAL.key: _BITS, GSM8K.key: _BITS}


def _evals(task: Task) -> Schema:
    soft = {"budget": _FLOPS, task.soft_column: _SOFT[task.key]}
    hard = {task.hard_column: _SHARE}
    views = f"the {task.name} views of mmlu-emergence"
    if task is MMLU:
        return Schema(task.key, needed={"shot": _SHOT, **soft, **hard}, optional={"run_name": LABEL}, needed_for=views)
    return Schema(task.key, needed=soft, optional={**hard, "run_name": LABEL}, needed_for=views)


def _externals(task: Task) -> Schema:
    soft = {task.soft_column: _SOFT[task.key]}
    hard = {task.hard_column: _SHARE}
    curve = f"the curve from soft to hard metric in the {task.name} views of mmlu-emergence"
    if task is MMLU:
        return Schema(
            f"{task.key}_external",
            needed={**soft, **hard},
            optional={"run_name": TEXT, "display_name": LABEL},
            needed_for=curve,
        )
    return Schema(
        f"{task.key}_external",
        needed=soft,
        nullable=hard,
        optional={"display_name": TEXT, "run_name": LABEL},
        needed_for=curve,
    )


_HYPER_PARAMETERS = {"lr": _RATE, "adam_lr": _RATE, "epsilon": _EPSILON, "beta1": _BETA, "beta2": _BETA}

SCHEMAS: dict[str, Schema] = {
    schema.table: schema
    for schema in (
        Schema(
            "runs",
            needed={
                "name": TEXT,
                "params": _PARAMS,
                "tokens": _TOKENS,
                "loss": _LOSS,
                "total_gflops": _GFLOPS,
            },
            optional={"state": TEXT},
            loss="loss",
            needed_for="every fit of the scaling law",
        ),
        Schema(
            "hparam_sweep",
            needed={
                "batch_size": _SIZE,
                "hidden_dim": _SIZE,
                "tokens": _TOKENS,
                **{feature: _HYPER_PARAMETERS[feature] for feature in FEATURES},
                SWEEP_LOSS_COLUMN: _LOSS,
            },
            nullable={"state": TEXT},
            loss=SWEEP_LOSS_COLUMN,
            finished_only=True,
            needed_for="hparam-scaling",
        ),
        *(make(task) for task in TASKS.values() for make in (_evals, _externals)),
    )
}
"""Every input table by the stem of its file."""


@functools.cache
def row_adapter(table: str) -> TypeAdapter[list[dict[str, Any]]]:
    """The pydantic validator of one table's rows: numbers or null, text or null, other columns dropped.

    NaN in a text column, as pandas writes it, is null.
    """
    from pydantic import BeforeValidator, TypeAdapter
    from typing_extensions import TypedDict

    def nan_is_null(value: object) -> object:
        return None if isinstance(value, float) and math.isnan(value) else value

    text = Annotated[str | None, BeforeValidator(nan_is_null)]
    types = {TEXT: text, LABEL: Any}
    hints = {
        column: float | None if isinstance(kind, Range) else types[kind]
        for column, kind in SCHEMAS[table].columns.items()
    }
    return TypeAdapter(list[TypedDict(table, hints, total=False)])  # type: ignore[misc]
