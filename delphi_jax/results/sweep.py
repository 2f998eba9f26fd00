"""The hyper-parameter sweep's processes and partial dependence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from delphi_jax.heuristics import SweepDesign
from delphi_jax.labels import ARD, BROAD, PROCESS_NAMES
from delphi_jax.results.base import BESIDE, Floats, Result
from delphi_jax.status import Status
from delphi_jax.tables import Skipped

__all__ = ["CellFit", "LeaveOneOut", "PartialDependence", "SweepFit"]

_CELLS_SHOWN = 6
"""Sweep cells that a sentence names before "and n more"."""
_EXPLAINS_LITTLE = 0.1
"""Leave-one-out R2 below which a process is said to explain little."""


@dataclass(frozen=True)
class LeaveOneOut:
    """How well a process predicts every trial from the others of its cell, its hyper-parameters held at those of all
    trials: a flattering figure where they are many for the trials."""

    r2: float
    """1 - sum of squared errors over that of the mean of the other trials; negative where that mean is better."""
    log_density: float
    """Mean log predictive density of the left-out loss, noise included."""


@dataclass(frozen=True, eq=False)
class PartialDependence:
    """Partial dependence of the loss on one hyper-parameter within one sweep cell; G grid values."""

    grid: Floats
    """[G] on the scale of the hyper-parameter's transform (log lr, ..., log(1 - beta))."""
    mean: Floats
    """[G]"""
    sd: Floats
    """[G] of the averaged process; with the white noise in it for the reference's process, without for ARD."""
    heuristic: float
    """The recipe's value, same units as the grid; NaN where it has none."""
    heuristic_mean: float
    heuristic_in_support: bool


@dataclass(frozen=True, eq=False, repr=False)
class CellFit(Result):
    """Gaussian process of one sweep cell (batch size, hidden dim, token horizon); n trials, F features."""

    design: SweepDesign = field(metadata=BESIDE)
    batch_size: int
    hidden_dim: int
    horizon: str
    status: Status
    n_finished: int
    """Finished trials before the trim of the worst losses."""
    loss_cap: float
    """95th percentile of the loss: trials above are left out."""
    features: Floats
    """[n, F] trials kept, on the scales of the transforms."""
    loss: Floats
    """[n]"""
    length_scale: float = np.nan
    """In standard deviations of each hyper-parameter; NaN for ARD."""
    noise: float = np.nan
    """Variance of the white noise."""
    log_likelihood: float = np.nan
    bounds_hit: tuple[str, ...] = ()
    dependence: tuple[PartialDependence, ...] = ()
    """[F], in the order of the design."""
    interpolating_gain: float = 0.0
    """How much higher the log likelihood of a second mode is, one that runs through nearly every trial; 0 where
    there is none. The curves follow the broad mode all the same: they are the study's published ones."""

    process: str = BROAD
    """One of :data:`delphi_jax.labels.PROCESSES`."""
    length_scales: Floats = field(default_factory=lambda: np.empty(0))
    """[F] in standard deviations of each hyper-parameter; all the same for the reference's process."""
    amplitude: float = np.nan
    """Variance of the process without noise; 1 for the reference's."""
    mean: float = np.nan
    """Level of the process; 0 for the reference's."""
    leave_one_out: Mapping[str, LeaveOneOut] = field(default_factory=dict)
    """By process: of ``process``, and of the reference's broad one beside ARD."""

    @property
    def fitted(self) -> bool:
        return self.status.usable

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"(B={self.batch_size}, H={self.hidden_dim}, T={self.horizon})"

    @property
    def r2(self) -> float:
        """Leave-one-out R2 of the process that the curves follow, NaN where it was not fitted."""
        return self._left_out(self.process, "r2")

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "batch size": self.batch_size,
                "hidden dim": self.hidden_dim,
                "horizon": self.horizon,
                "trials": self.n_finished,
                "used": len(self.loss),
                **(self._ard_columns() if self.process == ARD else self._reference_columns()),
                "status": self.status.label,
            }
        ]

    def _reference_columns(self) -> dict[str, Any]:
        return {
            "length scale": self.length_scale,
            "noise": self.noise,
            "log likelihood": self.log_likelihood,
            "on a bound": ", ".join(self.bounds_hit),
            "higher, interpolating mode": self.interpolating_gain,
            "LOO R2": self.r2,
            "LOO log density": self._left_out(self.process, "log_density"),
        }

    def _ard_columns(self) -> dict[str, Any]:
        lengths = " ".join(f"{length:.4g}" for length in self.length_scales) if self.fitted else ""
        return {
            f"length scales: {', '.join(self.design.keys)}": lengths,
            "mean": self.mean,
            "amplitude": self.amplitude,
            "noise": self.noise,
            "log likelihood": self.log_likelihood,
            "on a bound": ", ".join(self.bounds_hit),
            "LOO R2": self.r2,
            "LOO R2, reference": self._left_out(BROAD, "r2"),
            "LOO log density": self._left_out(ARD, "log_density"),
            "LOO log density, reference": self._left_out(BROAD, "log_density"),
        }

    def _left_out(self, process: str, value: str) -> float:
        found = self.leave_one_out.get(process)
        return np.nan if found is None else getattr(found, value)


