"""The closed forms of the methods, each once, for NumPy and JAX arrays alike.

Functions use operators and the array's own namespace only, so that kernels (traced) and results (NumPy)
evaluate the same expression.
"""

from __future__ import annotations

from typing import Any

__all__ = ["law_loss", "overhead_percent", "parabola", "residual_percent", "richards", "richards_inverse"]

Array = Any


def parabola(x: Array, a: Array, b: Array, c: Array) -> Array:
    """``a*x**2 + b*x + c``, with ``x`` = log10 tokens."""
    return (a * x + b) * x + c


def law_loss(compute: Array, L_inf: Array, A: Array, alpha: Array) -> Array:
    """Asymptotic power law L(C) = L_inf + A*C**-alpha (Hoffmann et al. 2022, with an irreducible loss)."""
    return L_inf + A * compute**-alpha


def richards(x: Array, k: Array, x0: Array, v: Array, ceiling: Array, floor: Array) -> Array:
    """Generalised logistic curve (Richards 1959): floor + (ceiling - floor) / (1 + exp(-k*(x - x0)))**v."""
    xp = x.__array_namespace__()
    u = -k * (x - x0)
    # log(1 + e^u) without overflow; logaddexp would warn of the NaN of a curve that was not fitted.
    softplus = xp.maximum(u, u * 0) + xp.log1p(xp.exp(-xp.abs(u)))
    return floor + (ceiling - floor) * xp.exp(-v * softplus)


def richards_inverse(y: Array, k: Array, x0: Array, v: Array, ceiling: Array, floor: Array) -> Array:
    """The x at which :func:`richards` equals ``y``, floor < y < ceiling; ``y`` is an array."""
    xp = y.__array_namespace__()
    return x0 - xp.log(((y - floor) / (ceiling - floor)) ** (-1 / v) - 1) / k


def residual_percent(observed: Array, predicted: Array) -> Array:
    """100*(observed - predicted)/predicted."""
    return 100.0 * (observed - predicted) / predicted


def overhead_percent(compute_equivalent: Array, compute: Array) -> Array:
    """Extra compute to match a loss, in percent of ``compute``."""
    return 100.0 * (compute_equivalent - compute) / compute
