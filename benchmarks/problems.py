"""Made-up problems of any size, the same for every benchmark that asks for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks import baseline
from delphi_jax.batch import pad
from delphi_jax.kernels.dependence import Dependence, partial_dependence
from delphi_jax.kernels.process import Process, fit_processes

__all__ = ["CELL_TRIALS", "Cells", "Curves", "budgets", "noisy_laws", "richards_curves", "sweep_cells"]

Floats = NDArray[np.float64]

CELL_TRIALS = 37
"""Trials of a made-up cell: about as many as the fullest of the bundled study."""
_CURVE_POINTS = 17
_FEATURES = 5
_VALUES = 80


def budgets(n_points: int = 7) -> Floats:
    """Compute budgets of one series, FLOPs, [n_points]."""
    return np.geomspace(3e18, 3e20, n_points)


def noisy_laws(rng: np.random.Generator, n: int, n_points: int = 7) -> Floats:
    """Losses of ``n`` laws with a floor on :func:`budgets`, with noise, [n, n_points]."""
    compute = budgets(n_points)
    floor, excess, alpha = (rng.uniform(*ends, (n, 1)) for ends in ((0.5, 2.0), (0.8, 3.0), (0.05, 0.3)))
    return floor + excess * (compute / compute[0]) ** -alpha * np.exp(rng.normal(0, 1e-3, (n, n_points)))


@dataclass(frozen=True)
class Curves:
    """Richards curves with noise."""

    x: Floats
    """[n, 17]"""
    y: Floats
    floor: Floats
    """[n]"""


def richards_curves(rng: np.random.Generator, n: int) -> Curves:
    """``n`` curves whose points cover the rise in part, in whole, or hardly."""
    floors = rng.choice([0.0, 0.25], n)
    shapes = np.column_stack([rng.uniform(*ends, n) for ends in ((3, 15), (-1.1, -0.5), (0.5, 4), (0.6, 0.95))])
    x = np.sort(rng.uniform(-1.6, -0.2, (n, _CURVE_POINTS)))
    curves = [baseline.richards(row, *shape, floor) for row, shape, floor in zip(x, shapes, floors, strict=True)]
    return Curves(x, np.array(curves) + rng.normal(0, 0.01, x.shape), floors)


@dataclass(frozen=True)
class Cells:
    """Cells of a sweep, standardised, without padding."""

    features: Floats
    """[n, CELL_TRIALS, 5]"""
    loss: Floats
    values: Floats
    """[n, 5, 80] values of the partial dependence."""

    def fitter(self) -> Callable[[], tuple[Process, Dependence]]:
        """The work on all cells, padded beforehand: their processes, and the dependence at their values."""
        loss, mask = pad(list(self.loss))
        features = np.zeros((*loss.shape, self.features.shape[2]))
        features[:, :CELL_TRIALS] = self.features

        def fit() -> tuple[Process, Dependence]:
            fits = fit_processes(features, loss, mask)
            return fits, partial_dependence(features, loss, mask, fits.length_scale, fits.noise, self.values)

        return fit


def sweep_cells(rng: np.random.Generator, n: int) -> Cells:
    """``n`` cells in which two of five features matter."""
    features = rng.normal(size=(n, CELL_TRIALS, _FEATURES))
    features = (features - features.mean(axis=1, keepdims=True)) / features.std(axis=1, keepdims=True)
    loss = 3.4 + 0.05 * features[..., 0] ** 2 + 0.03 * features[..., 1] + rng.normal(0, 0.01, features.shape[:2])
    values = np.linspace(features.min(axis=1), features.max(axis=1), _VALUES, axis=-1)
    return Cells(features, loss, values)
