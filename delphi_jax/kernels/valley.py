"""The bottom of an IsoFLOP valley beside the parabola: a weighted smoothing spline around one, and its minimum.

f(x) = a*x**2 + s(x), x = log10 tokens, minimises sum w*(L - f(x))**2 + smoothing * integral of s''(x)**2 over a and all
natural cubic splines s. A plain smoothing spline (Reinsch 1967) is drawn towards a straight line, which has no minimum;
this one is drawn towards the parabola of the least squares, and leaves it only where the runs ask for it. The smoothing
has the lowest generalised cross-validation score (Craven and Wahba 1979),

    n * sum w*(L - f)**2 / (n - inflation*p)**2,   p = trace of the matrix that makes fitted values of losses.

With an ``inflation`` of 1, as they have it, few runs are followed too closely. With 1.4 (Kim and Gu 2004), minima of
simulated lopsided valleys came out nearer to the truth than the parabola's from seven runs on; fewer have the parabola.
The splines are solved by Reinsch's five-band system, its traces by Hutchinson and de Hoog (1985): Green and Silverman
1994, sections 2.3 and 3.2. Runs of the same tokens are one point with the sum of their weights.

Axes: B groups, P runs (padded; weight 0), G smoothing parameters, J = P - 2 inner knots.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from delphi_jax.kernels.chunks import in_chunks
from delphi_jax.kernels.precision import OLD_EMITTERS, jit64
from delphi_jax.status import Status

__all__ = ["CHUNK", "INFLATION", "LEAST_POINTS", "Valley", "fit_valley", "fit_valleys"]

CHUNK = 64
"""Groups computed at once."""
INFLATION = 1.4
"""What a degree of freedom costs in the cross-validation score."""
LEAST_POINTS = 3
"""Distinct x that the parabola inside needs."""

_ROUNDING = 1e-12
"""Of a place between points that span [-1, 1]."""

_RANGE = (-8.0, 4.0)
"""log10 smoothing, for points that span [-1, 1] and weights of mean 1: from interpolation to the parabola."""
_STEPS = 40
"""Of each search; the next one is between the neighbours of its best value."""
_SEARCHES = 3


class Valley(NamedTuple):
    """Valleys of B groups; every field has shape [B], or [] from :func:`fit_valley`."""

    x_star: jax.Array
    """Where the spline is lowest within the observed range, log10 tokens."""
    loss_star: jax.Array
    log_params_star: jax.Array
    """Regression of log10 params on x, at x_star, as the parabola's."""
    a: jax.Array
    """Curvature of the parabola inside."""
    smoothing: jax.Array
    """In the units of x and of the weights."""
    freedom: jax.Array
    """p: 3 where the spline is the parabola, the number of points where it runs through all."""
    score: jax.Array
    """Generalised cross-validation score, weights of mean 1."""
    status: jax.Array


class _Points(NamedTuple):
    """Distinct points in ascending order, on [-1, 1], padding at the end; [P] each unless said."""

    u: jax.Array
    loss: jax.Array
    weight: jax.Array
    """Of mean 1."""
    valid: jax.Array
    n: jax.Array
    """[]"""
    middle: jax.Array
    """[]"""
    half: jax.Array
    """[] Half the range of x."""
    mean_weight: jax.Array
    """[]"""


class _Bands(NamedTuple):
    """The five-band system of one group, apart from the smoothing; [J] or [J, ...], 0 at the lower ends."""

    q: tuple[jax.Array, jax.Array, jax.Array]
    """Q[j, j], Q[j + 1, j], Q[j + 2, j]: second divided differences."""
    r: tuple[jax.Array, jax.Array]
    """Main and next diagonal of R, the integrals of products of hats."""
    b: tuple[jax.Array, jax.Array, jax.Array]
    """Main diagonal and the next two of Q' W^-1 Q."""
    inverse_weight: jax.Array
    """[P]"""


class _Smooth(NamedTuple):
    """Splines of one group at G smoothing parameters."""

    a: jax.Array
    """[G]"""
    residual: jax.Array
    """[G, P]"""
    bend: jax.Array
    """[G, P] f'' at the points."""
    freedom: jax.Array
    """[G]"""
    score: jax.Array
    """[G]"""


