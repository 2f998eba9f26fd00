"""The hyper-parameter sweep's processes and partial dependence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from delphi_jax.results.base import Floats, Result
from delphi_jax.status import Status
from delphi_jax.tables import Skipped

__all__ = ["CellFit", "PartialDependence", "SweepFit"]

_CELLS_SHOWN = 6
"""Sweep cells that a sentence names before "and n more"."""


@dataclass(frozen=True, eq=False)
class PartialDependence:
    """Partial dependence of the loss on one hyper-parameter within one sweep cell; G grid values."""

    grid: Floats
    """[G] in the feature's logarithmic units (log lr, ..., log(1 - beta))."""
    mean: Floats
    """[G]"""
    sd: Floats
    """[G]"""
    heuristic: float
    """The recipe's value, same units as the grid."""
    heuristic_mean: float
    heuristic_in_support: bool


@dataclass(frozen=True, eq=False, repr=False)
class CellFit(Result):
    """Gaussian process of one sweep cell (batch size, hidden dim, token horizon); n trials, F features."""

    batch_size: int
    hidden_dim: int
    horizon: str
    status: Status
    n_finished: int
    """Finished trials before the trim of the worst losses."""
    loss_cap: float
    """95th percentile of the loss: trials above are left out."""
    features: Floats
    """[n, F] trials kept, logarithmic units."""
    loss: Floats
    """[n]"""
    length_scale: float = np.nan
    noise: float = np.nan
    log_likelihood: float = np.nan
    bounds_hit: tuple[str, ...] = ()
    dependence: tuple[PartialDependence, ...] = ()
    """[F], in the canonical order of :data:`delphi_jax.heuristics.FEATURES`."""
    interpolating_gain: float = 0.0
    """How much higher the log likelihood of a second mode is, one that runs through nearly every trial; 0 where
    there is none. The curves follow the broad mode all the same: they are the study's published ones."""

    @property
    def fitted(self) -> bool:
        return self.status.usable

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"(B={self.batch_size}, H={self.hidden_dim}, T={self.horizon})"

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "batch size": self.batch_size,
                "hidden dim": self.hidden_dim,
                "horizon": self.horizon,
                "trials": self.n_finished,
                "used": len(self.loss),
                "length scale": self.length_scale,
                "noise": self.noise,
                "log likelihood": self.log_likelihood,
                "on a bound": ", ".join(self.bounds_hit),
                "higher, interpolating mode": self.interpolating_gain,
                "status": self.status.label,
            }
        ]


@dataclass(frozen=True, eq=False, repr=False)
class SweepFit(Result):
    """All cells of the hyper-parameter sweep in canonical order (batch size, hidden dim, horizon)."""

    cells: tuple[CellFit, ...]
    skipped: tuple[Skipped, ...] = ()

    def cell(self, batch_size: int, hidden_dim: int, horizon: str) -> CellFit:
        """One cell; KeyError where the sweep has no such cell."""
        for cell in self.cells:
            if (cell.batch_size, cell.hidden_dim, cell.horizon) == (batch_size, hidden_dim, horizon):
                return cell
        raise KeyError((batch_size, hidden_dim, horizon))

    def notices(self) -> list[str]:
        """A sentence for every status that is not FITTED, and for likelier second modes, with the cells."""
        sentences = []
        for status in Status:
            names = [cell.name for cell in self.cells if cell.status is status]
            if names and status is not Status.FITTED:
                shown = ", ".join(names[:_CELLS_SHOWN])
                more = f" and {len(names) - _CELLS_SHOWN} more" if len(names) > _CELLS_SHOWN else ""
                sentences.append(f"process of sweep cells {shown}{more}: {status.label}; {status.remedy}")
        likelier = [cell for cell in self.cells if cell.interpolating_gain > 0]
        if likelier:
            cells = ", ".join(f"{cell.name} by {cell.interpolating_gain:.2f}" for cell in likelier)
            sentences.append(
                "process of sweep cells with a likelier mode that runs through nearly every trial (log likelihood): "
                f"{cells}; the curves follow the broad mode"
            )
        return sentences

    def rows(self) -> list[dict[str, Any]]:
        return [row for cell in self.cells for row in cell.rows()]
