"""What training longer or shorter than optimal costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from delphi_jax.definition import Definition, delphi
from delphi_jax.results.base import Floats, Result
from delphi_jax.results.isoflop import ParabolaFit
from delphi_jax.results.law import LawFit
from delphi_jax.status import Status

__all__ = ["OvertrainingFit", "OvertrainingScale"]


@dataclass(frozen=True)
class OvertrainingScale:
    """What training at ``scale`` times the optimal tokens costs; G budgets on the search grid."""

    scale: float
    """T/T*"""
    status: Status
    """FITTED, NOT_REACHED where the curve never falls to the target within the grid, or CURVATURE_NOT_POSITIVE where a
    bucket has no minimum on the side of ``scale``: then there is no curve, and what follows from it is NaN."""
    shifted_loss: Floats
    """[n buckets] loss of each bucket's one-sided parabola at scale * T*."""
    loss: Floats
    """[G] sub-optimal curve: law + penalty."""
    compute_equivalent: float
    """FLOPs needed to match the forecast; the end of the grid where not reached."""
    tokens_equivalent: float
    """Tokens of the run that matches: scale * T*(compute_equivalent)."""
    overhead: float
    """Percent of the forecast budget."""


@dataclass(frozen=True, eq=False, repr=False)
class OvertrainingFit(Result):
    """The overtraining forecast of one suite at one budget."""

    suite: str
    forecast_budget: float
    parabolas: tuple[ParabolaFit, ...]
    law: LawFit
    token_slope: float
    token_intercept: float
    """log10 T* = token_intercept + token_slope * log10 C."""
    compute: Floats
    """[G] the search grid, FLOPs."""
    scales: tuple[OvertrainingScale, ...]
    definition: Definition = field(default_factory=delphi, metadata={"beside": True})

    def tokens_at(self, compute: Any) -> Floats:
        """Compute-optimal tokens at ``compute`` FLOPs, any shape."""
        log_tokens = self.token_slope * np.log10(np.asarray(compute, dtype=np.float64)) + self.token_intercept
        return 10.0**log_tokens

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "suite": self.suite,
                "tokens / optimal tokens": line.scale,
                "compute to match (FLOPs)": line.compute_equivalent,
                "extra compute (%)": line.overhead,
                "law": self.law.status.label,
                "status": line.status.label,
            }
            for line in self.scales
        ]
