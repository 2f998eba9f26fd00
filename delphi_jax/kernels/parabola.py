"""IsoFLOP parabolas of many groups at once (methods, section 2; Hoffmann et al. 2022, approach 2).

Least squares of L = a*x^2 + b*x + c, x = log10 tokens, in polynomials orthogonal on the group's own points,
which needs no linear solver and loses no digits to the narrow range of x.

Axes: B groups, P points (padded; mask True for real points, padded values may be anything).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from delphi_jax.formulas import parabola
from delphi_jax.kernels.precision import jit64
from delphi_jax.status import Status

__all__ = ["CHUNK", "Parabola", "fit_parabola", "fit_parabolas"]

CHUNK = 1024
"""Groups that are worth a device: their closed form takes less time than handing them out."""
_DISTINCT = 1e-12
"""Share of the quartic moment below which a group counts as having fewer than three distinct x."""


class Parabola(NamedTuple):
    """Parabolas of B groups; every field has shape [B], or [] from :func:`fit_parabola`."""

    a: jax.Array
    b: jax.Array
    c: jax.Array
    vertex: jax.Array
    """Unclipped vertex, log10 tokens."""
    x_star: jax.Array
    loss_star: jax.Array
    log_params_star: jax.Array
    curvature_under: jax.Array
    curvature_over: jax.Array
    under_measured: jax.Array
    over_measured: jax.Array
    score: jax.Array
    status: jax.Array


def fit_parabola(x: jax.Array, loss: jax.Array, log_params: jax.Array, mask: jax.Array) -> Parabola:
    """One group: ``x`` = log10 tokens, ``loss``, ``log_params`` = log10 params, ``mask``, each [P]."""
    rows = jnp.where(mask, jnp.stack([x, loss, log_params]), 0.0)
    n = jnp.sum(mask)
    safe_n = jnp.maximum(n, 1)
    means = jnp.sum(rows, axis=1) / safe_n
    mean_x, mean_loss, mean_params = means
    t, loss_gap, params_gap = jnp.where(mask, rows - means[:, None], 0.0)
    # Few reductions: each costs the compiler as much as a loop of its own.
    basis = jnp.stack([t, t**2])
    (s2, s3, t_loss, t_params), (_, s4, t2_loss, _) = jnp.sum(
        basis[:, None] * jnp.stack([*basis, loss_gap, params_gap])[None, :], axis=2
    )
    safe_s2 = jnp.where(s2 > 0, s2, 1.0)
    # Squared norm of t^2 made orthogonal to 1 and t, and its product with the loss.
    s_q = s4 - s2**2 / safe_n - s3**2 / safe_s2
    enough = (n >= 3) & (s_q > _DISTINCT * s4)

    a = (t2_loss - t_loss * s3 / safe_s2) / jnp.where(enough, s_q, 1.0)
    slope = t_loss / safe_s2 - a * s3 / safe_s2
    level = mean_loss - a * s2 / safe_n

    lowest, highest = jnp.min(jnp.where(mask, x, jnp.inf)), jnp.max(jnp.where(mask, x, -jnp.inf))
    straight = jnp.where(slope == 0, mean_x, jnp.where(slope > 0, -jnp.inf, jnp.inf))
    vertex = jnp.where(a == 0, straight, mean_x - slope / jnp.where(a == 0, 1.0, 2 * a))
    x_star = jnp.clip(vertex, lowest, highest)
    loss_star = parabola(x_star - mean_x, a, slope, level)
    log_params_star = mean_params + t_params / safe_s2 * (x_star - mean_x)

    from_star = t - (x_star - mean_x)
    sides = jnp.where(mask, jnp.stack([from_star < 0, from_star > 0]), False)
    excess = jnp.stack([from_star**4, from_star**2 * (loss_gap + mean_loss - loss_star)])
    (weight_under, weight_over), (rise_under, rise_over) = jnp.sum(sides * excess[:, None], axis=2)

    def one_sided(weight: jax.Array, rise: jax.Array) -> tuple[jax.Array, jax.Array]:
        coefficient = rise / jnp.where(weight > 0, weight, 1.0)
        measured = (weight > 0) & (coefficient > 0)
        return jnp.where(measured, coefficient, a), measured

    curvature_under, under_measured = one_sided(weight_under, rise_under)
    curvature_over, over_measured = one_sided(weight_over, rise_over)
    status = jnp.where(
        ~enough,
        Status.TOO_FEW_POINTS,
        jnp.where(
            a <= 0,
            Status.CURVATURE_NOT_POSITIVE,
            jnp.where((vertex < lowest) | (vertex > highest), Status.CLIPPED_TO_EDGE, Status.FITTED),
        ),
    )
    return Parabola(
        a=a,
        b=slope - 2 * a * mean_x,
        c=parabola(-mean_x, a, slope, level),
        vertex=vertex,
        x_star=x_star,
        loss_star=loss_star,
        log_params_star=log_params_star,
        curvature_under=curvature_under,
        curvature_over=curvature_over,
        under_measured=under_measured,
        over_measured=over_measured,
        score=jnp.sum(jnp.where(mask, loss_gap - parabola(t, a, slope, level - mean_loss), 0.0) ** 2) / safe_n,
        status=status,
    )


@jit64()
def fit_parabolas(x: jax.Array, loss: jax.Array, log_params: jax.Array, mask: jax.Array) -> Parabola:
    """All groups at once; every argument [B, P]. Numbers of a group that is not usable mean nothing."""
    return jax.vmap(fit_parabola)(x, loss, log_params, mask)
