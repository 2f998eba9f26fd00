"""Whether IsoFLOP runs bend otherwise than a parabola: F tests of a cubic and of a quartic term.

Sums of squares of polynomials orthogonal on each group's own points (Forsythe 1957): the term of degree k explains
E_k of what degree k - 1 leaves, and S_k is left. With even normal noise, F = E_k / (S_k / (n - k - 1)) has the F
distribution of (1, n - k - 1) degrees of freedom where the term is zero. Summed over groups, and the numerator divided
by their number, it has that of (groups, sum(n - k - 1)) where the term is zero in all.

Axes: B groups, P points (padded; mask True for real points), T the two terms, cubic and quartic.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from delphi_jax.kernels.precision import jit64

__all__ = ["CHUNK", "Terms", "explain_terms", "f_tail"]

CHUNK = 1024
"""Groups that are worth a device, as for parabolas."""
_DEGREES = (3, 4)


class Terms(NamedTuple):
    """The terms of B groups, each [B, T]; of a term that the points cannot tell, ``freedom`` is 0."""

    explained: jax.Array
    left: jax.Array
    freedom: jax.Array
    """n - k - 1"""
    sign: jax.Array
    """Of the term's coefficient: a positive cubic one is steeper towards more tokens."""


def _terms(x: jax.Array, loss: jax.Array, mask: jax.Array) -> Terms:
    n = jnp.sum(mask)
    lowest, highest = jnp.min(jnp.where(mask, x, jnp.inf)), jnp.max(jnp.where(mask, x, -jnp.inf))
    half = jnp.where(highest > lowest, (highest - lowest) / 2, 1.0)
    u = jnp.where(mask, (x - (lowest + highest) / 2) / half, 0.0)
    y = jnp.where(mask, loss, 0.0)
    noise = 16 * n * (jnp.finfo(y.dtype).eps * jnp.max(jnp.abs(y))) ** 2
    same = mask[:, None] & mask[None, :] & (x[:, None] == x[None, :])
    distinct = jnp.sum(mask & ~jnp.any(jnp.tril(same, -1), axis=1))

    before, now = jnp.zeros_like(u), mask.astype(u.dtype)
    norm_before, found = jnp.ones_like(half), []
    for degree in range(max(_DEGREES) + 1):
        norm = jnp.sum(now**2)
        safe = jnp.where(norm > 0, norm, 1.0)
        coefficient = jnp.sum(now * y) / safe
        y = y - coefficient * now
        if degree in _DEGREES:
            possible = (distinct > degree) & (n > degree + 1)
            # Residuals of rounding size are no evidence of anything.
            terms = coefficient**2 * norm, jnp.sum(y**2) + noise, n - degree - 1, jnp.sign(coefficient)
            found.append(tuple(jnp.where(possible, value, 0.0) for value in terms))
        raised = (u - jnp.sum(u * now**2) / safe) * now - norm / norm_before * before
        before, now, norm_before = now, raised, safe
    return Terms(*(jnp.stack(values) for values in zip(*found, strict=True)))


@jit64()
def explain_terms(x: jax.Array, loss: jax.Array, mask: jax.Array) -> Terms:
    """What a cubic and a quartic term explain; ``x`` = log10 tokens, ``loss``, ``mask``: [B, P]."""
    return jax.vmap(_terms)(x, loss, mask)


@jit64()
def f_tail(explained: jax.Array, left: jax.Array, terms: jax.Array, freedom: jax.Array) -> jax.Array:
    """P(F >= (explained/terms) / (left/freedom)) for (terms, freedom) degrees of freedom, elementwise; NaN for none."""
    possible = (terms > 0) & (freedom > 0) & (left > 0)
    share = jnp.where(possible, left / jnp.where(possible, left + explained, 1.0), 0.5)
    d1, d2 = (jnp.where(possible, degrees, 1.0) / 2 for degrees in (terms, freedom))
    return jnp.where(possible, jax.scipy.special.betainc(d2, d1, share), jnp.nan)
