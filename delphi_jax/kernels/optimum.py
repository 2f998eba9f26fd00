"""Optimum of the asymptotic power law L(C) = L_inf + A*C**-alpha with L_inf continuous in [0, min L).

At a fixed L_inf the law is a line in (log C, log(L - L_inf)), so what is minimised is a function of L_inf alone, the
profile: the weighted mean squared log residual of the best line that does not rise (variable projection, Golub &
Pereyra 1973). Its place is u = log(min L - L_inf), and the gap of a point is its loss above the smallest one plus
e^u, which loses no digits however close the asymptote comes. The profile may have several minima: coarse places are
evenly spaced in u from where the gap of the smallest loss alone still matters up to L_inf = 0, and the deepest minima
between them are refined.

Axes: B series, P points (weight 0 for padding), L lanes (a series at one place each); inside, points come first.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from delphi_jax.kernels.chunks import in_chunks
from delphi_jax.kernels.power_law import ROUNDING
from delphi_jax.kernels.precision import OLD_EMITTERS, jit64
from delphi_jax.kernels.search import search
from delphi_jax.status import Status

__all__ = [
    "CHUNK",
    "N_COARSE",
    "LawProfile",
    "LawSeries",
    "Optima",
    "OptimalLaw",
    "Places",
    "coarse_place",
    "find_optima",
    "fit_optimal_laws",
    "law_profile",
]

CHUNK = 128
"""Series computed at once."""

N_COARSE = 20
"""Places at which the slope of the profile is taken."""
_KEPT = 2
"""Minima that are refined."""
_MARGIN = 3.0
"""How far the coarse places go below the log of the second smallest gap: from there on the profile is a parabola."""
_CLOSEST = 1e-10
"""Share of the smallest loss that its gap at least has: nearer, the gap is rounding."""
_AT_ZERO = 1e-12
"""Asymptotes below this share of the smallest loss are zero but for rounding."""
_EXACT = 1e-26
"""Mean squared residual at which the law passes through every point, so that its slope is rounding."""


class OptimalLaw(NamedTuple):
    """Laws of B series; fields [B]. All but ``status`` are NaN where the status is not usable."""

    L_inf: jax.Array
    log_A: jax.Array
    alpha: jax.Array
    score: jax.Array
    """Weighted mean squared log residual."""
    gradient: jax.Array
    """d log(score)/d L_inf times (min L - L_inf): at an interior optimum 0 but for the rounding of L_inf itself, which
    weighs the more the smaller the residuals are (about 1e-17 over the score; 0 where the law passes through every
    point); positive where L_inf = 0 is the active bound; NaN where pinned."""
    status: jax.Array


class LawSeries(NamedTuple):
    """Data of L lanes."""

    above: jax.Array
    """[P, L] loss above the smallest one, 0 for padding."""
    share: jax.Array
    """[P, L] weight, summing to 1; 0 for padding."""
    slant: jax.Array
    """[P, L] log C, standardised by its weighted mean and standard deviation."""


class LawProfile(NamedTuple):
    """The profile at one place of each of L lanes, with its derivatives in u; fields [L]."""

    score: jax.Array
    slope: jax.Array
    curvature: jax.Array
    height: jax.Array
    """Mean of log(gap) - u."""
    fall: jax.Array
    """alpha times the standard deviation of log C, at least 0."""


class Places(NamedTuple):
    """Where u is looked for; fields [L], all the same where the asymptote is pinned."""

    closest: jax.Array
    """Where the asymptote is as near to the smallest loss as numbers can tell."""
    lowest: jax.Array
    """Below, the gap of the smallest loss alone matters."""
    top: jax.Array
    """Where L_inf = 0."""


class Optima(NamedTuple):
    """Laws of B series, and what they were found from."""

    law: OptimalLaw
    series: LawSeries
    mean: jax.Array
    """[B] of log C."""
    deviation: jax.Array
    """[B] of log C."""
    smallest: jax.Array
    """[B] loss."""
    u: jax.Array
    """[B] place of the optimum."""
    minima: jax.Array
    """[K, B] places of the deepest minima of the profile, the optimum's among them."""
    places: Places


def law_profile(u: jax.Array, series: LawSeries) -> LawProfile:
    """The profile and its derivatives at ``u`` [L]."""
    above, share, slant = series
    # Sums over points: the first axis, along which processors add whole vectors.
    gap = jnp.exp(u)
    pull = gap / (above + gap)
    y = -jnp.log(pull)
    height = jnp.sum(share * y, axis=0)
    dy = y - height
    fall = jnp.maximum(-jnp.sum(share * slant * dy, axis=0), 0.0)
    residual = dy + fall * slant
    # d log(gap)/du is the pull; the line takes up its part along 1 and, where it falls, along log C.
    tangent = pull - jnp.sum(share * pull, axis=0)
    tangent = tangent - jnp.where(fall > 0, jnp.sum(share * slant * tangent, axis=0), 0.0) * slant
    bent = share * residual
    return LawProfile(
        score=jnp.sum(share * residual**2, axis=0),
        # With what is left of the pull: the residual has no part along the line but that of rounding.
        slope=2 * jnp.sum(bent * tangent, axis=0),
        curvature=2 * jnp.sum(share * tangent**2 + bent * pull * (1 - pull), axis=0),
        height=height,
        fall=fall,
    )