def fit_valley(
    x: jax.Array,
    loss: jax.Array,
    log_params: jax.Array,
    weight: jax.Array,
    low: jax.Array,
    high: jax.Array,
    inflation: jax.Array | float = INFLATION,
) -> Valley:
    """One group: ``x`` = log10 tokens, ``loss``, ``log_params`` = log10 params, ``weight`` >= 0, each [P].

    The spline's lowest point is looked for between ``low`` and ``high`` []. They may lie beyond all x, as for a
    resample: there the spline goes on as a parabola. Where all smoothings are out of the question, as with four
    distinct x, it is the parabola.
    """
    points = _distinct_points(x, loss, weight)
    bands = _bands(points)

    def search(ends: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], tuple]:
        low, high = ends
        logs = jnp.linspace(low, high, _STEPS + 1)
        smooth = _smooth(points, bands, 10.0**logs, inflation)
        best = jnp.where(jnp.any(jnp.isfinite(smooth.score)), jnp.argmin(smooth.score), _STEPS)
        step = (high - low) / _STEPS
        found = jax.tree.map(lambda field: field[best], smooth)
        neighbours = logs[best] - step, jnp.minimum(logs[best] + step, _RANGE[1])
        return neighbours, (10.0 ** logs[best], found)

    # One program for all searches; the last one's best is the spline.
    ends = tuple(jnp.full_like(points.middle, end) for end in _RANGE)
    _, found = jax.lax.scan(search, ends, length=_SEARCHES)
    smoothing, smooth = jax.tree.map(lambda field: field[-1], found)
    return _valley(points, smooth, smoothing * _unit(points), (x, log_params, weight), (low, high))


def _unit(points: _Points) -> jax.Array:
    """The smoothing in the units of x and of the weights that is 1 in those of ``points``."""
    return points.half**3 * points.mean_weight


def _valley(
    points: _Points,
    smooth: _Smooth,
    smoothing: jax.Array,
    params: tuple[jax.Array, jax.Array, jax.Array],
    ends: tuple[jax.Array, jax.Array],
) -> Valley:
    """``smooth`` at the chosen smoothing alone; ``params`` are x, log_params and weight [P], ``ends`` low and high."""
    low, high = ((end - points.middle) / points.half for end in ends)
    u_star, loss_star, inside = _lowest(points, points.loss - smooth.residual, smooth.bend, low, high)
    x_star = points.middle + points.half * u_star
    x, log_params, weight = params
    present = weight > 0
    x, log_params = jnp.where(present, x, 0.0), jnp.where(present, log_params, 0.0)
    total = jnp.where(jnp.any(present), jnp.sum(weight), 1.0)
    mean_x, mean_params = jnp.sum(weight * x) / total, jnp.sum(weight * log_params) / total
    dx = jnp.where(present, x - mean_x, 0.0)
    sxx = jnp.sum(weight * dx**2)
    slope = jnp.sum(weight * dx * (log_params - mean_params)) / jnp.where(sxx > 0, sxx, 1.0)
    status = jnp.where(inside, Status.FITTED, Status.CLIPPED_TO_EDGE)
    return Valley(
        x_star=x_star,
        loss_star=loss_star,
        log_params_star=mean_params + slope * (x_star - mean_x),
        a=smooth.a / points.half**2,
        smoothing=smoothing,
        freedom=smooth.freedom,
        score=smooth.score,
        status=jnp.where(points.n < LEAST_POINTS, Status.TOO_FEW_POINTS, status),
    )


@jit64(cpu_options=OLD_EMITTERS)
def fit_valleys(
    x: jax.Array,
    loss: jax.Array,
    log_params: jax.Array,
    weight: jax.Array,
    low: jax.Array,
    high: jax.Array,
    inflation: jax.Array,
) -> Valley:
    """All groups at once: arguments [B, P], the last three [B]. Numbers of a group that is not usable mean nothing."""
    return in_chunks(jax.vmap(fit_valley), CHUNK, x, loss, log_params, weight, low, high, inflation)


def _distinct_points(x: jax.Array, loss: jax.Array, weight: jax.Array) -> _Points:
    present = weight > 0
    x, loss, weight = jnp.where(present, jnp.stack([x, loss, weight]), 0.0)
    same = present[:, None] & present[None, :] & (x[:, None] == x[None, :])
    weights = jnp.sum(jnp.where(same, weight[None, :], 0.0), axis=1)
    sums = jnp.sum(jnp.where(same, (weight * loss)[None, :], 0.0), axis=1)
    first = present & ~jnp.any(jnp.tril(same, -1), axis=1)
    order = jnp.argsort(jnp.where(first, x, jnp.inf))
    valid, x, weights, sums = first[order], x[order], weights[order], sums[order]
    n = jnp.sum(valid)
    low, high = jnp.min(jnp.where(valid, x, jnp.inf)), jnp.max(jnp.where(valid, x, -jnp.inf))
    some = high > low
    middle, half = jnp.where(some, (low + high) / 2, 0.0), jnp.where(some, (high - low) / 2, 1.0)
    mean_weight = jnp.where(n > 0, jnp.sum(jnp.where(valid, weights, 0.0)) / jnp.maximum(n, 1), 1.0)
    return _Points(
        u=jnp.where(valid, (x - middle) / half, 0.0),
        loss=jnp.where(valid, sums / jnp.where(valid, weights, 1.0), 0.0),
        weight=jnp.where(valid, weights / mean_weight, 0.0),
        valid=valid,
        n=n,
        middle=middle,
        half=half,
        mean_weight=mean_weight,
    )