@dataclass(frozen=True, eq=False, repr=False)
class SweepFit(Result):
    """All cells of the hyper-parameter sweep in canonical order (batch size, hidden dim, horizon)."""

    design: SweepDesign = field(metadata=BESIDE)
    cells: tuple[CellFit, ...]
    skipped: tuple[Skipped, ...] = ()
    process: str = BROAD
    """One of :data:`delphi_jax.labels.PROCESSES`."""

    def cell(self, batch_size: int, hidden_dim: int, horizon: str) -> CellFit:
        """One cell; KeyError where the sweep has no such cell."""
        for cell in self.cells:
            if (cell.batch_size, cell.hidden_dim, cell.horizon) == (batch_size, hidden_dim, horizon):
                return cell
        raise KeyError((batch_size, hidden_dim, horizon))

    def notices(self) -> list[str]:
        """A sentence for every status that is not FITTED, for likelier second modes, and on what is explained."""
        sentences = []
        for status in Status:
            cells = [cell for cell in self.cells if cell.status is status]
            if cells and status is not Status.FITTED:
                sentences.append(f"process of sweep cells {_named(cells)}: {status.label}; {status.remedy}")
        likelier = [cell for cell in self.cells if cell.interpolating_gain > 0]
        if likelier:
            cells = ", ".join(f"{cell.name} by {cell.interpolating_gain:.2f}" for cell in likelier)
            sentences.append(
                "process of sweep cells with a likelier mode that runs through nearly every trial (log likelihood): "
                f"{cells}; the curves follow the broad mode"
            )
        return sentences + self._on_what_is_explained()

    def rows(self) -> list[dict[str, Any]]:
        return [row for cell in self.cells for row in cell.rows()]

    def _on_what_is_explained(self) -> list[str]:
        fitted = [cell for cell in self.cells if cell.fitted]
        sentences = []
        little = [cell for cell in fitted if cell.r2 < _EXPLAINS_LITTLE]
        if little:
            advice = (
                "add trials, or vary the hyper-parameters more"
                if self.process == ARD
                else '--gp ard (process="ard") learns a level and a length scale per hyper-parameter'
            )
            sentences.append(
                f"the {PROCESS_NAMES[self.process]} explains little of the loss (leave-one-out R2 below "
                f"{_EXPLAINS_LITTLE:g}) in {len(little)} of {len(fitted)} sweep cells: "
                f"{', '.join(cell.name for cell in little)}; {advice}"
            )
        if self.process == ARD:
            both = [cell for cell in fitted if set(cell.leave_one_out) >= {ARD, BROAD}]
            worse = [cell for cell in both if cell.r2 < cell.leave_one_out[BROAD].r2]
            if both:
                own, other = (np.median([cell.leave_one_out[name].r2 for cell in both]) for name in (ARD, BROAD))
                sentences.append(
                    f"leave-one-out R2, median of {len(both)} sweep cells: {own:.2f} by the {PROCESS_NAMES[ARD]}, "
                    f"{other:.2f} by the {PROCESS_NAMES[BROAD]}"
                )
            if worse:
                sentences.append(
                    f"the {PROCESS_NAMES[ARD]} predicts left-out trials worse than the {PROCESS_NAMES[BROAD]} in "
                    f"{len(worse)} of {len(both)} sweep cells: {_named(worse)}"
                )
        return sentences


def _named(cells: list[CellFit]) -> str:
    """The first few cells, and how many more there are."""
    shown = ", ".join(cell.name for cell in cells[:_CELLS_SHOWN])
    return f"{shown} and {len(cells) - _CELLS_SHOWN} more" if len(cells) > _CELLS_SHOWN else shown
