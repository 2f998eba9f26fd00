"""Tidy tables of one study, and the rules that turn raw rows into them (suites, buckets, grid matching)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from delphi_jax.heuristics import HORIZONS
from delphi_jax.labels import ADAMC_SUITE, ADAMH_SUITE, UNKNOWN_SUITE
from delphi_jax.tasks import Task

__all__ = [
    "EvalTable",
    "ExternalTable",
    "Missing",
    "RunTable",
    "Skipped",
    "Study",
    "SweepTable",
    "bucket_gflops",
    "eval_table",
    "fit_runs",
    "is_finished",
    "is_held_out",
    "match_grids",
    "run_table",
    "seed_label",
    "suite_of",
    "sweep_table",
    "token_horizon",
]

Floats = NDArray[np.float64]
Strings = NDArray[np.object_]


@dataclass(frozen=True)
class Skipped:
    """Rows of one table that a rule left out: which and why."""

    table: str
    reason: str
    names: tuple[str, ...]
    """The rows by name, or "row 12" where a table has no names."""

    @property
    def count(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Missing:
    """An optional table that the data folder does not hold."""

    table: str
    needed_for: str
    how: str


@dataclass(frozen=True, eq=False)
class RunTable:
    """Training runs, one row each, in file order. All arrays have shape [n]."""

    name: Strings
    suite: Strings
    """Display name of the suite."""
    seed: Strings
    """Seed label: digits, or "default"."""
    held_out: NDArray[np.bool_]
    """True for a held-out compute-optimal run, False for a run of an IsoFLOP sweep."""
    finished: NDArray[np.bool_]
    params: Floats
    tokens: Floats
    loss: Floats
    """Paloma macro loss, nats per token."""
    compute: Floats
    """FLOPs as measured."""
    bucket: Floats
    """Compute budget in FLOPs: the measured compute rounded to two significant digits."""

    def __len__(self) -> int:
        return len(self.name)

    def where(self, keep: NDArray[np.bool_]) -> RunTable:
        """The rows where ``keep`` (bool [n]) is True."""
        return RunTable(**{column: getattr(self, column)[keep] for column in self.__dataclass_fields__})


@dataclass(frozen=True, eq=False)
class SweepTable:
    """Finished trials of the hyper-parameter sweep, one row each. All arrays have shape [n]."""

    batch_size: NDArray[np.int64]
    hidden_dim: NDArray[np.int64]
    horizon: Strings
    """Token bucket: "1B", "2.5B" or "5B"."""
    lr: Floats
    adam_lr: Floats
    epsilon: Floats
    beta1: Floats
    beta2: Floats
    loss: Floats

    def __len__(self) -> int:
        return len(self.loss)


@dataclass(frozen=True, eq=False)
class EvalTable:
    """Downstream evaluations of the study's own runs, in the order that the rules ask for. Shape [n]."""

    shot: NDArray[np.int64]
    """Number of in-context examples; for a task with one shot count, that count."""
    budget: Floats
    """Nominal compute budget, FLOPs."""
    soft: Floats
    """Soft metric as a loss, positive and falling with compute: -log p(correct) or bits per byte."""
    hard: Floats
    """Accuracy, pass@1 or exact match, in [0, 1]; NaN where it was not measured."""


@dataclass(frozen=True, eq=False)
class ExternalTable:
    """Downstream evaluations of external models, in file order. Shape [n]."""

    name: Strings
    """Name as readers know it from the model card."""
    soft: Floats
    hard: Floats


@dataclass(frozen=True, eq=False)
class Study:
    """Everything that one data folder holds, checked, derived and ready to be fitted."""

    runs: RunTable
    """After grid matching; crashed runs are still here, flagged by ``finished``."""
    sweep: SweepTable | None
    evals: dict[str, EvalTable]
    """By task key (see :mod:`delphi_jax.tasks`); a task without a cache has no entry."""
    externals: dict[str, ExternalTable]
    skipped: tuple[Skipped, ...]
    missing: tuple[Missing, ...]
    source: str
    """The folder or files that the study was read from."""


def suite_of(name: str) -> str:
    """Display name of the suite that a run belongs to, from the run's name.

    AdamH comes first: its held-out runs carry "nemotron" in their names, which would match AdamC's "nemo".
    """
    lower = name.lower()
    if "adamh_scaling_v6" in lower or "adamh-scaling-ladder" in lower:
        return ADAMH_SUITE
    return ADAMC_SUITE if "nemo" in lower else UNKNOWN_SUITE


def is_held_out(name: str) -> bool:
    """Whether a run's name says that it is a held-out compute-optimal run."""
    return "optimal" in name.lower()