def _gaps(points: _Points) -> jax.Array:
    """[P - 1] distances of neighbours, 1 behind the last point."""
    return jnp.where(points.valid[1:], jnp.diff(points.u), 1.0)


def _bands(points: _Points) -> _Bands:
    gap, inner = _gaps(points), points.valid[2:]
    inverse_weight = jnp.where(points.valid, 1.0 / jnp.where(points.valid, points.weight, 1.0), 0.0)
    q0, q2 = jnp.where(inner, 1.0 / gap[:-1], 0.0), jnp.where(inner, 1.0 / gap[1:], 0.0)
    q1 = -(q0 + q2)
    v0, v1, v2 = inverse_weight[:-2], inverse_weight[1:-1], inverse_weight[2:]
    # Padded knots are rows of the identity: their bends are 0.
    next_inner = _ahead(inner, 1)
    return _Bands(
        q=(q0, q1, q2),
        r=(jnp.where(inner, (gap[:-1] + gap[1:]) / 3, 1.0), jnp.where(next_inner, gap[1:] / 6, 0.0)),
        b=(
            q0**2 * v0 + q1**2 * v1 + q2**2 * v2,
            q1 * v1 * _ahead(q0, 1) + q2 * v2 * _ahead(q1, 1),
            q2 * v2 * _ahead(q0, 2),
        ),
        inverse_weight=inverse_weight,
    )


def _ahead(band: jax.Array, by: int) -> jax.Array:
    """``band`` [J] so many places ahead, zeros (False) at the end."""
    return jnp.concatenate([band[by:], jnp.zeros(by, dtype=band.dtype)])


def _smooth(points: _Points, bands: _Bands, smoothing: jax.Array, inflation: jax.Array | float) -> _Smooth:
    """The splines at ``smoothing`` [G]."""
    square = jnp.where(points.valid, points.u**2, 0.0)
    both = jnp.stack([points.loss, square], axis=-1)
    q0, q1, q2 = bands.q
    differences = q0[:, None] * both[:-2] + q1[:, None] * both[1:-1] + q2[:, None] * both[2:]
    bends, trace = _solve(bands, differences, smoothing)
    # Residuals of the losses, and of the squares, from their own plain smoothing splines: smoothing * W^-1 Q bends.
    edge = jnp.zeros_like(bends[:1])
    spread = (
        jnp.concatenate([q0[:, None, None] * bends, edge, edge])
        + jnp.concatenate([edge, q1[:, None, None] * bends, edge])
        + jnp.concatenate([edge, edge, q2[:, None, None] * bends])
    )
    left = smoothing[:, None] * bands.inverse_weight[:, None, None] * spread
    of_loss, of_square = left[..., 0], left[..., 1]
    weighted_square = (points.weight * square)[:, None]
    norm = jnp.sum(weighted_square * of_square, axis=0)
    norm = jnp.where(norm > 0, norm, 1.0)
    a = jnp.sum(weighted_square * of_loss, axis=0) / norm
    residual = of_loss - a * of_square
    weight = points.weight[:, None]
    squares = jnp.sum(weight * residual**2, axis=0)
    kept = points.n - trace + jnp.sum(weight * of_square**2, axis=0) / norm
    spare = points.n - inflation * kept
    bend = jnp.concatenate([edge, bends, edge])
    return _Smooth(
        a=a,
        residual=residual.T,
        bend=(bend[..., 0] - a * bend[..., 1] + 2 * a).T,
        freedom=kept,
        score=jnp.where(spare > 0, points.n * squares / jnp.where(spare > 0, spare, 1.0) ** 2, jnp.inf),
    )


