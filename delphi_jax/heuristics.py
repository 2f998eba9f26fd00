"""The recipe's hyper-parameter heuristic, and the axes of the sweep that it is compared with.

"Complete(d) AdamH": values at a reference point (batch size 64, 2.5e9 tokens), scaled with batch size and
token horizon by the rules below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["BATCH_SIZES", "FEATURES", "HIDDEN_DIMS", "HORIZONS", "Horizon", "heuristic_point"]

BATCH_SIZES = (8, 16, 32, 64)
HIDDEN_DIMS = (256, 512)

FEATURES = ("lr", "adam_lr", "epsilon", "beta1", "beta2")
"""Canonical order of the five hyper-parameters."""


@dataclass(frozen=True)
class Horizon:
    """A token bucket of the sweep."""

    key: str
    nominal_tokens: float
    below: float
    """Runs with fewer tokens than this, and at least the previous bucket's, belong here."""


HORIZONS = (Horizon("1B", 1e9, 1.75e9), Horizon("2.5B", 2.5e9, 3.0e9), Horizon("5B", 5e9, math.inf))

_REFERENCE_BATCH = 64
_REFERENCE_TOKENS = 2.5e9


def heuristic_point(batch_size: int, nominal_tokens: float) -> dict[str, float]:
    """The recipe's hyper-parameters, in their original units, at a batch size and token horizon."""
    batch_ratio = batch_size / _REFERENCE_BATCH
    ratio = (batch_size * _REFERENCE_TOKENS) / (_REFERENCE_BATCH * nominal_tokens)
    return {
        "lr": 0.00630 * math.sqrt(batch_ratio) * (_REFERENCE_TOKENS / nominal_tokens) ** 0.3,
        "adam_lr": 0.000656 * math.sqrt(ratio),
        "epsilon": 1.85e-8 * math.sqrt(1 / ratio),
        "beta1": 0.9,
        "beta2": min(max(0.9999**batch_ratio, 0.9), 0.9999),
    }
