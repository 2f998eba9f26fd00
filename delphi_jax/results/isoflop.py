"""IsoFLOP parabolas of a study."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from delphi_jax.definition import Definition, delphi
from delphi_jax.formulas import parabola
from delphi_jax.results.base import Floats, Result
from delphi_jax.status import Status

__all__ = ["IsoflopFit", "ParabolaFit"]


@dataclass(frozen=True, eq=False, repr=False)
class ParabolaFit(Result):
    """IsoFLOP parabola of one suite and compute budget: loss against x = log10 tokens."""

    suite: str
    bucket: float
    """Compute budget, FLOPs."""
    tokens: Floats
    """[n] runs that entered the fit, in table order."""
    params: Floats
    """[n]"""
    loss: Floats
    """[n], nats per token."""
    status: Status
    a: float = np.nan
    b: float = np.nan
    c: float = np.nan
    vertex_log_tokens: float = np.nan
    """-b/(2a), before clipping."""
    log_tokens_star: float = np.nan
    tokens_star: float = np.nan
    loss_star: float = np.nan
    params_star: float = np.nan
    curvature_under: float = np.nan
    """One-sided curvature left of the optimum (fewer tokens)."""
    curvature_over: float = np.nan
    one_sided: tuple[bool, bool] = (False, False)
    """Whether each one-sided curvature was measured; where not, it is the two-sided ``a``."""
    score: float = np.nan
    """Mean squared residual."""

    @property
    def fitted(self) -> bool:
        return self.status.usable

    def loss_at(self, log_tokens: Floats) -> Floats:
        """The parabola at x = log10 tokens, any shape."""
        return parabola(log_tokens, self.a, self.b, self.c)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "suite": self.suite,
                "compute budget (FLOPs)": self.bucket,
                "runs": len(self.loss),
                "optimal tokens": self.tokens_star,
                "optimal params": self.params_star,
                "optimal loss": self.loss_star,
                "curvature": self.a,
                "status": self.status.label,
            }
        ]


@dataclass(frozen=True, eq=False, repr=False)
class IsoflopFit(Result):
    """All IsoFLOP parabolas of a study, ordered by suite name, then budget; unfitted groups included."""

    parabolas: tuple[ParabolaFit, ...]
    definition: Definition = field(default_factory=delphi, metadata={"beside": True})

    @property
    def suites(self) -> tuple[str, ...]:
        """Suites with at least one run, in alphabetical order: the order that gives them their colours."""
        return tuple(sorted({fit.suite for fit in self.parabolas}))

    @property
    def buckets(self) -> tuple[float, ...]:
        """Compute budgets in FLOPs over all suites, ascending: the order that gives them their colours."""
        return tuple(sorted({fit.bucket for fit in self.parabolas}))

    def of(self, suite: str) -> tuple[ParabolaFit, ...]:
        """The fitted parabolas of one suite, by ascending budget."""
        return tuple(fit for fit in self.parabolas if fit.suite == suite and fit.fitted)

    def optima(self, suite: str) -> tuple[Floats, Floats, Floats]:
        """(compute FLOPs, optimal loss, optimal tokens) of one suite's fitted buckets, each [n]."""
        fits = self.of(suite)
        columns = [(fit.bucket, fit.loss_star, fit.tokens_star) for fit in fits]
        compute, loss, tokens = np.array(columns, dtype=np.float64).reshape(len(fits), 3).T
        return compute, loss, tokens

    def rows(self) -> list[dict[str, Any]]:
        return [row for fit in self.parabolas for row in fit.rows()]