def _solve(bands: _Bands, right: jax.Array, smoothing: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(R + s Q'W^-1 Q)^-1 ``right`` [J, K] as [J, G, K], and s times the trace of its product with Q'W^-1 Q, [G].

    A factorisation L D L' downwards, then upwards the solution and the inverse's five bands.
    """
    b0, b1, b2 = bands.b
    main = bands.r[0][:, None] + b0[:, None] * smoothing
    next_ = bands.r[1][:, None] + b1[:, None] * smoothing
    far = b2[:, None] * smoothing
    zero = jnp.zeros_like(smoothing)
    zeros = jnp.zeros((*smoothing.shape, right.shape[1]))

    def down(carry: tuple, row: tuple) -> tuple[tuple, tuple]:
        (d1, l1, f1, z1), (d2, f2, z2) = carry
        m0, m1, m2, y = row
        d = m0 - d1 * l1**2 - d2 * f2**2
        ell, f = (m1 - d1 * l1 * f1) / d, m2 / d
        z = y - l1[:, None] * z1 - f2[:, None] * z2
        return ((d, ell, f, z), (d1, f1, z1)), (d, ell, f, z)

    start = (jnp.ones_like(smoothing), zero, zero, zeros), (jnp.ones_like(smoothing), zero, zeros)
    _, factors = jax.lax.scan(down, start, (main, next_, far, right[:, None, :] + zeros))

    def up(carry: tuple, row: tuple) -> tuple[tuple, tuple]:
        (x1, x2), (diagonal1, next1, diagonal2) = carry
        d, ell, f, z, b0, b1, b2 = row
        x = z / d[:, None] - ell[:, None] * x1 - f[:, None] * x2
        second = -ell * next1 - f * diagonal2
        first = -ell * diagonal1 - f * next1
        diagonal = 1.0 / d - ell * first - f * second
        return ((x, x1), (diagonal, first, diagonal1)), (x, b0 * diagonal + 2 * (b1 * first + b2 * second))

    _, (solution, products) = jax.lax.scan(
        up, ((zeros, zeros), (zero, zero, zero)), (*factors, b0, b1, b2), reverse=True
    )
    return solution, smoothing * jnp.sum(products, axis=0)


def _lowest(
    points: _Points, value: jax.Array, bend: jax.Array, low: jax.Array, high: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(u, loss, whether a minimum rather than an end) of the lowest point of the spline in [low, high], all [].

    ``value`` and ``bend`` [P] are f and f'' at the points: between two of them f is a cubic with a straight f'', before
    the first and behind the last a parabola.
    """
    last = jnp.maximum(points.n - 1, 0)
    gap, m, change = _gaps(points), bend[:-1], jnp.diff(bend)
    slope = jnp.diff(value) / gap - gap * (2 * m + bend[1:]) / 6
    end_slope = (slope + gap * (m + bend[1:]) / 2)[jnp.maximum(last - 1, 0)]
    # Pieces: u, f, f', f'' and the slope of f'' at a point, and how far the piece reaches back and forth from there.
    inner = (
        points.u[:-1],
        value[:-1],
        slope,
        m,
        change / gap,
        jnp.zeros_like(gap),
        jnp.where(points.valid[1:], gap, -1.0),
    )
    before = points.u[0], value[0], slope[0], bend[0], 0.0, jnp.minimum(low - points.u[0], 0.0), 0.0
    behind = points.u[last], value[last], end_slope, bend[last], 0.0, 0.0, jnp.maximum(high - points.u[last], 0.0)
    pieces = (jnp.concatenate([piece, jnp.stack(ends)]) for piece, *ends in zip(inner, before, behind, strict=True))
    u, f, slope, m, lead, back, forth = pieces

    def at(t: jax.Array) -> jax.Array:
        return f + t * (slope + t * (m / 2 + t * lead / 6))

    # f' = slope + m t + lead/2 t^2, at the root where it rises: of the two forms, the one in which nothing cancels.
    square = m**2 - 2 * lead * slope
    root = jnp.sqrt(jnp.maximum(square, 0.0))
    rises = (square > 0) & ((m > 0) | (lead != 0))
    from_slope = -2 * slope / jnp.where(m > 0, m + root, 1.0)
    from_bend = (root - m) / jnp.where(lead == 0, 1.0, lead)
    place = jnp.where(m > 0, from_slope, from_bend)
    # A minimum at a point must not fall between the pieces on its sides.
    bottom = rises & (forth > back) & (place >= back - _ROUNDING) & (place <= forth + _ROUNDING)
    place = jnp.where(bottom, jnp.clip(place, back, forth), 0.0)
    depths = jnp.where(bottom, at(place), jnp.inf)
    k = jnp.argmin(depths)
    heights = jnp.stack([at(back)[-2], at(forth)[-1]])
    side = jnp.argmin(heights)
    inside = depths[k] <= heights[side]
    return (
        jnp.where(inside, u[k] + place[k], jnp.where(side == 0, low, high)),
        jnp.where(inside, depths[k], heights[side]),
        inside,
    )