def coarse_place(places: Places, k: jax.Array) -> jax.Array:
    """The ``k``-th of N_COARSE places, ascending."""
    even = places.top - (places.top - places.lowest) * ((N_COARSE - 1 - k) / (N_COARSE - 2))
    return jnp.where(k == 0, places.closest, even)


def _series(log_compute: jax.Array, loss: jax.Array, weight: jax.Array) -> tuple[LawSeries, jax.Array, jax.Array]:
    """Points of L lanes, all [P, L], and the mean and standard deviation [L] of log C."""
    total = jnp.sum(weight, axis=0)
    share = weight / jnp.where(total > 0, total, 1.0)
    mean = jnp.sum(share * log_compute, axis=0)
    dx = jnp.where(weight > 0, log_compute - mean, 0.0)
    deviation = jnp.sqrt(jnp.sum(share * dx**2, axis=0))
    above = jnp.where(weight > 0, loss - _least(loss, weight > 0), 0.0)
    return LawSeries(above, share, dx / jnp.where(deviation > 0, deviation, 1.0)), mean, deviation


def _least(values: jax.Array, among: jax.Array) -> jax.Array:
    return jnp.min(jnp.where(among, values, jnp.inf), axis=0)


def find_optima(log_compute: jax.Array, loss: jax.Array, weight: jax.Array, pinned: jax.Array) -> Optima:
    """Optima of B series; ``pinned`` [B], the others [B, P]. For kernels: traced, and not cut into chunks."""
    weight = weight.T
    present = weight > 0
    x, loss = jnp.where(present, log_compute.T, 0.0), jnp.where(present, loss.T, 1.0)
    series, mean, deviation = _series(x, loss, jnp.where(present, weight, 0.0))
    smallest = jnp.where(jnp.any(present, axis=0), _least(loss, present), 1.0)
    free = jnp.isnan(pinned)

    top = jnp.log(smallest)
    closest = top + jnp.log(_CLOSEST)
    second = _least(series.above, series.above > 0)
    lowest = jnp.maximum(jnp.minimum(jnp.log(second), top) - _MARGIN, closest)
    given = jnp.log(jnp.where(free | (pinned >= smallest), 1.0, smallest - pinned))
    places = Places(jnp.where(free, closest, given), jnp.where(free, lowest, given), jnp.where(free, top, given))
    minima = search(law_profile, series, lambda k: coarse_place(places, k), N_COARSE, _KEPT)
    best = jax.tree.map(lambda field: field[jnp.argmin(minima.score, axis=0), jnp.arange(len(top))], minima)

    at_zero = free & (best.place >= top - _AT_ZERO)
    u = jnp.where(at_zero, top, best.place)
    at = law_profile(u, series)
    low, high = _least(x, present), -_least(-x, present)
    two, three = high > low, jnp.any(present & (x > low) & (x < high), axis=0)
    alpha = at.fall / jnp.where(deviation > 0, deviation, 1.0)
    # Logarithms are rounded by their own size, and by that of the losses over what is left of them.
    size = at.height + jnp.sum(series.share * (smallest + series.above) / (series.above + jnp.exp(u)), axis=0)
    status = jnp.select(
        [
            ~jnp.where(free, three, two),
            ~free & (pinned >= smallest),
            at.fall <= ROUNDING * size,
            ~best.converged,
            at_zero | (free & (u <= closest)),
        ],
        [
            Status.TOO_FEW_POINTS,
            Status.ASYMPTOTE_ABOVE_LOSS,
            Status.LOSS_DOES_NOT_FALL,
            Status.NOT_CONVERGED,
            Status.BOUND_HIT,
        ],
        Status.FITTED,
    )
    usable = (status == Status.FITTED) | (status == Status.BOUND_HIT)
    L_inf = jnp.where(free, jnp.where(at_zero, 0.0, smallest - jnp.exp(u)), pinned)
    gradient = jnp.where(free, jnp.where(at.score > _EXACT, -at.slope / at.score, 0.0), jnp.nan)
    numbers = (L_inf, at.height + u + alpha * mean, alpha, at.score, gradient)
    law = OptimalLaw(*(jnp.where(usable, number, jnp.nan) for number in numbers), status)
    return Optima(law, series, mean, deviation, smallest, u, minima.place, places)


@jit64(cpu_options=OLD_EMITTERS)
def fit_optimal_laws(log_compute: jax.Array, loss: jax.Array, weight: jax.Array, pinned: jax.Array) -> OptimalLaw:
    """Fit B series, each with its own asymptote, free where ``pinned`` [B] is NaN and else that value.

    ``log_compute`` = log C, ``loss`` and ``weight``: [B, P]; weights are at least 0, as counts of a bootstrap are, and
    0 marks padding. A free asymptote takes three distinct budgets, a pinned one two (TOO_FEW_POINTS), and lies below
    every loss (ASYMPTOTE_ABOVE_LOSS). LOSS_DOES_NOT_FALL: no law that falls beats a constant loss. BOUND_HIT: the
    optimum is at L_inf = 0, or nearer to the smallest loss than numbers can tell.
    """
    return in_chunks(lambda *problems: find_optima(*problems).law, CHUNK, log_compute, loss, weight, pinned)
