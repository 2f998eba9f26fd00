"""Held-out runs beside the forecast, and their seeds beside the interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from delphi_jax.formulas import residual_percent
from delphi_jax.results.base import Floats, Result
from delphi_jax.results.law import BootstrapFit, LawFit
from delphi_jax.status import Status
from delphi_jax.tables import RunTable
from delphi_jax.text import scientific

__all__ = ["HeldOutFit", "HeldOutRun", "SeedDeviation", "SeedFit", "held_out_runs"]

_FEWEST_TOKENS = 3
"""Distinct token counts at one budget that make a sweep of its runs."""
_SAME_TOKENS = 1e-3
"""Relative: token counts that differ by less are one."""


@dataclass(frozen=True)
class HeldOutRun:
    """One held-out run."""

    name: str
    suite: str
    seed: str
    budget: float
    """Nominal compute budget, FLOPs."""
    loss: float
    finished: bool
    tokens: float = np.nan
    """NaN where it is not known."""


def held_out_runs(runs: RunTable) -> tuple[HeldOutRun, ...]:
    """The held-out runs of a table, in its order, diverged ones included."""
    held_out = runs.where(runs.held_out)
    columns = (getattr(held_out, name).tolist() for name in _COLUMNS)
    return tuple(HeldOutRun(*row) for row in zip(*columns, strict=True))


_COLUMNS = ("name", "suite", "seed", "bucket", "loss", "finished", "tokens")


@dataclass(frozen=True, eq=False, repr=False)
class HeldOutFit(Result):
    """Held-out runs beside the forecast of their suite's law."""

    runs: tuple[HeldOutRun, ...]
    """All held-out runs in table order, diverged ones included."""
    laws: Mapping[str, LawFit]

    @property
    def sweeps(self) -> dict[tuple[str, float], int]:
        """Distinct token counts of each (suite, budget FLOPs) whose finished runs have three or more.

        Such runs are no compute-optimal ones that differ by their seeds: they are compared with no forecast.
        """
        tokens: dict[tuple[str, float], list[float]] = {}
        for run in self.runs:
            if run.finished and np.isfinite(run.tokens):
                tokens.setdefault((run.suite, run.budget), []).append(run.tokens)
        counts = {group: _distinct(np.sort(values)) for group, values in tokens.items()}
        return {group: counts[group] for group in sorted(counts) if counts[group] >= _FEWEST_TOKENS}

    @property
    def optimal(self) -> tuple[HeldOutRun, ...]:
        """All but the runs of :attr:`sweeps`, in table order, diverged ones included."""
        sweeps = self.sweeps
        return tuple(run for run in self.runs if (run.suite, run.budget) not in sweeps)

    def means(self, suite: str) -> tuple[Floats, Floats]:
        """(budget FLOPs, mean loss over seeds of the finished optimal runs), each [n], by ascending budget."""
        finished = [run for run in self.optimal if run.suite == suite and run.finished]
        budgets = sorted({run.budget for run in finished})
        means = [np.mean([run.loss for run in finished if run.budget == budget]) for budget in budgets]
        return np.array(budgets, dtype=np.float64), np.array(means, dtype=np.float64)

    def diverged(self, suite: str) -> tuple[HeldOutRun, ...]:
        """Optimal runs of one suite that did not finish, in table order."""
        return tuple(run for run in self.optimal if run.suite == suite and not run.finished)

    def residuals(self, suite: str) -> Floats:
        """Percent deviation of each mean from the law, [n] as in :meth:`means`; NaN without a law."""
        budgets, means = self.means(suite)
        law = self.laws.get(suite)
        predicted = law.loss_at(budgets) if law is not None else np.full_like(budgets, np.nan)
        return residual_percent(means, predicted)

    def notices(self) -> list[str]:
        """A sentence for every sweep among the runs, with its remedy."""
        return [
            f"held-out runs of {suite} at {scientific(budget)} FLOPs are a sweep ({count} token counts), not "
            "compute-optimal runs: they are compared with no forecast; hold out the compute-optimal ones alone"
            for (suite, budget), count in self.sweeps.items()
        ]

    def rows(self) -> list[dict[str, Any]]:
        out = []
        for suite in sorted({run.suite for run in self.runs}):
            budgets, means = self.means(suite)
            law = self.laws.get(suite)
            for budget, mean, residual in zip(budgets, means, self.residuals(suite), strict=True):
                seeds = sum(run.suite == suite and run.finished and run.budget == budget for run in self.runs)
                forecast = float(law.loss_at(budget)) if law is not None else np.nan
                out.append(
                    {
                        "suite": suite,
                        "compute budget (FLOPs)": budget,
                        "runs": seeds,
                        "mean loss": mean,
                        "forecast": forecast,
                        "residual (%)": residual,
                        "status": (law.status if law is not None else Status.NO_DATA).label,
                    }
                )
        return out


def _distinct(tokens: Floats) -> int:
    """Number of ascending ``tokens`` [n] that differ."""
    return 1 + int(np.sum(np.diff(tokens) > _SAME_TOKENS * tokens[:-1]))


@dataclass(frozen=True)
class SeedDeviation:
    """Held-out runs of one budget beside the bootstrap interval, all in percent of the point forecast."""

    budget: float
    point_forecast: float
    seeds: tuple[str, ...]
    deviations: Floats
    """[number of seeds]"""
    low: float
    high: float


@dataclass(frozen=True, eq=False, repr=False)
class SeedFit(Result):
    """The seed comparison of one suite: is the held-out residual luck?"""

    suite: str
    law: LawFit
    bootstrap: BootstrapFit
    budgets: tuple[SeedDeviation, ...]

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "suite": self.suite,
                "compute budget (FLOPs)": line.budget,
                "seed": seed,
                "deviation (%)": deviation,
                "interval low (%)": line.low,
                "interval high (%)": line.high,
                "law": self.law.status.label,
            }
            for line in self.budgets
            for seed, deviation in zip(line.seeds, line.deviations, strict=True)
        ]