def seed_label(name: str) -> str:
    """The digits of ``-seed<digits>-`` in a run's name, else "default"."""
    found = re.search(r"-seed([0-9]+)-", name)
    return found[1] if found else "default"


def bucket_gflops(total_gflops: float) -> float:
    """``total_gflops`` rounded to 2 significant digits.

    By way of decimal text, which is correctly rounded; scaling by a power of ten and back is not.
    """
    return float(f"{total_gflops:.1e}")


def token_horizon(tokens: float) -> str:
    """Token bucket of a sweep trial: "1B", "2.5B" or "5B"."""
    return next(horizon.key for horizon in HORIZONS if tokens < horizon.below)


def run_table(
    name: Strings, params: Floats, tokens: Floats, loss: Floats, total_gflops: Floats, state: Strings
) -> RunTable:
    """Raw columns [n] to tidy runs in the same order; ``total_gflops`` is in units of 1e9 FLOPs.

    A run without a state (None) counts as finished.
    """
    buckets = np.array([bucket_gflops(value) for value in total_gflops.tolist()], dtype=np.float64)
    return RunTable(
        name=name,
        suite=_strings([suite_of(text) for text in name]),
        seed=_strings([seed_label(text) for text in name]),
        held_out=np.array([is_held_out(text) for text in name], dtype=np.bool_),
        finished=np.array([text is None or is_finished(text) for text in state], dtype=np.bool_),
        params=params,
        tokens=tokens,
        loss=loss,
        compute=total_gflops * 1e9,
        bucket=buckets * 1e9,
    )


def is_finished(state: str | None) -> bool:
    """Whether a state, in any case, is "finished"."""
    return state is not None and state.strip().lower() == "finished"


def match_grids(runs: RunTable) -> tuple[RunTable, Skipped | None]:
    """Leave out AdamC's IsoFLOP runs whose (params to the nearest 1e6, bucket) AdamH did not measure.

    Only where both suites have IsoFLOP runs: with one suite there is nothing to match. A crashed AdamH run is
    no measurement, so it does not put its cell on the grid. Held-out runs are untouched.
    """
    isoflop = ~runs.held_out
    reference = isoflop & runs.finished & (runs.suite == ADAMH_SUITE)
    matched = isoflop & (runs.suite == ADAMC_SUITE)
    if not (reference.any() and matched.any()):
        return runs, None
    cells = list(zip(np.round(runs.params / 1e6).tolist(), runs.bucket.tolist(), strict=True))
    grid = {cells[i] for i in np.flatnonzero(reference)}
    off_grid = matched & np.array([cell not in grid for cell in cells], dtype=np.bool_)
    reason = f"(params, compute budget) not among the IsoFLOP runs of the {ADAMH_SUITE}"
    return _leave_out(runs, off_grid, reason)


def fit_runs(runs: RunTable) -> tuple[RunTable, Skipped | None]:
    """The IsoFLOP runs that enter the parabolas, and those left out because they did not finish."""
    isoflop = runs.where(~runs.held_out)
    return _leave_out(isoflop, ~isoflop.finished, "did not finish: no measurement for the IsoFLOP fits")


def _leave_out(runs: RunTable, drop: NDArray[np.bool_], reason: str) -> tuple[RunTable, Skipped | None]:
    if not drop.any():
        return runs, None
    return runs.where(~drop), Skipped("runs", reason, tuple(runs.name[drop]))


def sweep_table(
    batch_size: Floats, hidden_dim: Floats, tokens: Floats, loss: Floats, features: dict[str, Floats]
) -> SweepTable:
    """Raw columns [n] of finished trials to a tidy sweep; ``features`` are the five hyper-parameters."""
    return SweepTable(
        batch_size=np.round(batch_size).astype(np.int64),
        hidden_dim=np.round(hidden_dim).astype(np.int64),
        horizon=_strings([token_horizon(value) for value in tokens.tolist()]),
        loss=loss,
        **features,
    )


def eval_table(task: Task, budget: Floats, soft: Floats, hard: Floats, shot: Floats | None) -> EvalTable:
    """Raw columns [n] of one task to evaluations ordered by shot, then budget; ties keep their order.

    ``soft`` is as cached (see :class:`Task`); ``shot`` is None for a task with one shot count.
    """
    shots = np.full(len(budget), task.default_shot) if shot is None else shot
    order = np.lexsort((budget, shots))
    return EvalTable(
        shot=shots[order].astype(np.int64),
        budget=budget[order],
        soft=task.soft_sign * soft[order],
        hard=hard[order],
    )


def _strings(items: Sequence[str]) -> Strings:
    out = np.empty(len(items), dtype=object)
    out[:] = items
    return out
