"""Laws refitted to the smaller budgets, beside what came later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from delphi_jax.results.base import Result
from delphi_jax.status import Status
from delphi_jax.text import scientific

__all__ = ["DISTANCE_EDGES", "HELD_OUT", "OPTIMUM", "Prediction", "Refit", "ValidationFit"]

OPTIMUM, HELD_OUT = "optimum", "held-out"
"""What a prediction is compared with: a later IsoFLOP optimum, or the mean of held-out runs."""

DISTANCE_EDGES = (0.0, 0.5, 1.0, 2.0, 3.0, np.inf)
"""Decades of compute: the groups of the summary, each with its upper end."""

_DIGITS = 9
"""Decimals of a distance that count: 1e20 to 1e21 is one decade."""


@dataclass(frozen=True)
class Refit:
    """The law of one suite's first budgets."""

    suite: str
    asymptote: str
    """How L_inf came about: "free" or "pinned"."""
    budgets: int
    """How many of the suite's budgets were fitted."""
    last_budget: float
    """The largest of them, FLOPs."""
    status: Status
    L_inf: float = np.nan
    A: float = np.nan
    alpha: float = np.nan
    score: float = np.nan
    """Mean squared log residual."""


@dataclass(frozen=True)
class Prediction:
    """What a refit says of one later budget, and what was seen there."""

    refit: int
    """Place of the refit among :attr:`ValidationFit.refits`."""
    kind: str
    """One of :data:`OPTIMUM` and :data:`HELD_OUT`."""
    budget: float
    """FLOPs"""
    distance: float
    """Decades of compute beyond the last fitted budget."""
    predicted: float
    observed: float
    error: float
    """100*(observed - predicted)/predicted: positive where the law was too hopeful."""


@dataclass(frozen=True, eq=False, repr=False)
class ValidationFit(Result):
    """Leave-future-out validation of the law: each refit knows its first budgets alone and predicts all later ones.

    Predictions share data, with one another and with the same target's of other refits: their number is not a number
    of independent trials.
    """

    status: Status
    """FITTED where every refit is, else the commonest other status."""
    refits: tuple[Refit, ...]
    """By suite, free before pinned, by number of budgets."""
    predictions: tuple[Prediction, ...]
    """In the order of the refits, optima before held-out runs; none of a refit without a law."""
    pinned: Mapping[str, float]
    """Given asymptote by suite; empty where none was given."""
    method: str
    """How free asymptotes were searched: "grid" or "optimum"."""
    n_grid: int
    unpredicted: Mapping[str, int]
    """Held-out budgets of each suite that no refit comes before."""

    def of(self, suite: str, asymptote: str) -> list[tuple[Refit, list[Prediction]]]:
        """The refits of one suite, each with its predictions."""
        return [
            (refit, [each for each in self.predictions if each.refit == place])
            for place, refit in enumerate(self.refits)
            if (refit.suite, refit.asymptote) == (suite, asymptote)
        ]

    @property
    def kinds(self) -> tuple[tuple[str, str], ...]:
        """Suite and asymptote of every series of refits, in their order."""
        return tuple(dict.fromkeys((refit.suite, refit.asymptote) for refit in self.refits))

    def rows(self) -> list[dict[str, Any]]:
        """A row per prediction, and one per refit without a law."""
        return [
            _row(refit, prediction)
            for kind in self.kinds
            for refit, predictions in self.of(*kind)
            for prediction in (predictions if refit.status.usable else (None,))
        ]

    def refit_rows(self) -> list[dict[str, Any]]:
        """The law of every refit, a row each."""
        return [
            {
                "suite": refit.suite,
                "asymptote": refit.asymptote,
                "budgets": refit.budgets,
                "last budget (FLOPs)": refit.last_budget,
                "L_inf": refit.L_inf,
                "A": refit.A,
                "alpha": refit.alpha,
                "mean squared log residual": refit.score,
                "status": refit.status.label,
            }
            for refit in self.refits
        ]

    def summary(self) -> list[dict[str, Any]]:
        """Errors by distance: a row per suite, asymptote, kind and group of distances that has predictions."""
        rows = []
        for suite, asymptote in self.kinds:
            found = [each for _, predictions in self.of(suite, asymptote) for each in predictions]
            for kind in (OPTIMUM, HELD_OUT):
                for low, high in pairwise(DISTANCE_EDGES):
                    near = [p for p in found if p.kind == kind and low < round(p.distance, _DIGITS) <= high]
                    if near:
                        errors = np.array([each.error for each in near])
                        rows.append(
                            {
                                "suite": suite,
                                "asymptote": asymptote,
                                "kind": kind,
                                "distance (decades)": f"{low:g} to {high:g}" if np.isfinite(high) else f"over {low:g}",
                                "predictions": len(errors),
                                "mean error (%)": float(errors.mean()),
                                "mean absolute error (%)": float(np.abs(errors).mean()),
                                "worst error (%)": float(errors[np.argmax(np.abs(errors))]),
                            }
                        )
        return rows

    def notices(self) -> list[str]:
        """What a reader should know beside the numbers, a sentence each."""
        sentences = []
        for suite, asymptote in self.kinds:
            refits, predictions = zip(*self.of(suite, asymptote), strict=True)
            name = f"{suite}, {asymptote} asymptote"
            for status in dict.fromkeys(refit.status for refit in refits if refit.status is not Status.FITTED):
                counts = [str(refit.budgets) for refit in refits if refit.status is status]
                which = f"{len(counts)} of {len(refits)} refits (first {', '.join(counts)} budgets)"
                sentences.append(f"{name}: {which}: {status.label}; {status.remedy}")
            if any(refit.status.usable for refit in refits) and not any(predictions):
                sentences.append(f"{name}: there is nothing later than its {refits[-1].budgets} budgets to predict")
        for suite, L_inf in self.pinned.items():
            found = [each for _, predictions in self.of(suite, "pinned") for each in predictions]
            if below := sorted({each.budget for each in found if each.observed <= L_inf}):
                budgets = ", ".join(map(scientific, below))
                sentences.append(f"{suite}: the pinned asymptote {L_inf:g} is not below what was seen at {budgets}")
        return sentences + [
            f"{suite}: held-out budgets that do not lie beyond a refit's last budget and are not predicted: {count}"
            for suite, count in self.unpredicted.items()
            if count
        ]


def _row(refit: Refit, prediction: Prediction | None) -> dict[str, Any]:
    return {
        "suite": refit.suite,
        "asymptote": refit.asymptote,
        "budgets": refit.budgets,
        "last budget (FLOPs)": refit.last_budget,
        "target (FLOPs)": prediction.budget if prediction else np.nan,
        "kind": prediction.kind if prediction else "",
        "distance (decades)": prediction.distance if prediction else np.nan,
        "predicted": prediction.predicted if prediction else np.nan,
        "observed": prediction.observed if prediction else np.nan,
        "error (%)": prediction.error if prediction else np.nan,
        "status": refit.status.label,
    }
