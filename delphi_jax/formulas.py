"""The closed forms of the methods, each once, for NumPy and JAX arrays alike.

Functions use operators and the array's own namespace only, so that kernels (traced) and results (NumPy)
evaluate the same expression.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "FLOPS_PER_PARAM_TOKEN",
    "compute_multiplier",
    "law_loss",
    "law_loss_at_log",
    "matern52",
    "optimal_law",
    "optimal_params",
    "overhead_percent",
    "parabola",
    "residual_percent",
    "richards",
    "richards_inverse",
    "speedup",
    "surface_loss",
]

Array = Any

FLOPS_PER_PARAM_TOKEN = 6.0
"""Compute of training is about 6*N*D FLOPs (Kaplan et al. 2020): two forwards, four backwards."""


def parabola(x: Array, a: Array, b: Array, c: Array) -> Array:
    """``a*x**2 + b*x + c``, with ``x`` = log10 tokens."""
    return (a * x + b) * x + c


def law_loss(compute: Array, L_inf: Array, A: Array, alpha: Array) -> Array:
    """Asymptotic power law L(C) = L_inf + A*C**-alpha (Hoffmann et al. 2022, with an irreducible loss)."""
    return L_inf + A * compute**-alpha


def law_loss_at_log(log_compute: Array, L_inf: Array, log_A: Array, alpha: Array) -> Array:
    """:func:`law_loss` at log C, with log A; arrays."""
    return L_inf + log_compute.__array_namespace__().exp(log_A - alpha * log_compute)


def speedup(slow: Array, fast: Array, alpha: Array) -> Array:
    """Compute that the slow of two recipes needs over that of the fast one for the same loss.

    ``slow``, ``fast``: their reducible losses L - L_inf at one budget, positive. With L = L_inf + A*C**-alpha for both,
    s times the compute divides the reducible loss by s**alpha; so s = (slow/fast)**(1/alpha), whatever the budget.
    """
    return (slow / fast) ** (1 / alpha)


def compute_multiplier(compute: Array, law: tuple[Array, Array, Array], other: tuple[Array, Array, Array]) -> Array:
    """Times the ``compute`` that the ``other`` law needs for the loss of ``law`` there; laws are (L_inf, log A, alpha).

    Infinite where that loss is not above the other's L_inf: it is not reachable at any budget. Formed as a difference
    of asymptotes, so that it is exactly 1 between equal laws; with one L_inf and alpha it is :func:`speedup`. A may be
    too large to be written down, so laws have its logarithm.
    """
    xp = compute.__array_namespace__()
    (L_inf, log_A, alpha), (other_L_inf, other_log_A, other_alpha) = law, other
    log_compute = xp.log(compute)
    fast = law_loss_at_log(log_compute, L_inf - other_L_inf, log_A, alpha)
    reached = fast > 0
    slow = law_loss_at_log(log_compute, 0.0, other_log_A, other_alpha)
    return xp.where(reached, speedup(slow, xp.where(reached, fast, 1.0), other_alpha), xp.inf)


def surface_loss(params: Array, tokens: Array, E: Array, A: Array, B: Array, a: Array, b: Array) -> Array:
    """Loss surface L(N, D) = E + A/N**a + B/D**b (Hoffmann et al. 2022, equation 2)."""
    return E + A * params**-a + B * tokens**-b


def optimal_params(budget: Array, A: Array, B: Array, a: Array, b: Array) -> Array:
    """N of the lowest :func:`surface_loss` where N*D = ``budget`` (Hoffmann et al. 2022, equation 4).

    ``budget`` is C/6 where C = 6*N*D FLOPs; D is ``budget``/N.
    """
    return (a * A / (b * B)) ** (1 / (a + b)) * budget ** (b / (a + b))


def optimal_law(A: Array, B: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """(amplitude, alpha) of the lowest :func:`surface_loss` where N*D is a budget: E + amplitude * budget**-alpha."""
    unit = optimal_params(1.0, A, B, a, b)
    return A * unit**-a + B * unit**b, a * b / (a + b)


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


def matern52(r: Array) -> Array:
    """Matern-5/2 correlation at r = sqrt(5)*distance/length (Rasmussen & Williams 2006, equation 4.17); an array."""
    return (1.0 + r + r * r / 3.0) * r.__array_namespace__().exp(-r)


def residual_percent(observed: Array, predicted: Array) -> Array:
    """100*(observed - predicted)/predicted."""
    return 100.0 * (observed - predicted) / predicted


def overhead_percent(compute_equivalent: Array, compute: Array) -> Array:
    """Extra compute to match a loss, in percent of ``compute``."""
    return 100.0 * (compute_equivalent - compute) / compute
