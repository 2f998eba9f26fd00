"""Leave-one-out predictions of Gaussian processes, all sweep cells at once.

In closed form, with length scales, amplitude and noise held at those of all trials (Rasmussen & Williams 2006,
equations 5.10 to 5.12; Sundararajan & Keerthi 2001). In NumPy: it is one inverse per cell.

Axes: B cells, N trials (padded, masked), F features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from delphi_jax.formulas import matern52
from delphi_jax.results import Floats

__all__ = ["Accuracy", "LeftOut", "accuracy", "leave_one_out"]


class LeftOut(NamedTuple):
    """Predictive distribution of every trial from the others of its cell; fields [B, N], NaN at padding."""

    mean: Floats
    variance: Floats
    """Of the loss, noise included."""


class Accuracy(NamedTuple):
    """How well the left-out trials of B cells are predicted; fields [B], NaN where there is none."""

    r2: Floats
    log_density: Floats


def leave_one_out(
    features: Floats,
    y: Floats,
    mask: NDArray[np.bool_],
    amplitude: Floats,
    noise: Floats,
    *,
    level_known: bool,
) -> LeftOut:
    """``features`` [B, N, F] in length scales, loss ``y`` and ``mask`` [B, N], ``amplitude`` and ``noise`` [B] (both
    variances; what else stands on the training diagonal is part of the noise).

    With ``level_known`` the process is about 0. Otherwise its level is estimated by generalised least squares, anew
    without each trial (Dubrule 1983).
    """
    pair = mask[:, :, None] & mask[:, None, :]
    X, y = np.where(mask[:, :, None], features, 0.0), np.where(mask, y, 0.0)
    distance2 = np.sum((X[:, :, None, :] - X[:, None, :, :]) ** 2, axis=-1)
    covariance = np.where(pair, amplitude[:, None, None] * matern52(np.sqrt(5.0 * distance2)), 0.0)
    diagonal = np.where(mask, noise[:, None], 1.0)
    inverse = np.where(pair, np.linalg.inv(covariance + diagonal[:, :, None] * np.eye(mask.shape[1])), 0.0)
    if not level_known:
        ones = inverse.sum(axis=2)
        inverse -= ones[:, :, None] * ones[:, None, :] / np.maximum(ones.sum(axis=1), 1e-300)[:, None, None]
    variance = 1.0 / np.where(mask, np.diagonal(inverse, axis1=1, axis2=2), np.nan)
    return LeftOut(y - np.einsum("bij,bj->bi", inverse, y) * variance, variance)


def accuracy(left_out: LeftOut, y: Floats, mask: NDArray[np.bool_]) -> Accuracy:
    """Of ``left_out`` predictions of ``y``, both [B, N]: 1 - sum of squared errors over that of the mean of the others,
    and the mean log density."""
    n = mask.sum(axis=1)
    some = n > 1
    y = np.where(mask, y, 0.0)
    count = np.maximum(n, 2)
    off = np.where(mask, y - (y.sum(axis=1) / count)[:, None], 0.0) * (count / (count - 1))[:, None]
    error2 = np.where(mask, (y - left_out.mean) ** 2, 0.0)
    total = np.sum(off**2, axis=1)
    r2 = np.where(some & (total > 0), 1.0 - error2.sum(axis=1) / np.where(total > 0, total, 1.0), np.nan)
    variance = np.where(mask, left_out.variance, 1.0)
    density = np.where(mask, -0.5 * (np.log(2 * np.pi * variance) + error2 / variance), 0.0)
    return Accuracy(r2, np.where(some, density.sum(axis=1) / count, np.nan))
