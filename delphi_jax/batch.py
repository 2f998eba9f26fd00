"""Ragged tables to padded arrays and masks; the last place that knows what a column means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["GRID_TOP", "asymptote_grid", "pad", "padded_length"]

Floats = NDArray[np.float64]

GRID_TOP = 0.95
"""The L_inf grid ends at this share of the smallest loss."""

_STEP = 8
"""Padded lengths are multiples of this, so that studies of similar size share their compiled kernels."""


def padded_length(lengths: Sequence[int]) -> int:
    """The padded length that holds every one of ``lengths``."""
    longest = max(lengths, default=0)
    return max(_STEP, -(-longest // _STEP) * _STEP)


def pad(rows: Sequence[Floats], length: int | None = None) -> tuple[Floats, NDArray[np.bool_]]:
    """Ragged ``rows`` (B arrays) as ([B, P] values with zeros behind, [B, P] mask True for real points)."""
    lengths = [len(row) for row in rows]
    width = padded_length(lengths) if length is None else length
    values = np.zeros((len(rows), width))
    mask = np.arange(width) < np.array(lengths, dtype=np.int64)[:, None]
    for line, row in zip(values, rows, strict=True):
        line[: len(row)] = row
    return values, mask


def asymptote_grid(smallest: Floats | float, n_grid: int) -> Floats:
    """Candidate asymptotes (methods, section 3): ``n_grid`` values from 0 to GRID_TOP * ``smallest``, [..., G].

    Made by NumPy, not in the kernels: the chosen value is reported, and must equal that of ``np.linspace`` to
    the last bit (which ``np.linspace`` itself misses for a batch with a zero in it, as padding has).
    """
    if n_grid < 2:
        raise ValueError(f"n_grid must be at least 2, got {n_grid}")
    top = GRID_TOP * np.asarray(smallest, dtype=np.float64)[..., None]
    grid = np.arange(n_grid) * (top / (n_grid - 1))
    grid[..., -1:] = top
    return grid
