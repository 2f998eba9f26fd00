"""Optimum of the asymptotic power law L(C) = L_inf + A*C**-alpha under other objectives, own or shared asymptotes.

The loss function is the square r^2 or Huber's (1964), r^2/2 up to a residual of delta and delta*(|r| - delta/2) beyond;
the residual is log(L - L_inf) - log(A*C**-alpha) or L - L_inf - A*C**-alpha; the score of a series is the weighted
mean. That of series which share an asymptote is the weighted mean over all their points, times their number: where they
are equally long, the sum of theirs. Once one parameter is fixed the rest is a line,
log(L - L_inf) against log C or L against C**-alpha, and its objective is convex: what is left is a search in
u = log(min L - L_inf), or in log alpha (variable projection, Golub & Pereyra 1973). Only the loss itself with a shared
asymptote takes a search in L_inf around the searches in log alpha.

A line's intercept at a given slope is the root of a sum that rises piece by piece, which is found among its kinks; the
slope is the root of what is left, which rises as well: Newton steps within a bracket, a bisection after every second.

Axes: B groups of S series with one asymptote each group, P points (weight 0 for padding), L lanes (a group at one
place each); inside, points come first and lanes last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from delphi_jax.kernels.chunks import in_chunks
from delphi_jax.kernels.optimum import OptimalLaw
from delphi_jax.kernels.power_law import ROUNDING
from delphi_jax.kernels.precision import OLD_EMITTERS, jit64
from delphi_jax.kernels.search import Minima, search
from delphi_jax.status import Status

__all__ = [
    "N_PLACES",
    "Criterion",
    "Found",
    "Groups",
    "Line",
    "Place",
    "Points",
    "at_alpha",
    "at_gap",
    "best_line",
    "fit_objective_laws",
    "make_groups",
    "solve",
]

CHUNK = 16
"""Groups computed at once."""

N_PLACES = 192
"""Coarse places of a search; residuals under Huber's function have many minima."""
_KEPT = 8
"""Minima that are refined."""
_ASYMPTOTES = 64
"""Coarse places of a search in L_inf."""
_INNER_PLACES = 48
"""Coarse places of the searches within it."""
_INNER_KEPT = 2
"""Minima that are refined, of both."""
_MARGIN = 3.0
"""How far the coarse places go below the log of the second smallest gap."""
_CLOSEST = 1e-10
"""Share of the smallest loss that its gap at least has: nearer, the gap is rounding."""
_SMALLEST_FALL = 1e-6
"""alpha times the range of log C at which a law is flat."""
_STEEPEST = 40.0
"""alpha times the distance in log C of the two smallest budgets at which a law falls on the first of them alone."""
_LARGEST = 10.0
"""Exponent beyond which A, a number of FLOPs to that power, could not be written down."""
_MOST_STEPS = 120
"""Of a line's slope; a third of them halve the bracket."""
_ROUNDED = 1e-14
"""Relative length of the last step of a line's slope."""
_AT_ZERO = 1e-12
"""Asymptotes below this share of the smallest loss are zero but for rounding."""


class Criterion(NamedTuple):
    """The loss function."""

    huber: bool
    delta: jax.Array | float
    """Of Huber's function; not read by the square."""

    def value(self, r: jax.Array) -> jax.Array:
        if not self.huber:
            return r**2
        size = jnp.abs(r)
        return jnp.where(size <= self.delta, r**2 / 2, self.delta * (size - self.delta / 2))

    def slope(self, r: jax.Array) -> jax.Array:
        return jnp.clip(r, -self.delta, self.delta) if self.huber else 2 * r

    def curvature(self, r: jax.Array) -> jax.Array:
        return (jnp.abs(r) < self.delta).astype(r.dtype) if self.huber else jnp.full_like(r, 2.0)


class Line(NamedTuple):
    """The best line y = intercept + slope*z; fields [...], ``residual`` [P, ...]."""

    intercept: jax.Array
    slope: jax.Array
    residual: jax.Array
    free: jax.Array
    """Whether the intercept lies between its bounds."""


class _Slope(NamedTuple):
    """Of the search for a line's slope; fields [...] but for the number of steps."""

    slope: jax.Array
    low: jax.Array
    high: jax.Array
    found: jax.Array
    steps: jax.Array


def _intercept(q: jax.Array, share: jax.Array, criterion: Criterion) -> jax.Array:
    """The constant [...] nearest to ``q`` [P, ...]."""
    if not criterion.huber:
        return jnp.sum(share * q, axis=0)
    kinks = jnp.concatenate([q - criterion.delta, q + criterion.delta])
    rise = -jnp.sum(share[:, None] * criterion.slope(q[:, None] - kinks), axis=0)
    left = jnp.max(jnp.where(rise <= 0, kinks, -jnp.inf), axis=0)
    right = jnp.min(jnp.where(rise >= 0, kinks, jnp.inf), axis=0)
    below = jnp.max(jnp.where(rise <= 0, rise, -jnp.inf), axis=0)
    above = jnp.min(jnp.where(rise >= 0, rise, jnp.inf), axis=0)
    part = -below / jnp.where(above > below, above - below, 1.0)
    return left + jnp.maximum(right - left, 0.0) * part


def best_line(
    y: jax.Array,
    z: jax.Array,
    share: jax.Array,
    low: jax.Array,
    high: jax.Array,
    criterion: Criterion,
    steepest: jax.Array | float = jnp.inf,
) -> Line:
    """The line through ``y`` at ``z`` [P, ...] that does not fall with z, its intercept from ``low`` to ``high`` [...].

    ``share`` [P, ...]: weights that sum to 1. The slope is at most ``steepest`` [...].
    """

    def at(slope: jax.Array) -> Line:
        q = y - slope * z
        best = _intercept(q, share, criterion)
        intercept = jnp.clip(best, low, high)
        return Line(intercept, slope, q - intercept, best == intercept)

    def derivatives(slope: jax.Array) -> tuple[jax.Array, jax.Array]:
        line = at(slope)
        rise = -jnp.sum(share * criterion.slope(line.residual) * z, axis=0)
        bend = share * criterion.curvature(line.residual)
        total = jnp.sum(bend, axis=0)
        # Where the intercept is free it follows the slope.
        mean = jnp.where(line.free & (total > 0), jnp.sum(bend * z, axis=0) / jnp.where(total > 0, total, 1.0), 0.0)
        spread = jnp.sum(bend * (z - mean) ** 2, axis=0)
        # A single point within delta has no spread but for rounding, by which a step would leave the world.
        return rise, jnp.where(spread > _ROUNDED * jnp.sum(bend * z**2, axis=0), spread, 0.0)

    # Least squares say where to start: at 0, and unless the best slope is there, at theirs.
    dz = z - jnp.sum(share * z, axis=0)
    power = jnp.sum(share * dz**2, axis=0)
    power = jnp.where(power > 0, power, 1.0)
    unit = jnp.sqrt(jnp.sum(share * (y - jnp.sum(share * y, axis=0)) ** 2, axis=0) / power)
    start = jnp.maximum(jnp.sum(share * dz * y, axis=0) / power, 0.0)

    def step(state: _Slope) -> _Slope:
        slope, steps = state.slope, state.steps
        rise, bend = derivatives(slope)
        low, high = jnp.where(rise < 0, slope, state.low), jnp.where(rise < 0, state.high, slope)
        newton = slope - rise / jnp.where(bend > 0, bend, jnp.inf)
        inside = (bend > 0) & (newton >= low) & (newton <= high) & (steps % 3 < 2)
        halved = jnp.where(jnp.isfinite(high), (low + high) / 2, 2 * slope + unit)
        following = jnp.where((steps == 0) & (rise < 0), start, jnp.where(inside, newton, halved))
        # A slope at which nothing pulls is the best one, also where it was the bracket's turn to be halved.
        following = jnp.where(state.found | (rise == 0), slope, following)
        found = state.found | (rise == 0) | ((jnp.abs(following - slope) <= _ROUNDED * slope) & (steps > 0))
        return _Slope(following, low, high, found | (high == 0), steps + 1)

    zero = jnp.zeros_like(start)
    at_zero = _Slope(zero, zero, zero + jnp.inf, zero > 0, jnp.zeros((), int))
    ends = jax.lax.while_loop(lambda state: jnp.any(~state.found) & (state.steps < _MOST_STEPS), step, at_zero)
    return at(jnp.minimum(ends.slope, steepest))


class Points(NamedTuple):
    """Data of L lanes; fields [P, S, L], 0 for padding."""

    above: jax.Array
    """Loss above the smallest one of the group."""
    loss: jax.Array
    share: jax.Array
    """Weight, summing to 1 in a series."""
    part: jax.Array
    """[1, S, L] weight of a series over the mean one of the group's; 1 where there is none."""
    after: jax.Array
    """log C above the smallest one of the series."""
    slant: jax.Array
    """log C, standardised in the series."""
    low: jax.Array
    """[1, S, L] bounds of L_inf where the residual is of the loss."""
    high: jax.Array


class Place(NamedTuple):
    """The profile at a place; fields [L] and [S, L]."""

    score: jax.Array
    slope: jax.Array
    curvature: jax.Array
    """0: not known."""
    line: Line | None
    scores: jax.Array
    """Of every series."""


def _profile(points: Points, line: Line, z: jax.Array, move: jax.Array, criterion: Criterion) -> Place:
    """``move`` [P, S, L]: derivative of the residual where the line stays as it is."""
    share = points.share
    # The objective does not change with the line, so what the line could take up of the move adds rounding alone.
    centre = jnp.where(line.free, 1.0, 0.0)
    move = move - centre * jnp.sum(share * move, axis=0)
    z = z - centre * jnp.sum(share * z, axis=0)
    power = jnp.sum(share * z**2, axis=0)
    part = jnp.sum(share * z * move, axis=0) / jnp.where(power > 0, power, 1.0)
    move = move - jnp.where(line.slope > 0, part, 0.0) * z
    scores = jnp.sum(share * criterion.value(line.residual), axis=0)
    slope = jnp.sum(points.part * share * criterion.slope(line.residual) * move, axis=(0, 1))
    return Place(jnp.sum(points.part[0] * scores, axis=0), slope, jnp.zeros_like(slope), line, scores)


def at_gap(u: jax.Array, points: Points, criterion: Criterion) -> Place:
    """Log residuals with the smallest loss e^u [L] above L_inf."""
    pull = jnp.exp(u) / (points.above + jnp.exp(u))
    nowhere = jnp.full(pull.shape[1:], jnp.inf)
    line = best_line(-jnp.log(pull), -points.slant, points.share, -nowhere, nowhere, criterion)
    return _profile(points, line, points.slant, pull, criterion)


def at_alpha(log_alpha: jax.Array, points: Points, criterion: Criterion) -> Place:
    """Residuals of the loss with exponents e^log_alpha [L]; S = 1."""
    steepness = jnp.exp(log_alpha) * points.after
    z = jnp.exp(-steepness)
    line = best_line(points.loss, z, points.share, points.low[0], points.high[0], criterion)
    return _profile(points, line, z, line.slope * steepness * z, criterion)


def _best(minima: Minima) -> Minima:
    """The deepest of them; fields [L]."""
    best, lanes = jnp.argmin(minima.score, axis=0), jnp.arange(minima.score.shape[1])
    return jax.tree.map(lambda field: field[best, lanes], minima)


def _alpha_places(points: Points, n_places: int) -> Callable[[jax.Array | int], jax.Array]:
    """Coarse places of log alpha [L] between a law that is flat and one that falls on the first budget alone; S = 1."""
    present = points.share > 0
    span = jnp.max(jnp.where(present, points.after, 0.0), axis=(0, 1))
    first = jnp.min(jnp.where(present & (points.after > 0), points.after, jnp.inf), axis=(0, 1))
    low = jnp.log(_SMALLEST_FALL / jnp.where(span > 0, span, 1.0))
    high = jnp.maximum(jnp.log(jnp.minimum(_STEEPEST / first, _LARGEST)), low)
    # From above, so that the last place is the bound itself.
    return lambda k: high - (high - low) * ((n_places - 1 - k) / (n_places - 1))


def _search_alpha(
    points: Points, criterion: Criterion, place: Callable[[jax.Array | int], jax.Array], n_places: int, n_kept: int
) -> Minima:
    """The best log alpha [L] of the loss' residuals; S = 1."""
    return _best(search(lambda at, points: at_alpha(at, points, criterion), points, place, n_places, n_kept))


def _alone(points: Points, L_inf: jax.Array) -> Points:
    """Every series of ``points`` as a lane of its own, S = 1, its asymptote held at that of its group, [L]."""
    held = jnp.broadcast_to(L_inf, (1, *points.loss.shape[1:]))
    own = points._replace(low=held, high=held, part=jnp.ones_like(held))
    return jax.tree.map(lambda leaf: leaf.reshape(len(leaf), 1, -1), own)


class _Exponents(NamedTuple):
    """Every series' best exponent at the asymptote of its group; fields [S, L], ``slope`` [L] of the summed score."""

    alpha: jax.Array
    scores: jax.Array
    slope: jax.Array
    log_height: jax.Array
    """Log of what is above L_inf at the smallest budget."""
    on_bound: jax.Array
    converged: jax.Array


def _exponents(L_inf: jax.Array, points: Points, criterion: Criterion) -> _Exponents:
    alone = _alone(points, L_inf)
    places = _alpha_places(alone, _INNER_PLACES)
    found, low, high = (
        _search_alpha(alone, criterion, places, _INNER_PLACES, _INNER_KEPT),
        places(0),
        places(_INNER_PLACES - 1),
    )
    place = at_alpha(found.place, alone, criterion)
    pull = jnp.sum(alone.share * criterion.slope(place.line.residual), axis=(0, 1))
    height = jnp.where(found.place > low, place.line.slope[0], 0.0)
    numbers = (jnp.exp(found.place), place.score, pull, jnp.log(height), found.place >= high, found.converged)
    alpha, scores, pull, *rest = (field.reshape(-1, len(L_inf)) for field in numbers)
    return _Exponents(alpha, scores, -jnp.sum(points.part[0] * pull, axis=0), *rest)


def _at_asymptote(L_inf: jax.Array, points: Points, criterion: Criterion) -> Place:
    """Residuals of the loss with L_inf [L], every series with its own best exponent."""
    each = _exponents(L_inf, points, criterion)
    return Place(
        jnp.sum(points.part[0] * each.scores, axis=0), each.slope, jnp.zeros_like(each.slope), None, each.scores
    )


class Groups(NamedTuple):
    """L groups, a lane each."""

    points: Points
    first: jax.Array
    """[S, L] smallest log C."""
    mean: jax.Array
    """[S, L] of log C."""
    deviation: jax.Array
    """[S, L] of log C."""
    smallest: jax.Array
    """[L] loss."""
    largest: jax.Array
    """[L] loss."""
    pinned: jax.Array
    """[L] NaN where the asymptote is free."""


class Found(NamedTuple):
    """Optima; fields [S, L], or [L] where they are the group's."""

    L_inf: jax.Array
    """[L]"""
    log_A: jax.Array
    alpha: jax.Array
    scores: jax.Array
    slope: jax.Array
    """[L] of the profile where the optimum is no bound."""
    fall: jax.Array
    """How much the line falls over the series, of what is fitted."""
    on_bound: jax.Array
    """[L]"""
    converged: jax.Array
    """[L]"""
    place: jax.Array
    """[L] of the optimum in the search."""
    line: Line | None
    """There; not kept where losses share their asymptote."""
    places: Callable[[jax.Array | int], jax.Array]
    """The coarse places of the search, [L] each."""


def _places(groups: Groups) -> tuple[jax.Array, jax.Array, jax.Array]:
    """u [L] where the asymptote is nearest to the smallest loss, where its gap alone matters, and where L_inf = 0."""
    above, smallest = groups.points.above, groups.smallest
    top = jnp.log(smallest)
    closest = top + jnp.log(_CLOSEST)
    second = jnp.min(jnp.where(above > 0, above, jnp.inf), axis=(0, 1))
    return closest, jnp.maximum(jnp.minimum(jnp.log(second), top) - _MARGIN, closest), top


def _fit_logs(groups: Groups, criterion: Criterion) -> Found:
    """Log residuals."""
    points, smallest, pinned = groups.points, groups.smallest, groups.pinned
    free = jnp.isnan(pinned)
    given = jnp.log(jnp.where(free | (pinned >= smallest), 1.0, smallest - pinned))
    closest, lowest, top = (jnp.where(free, place, given) for place in _places(groups))

    def place(k: jax.Array | int) -> jax.Array:
        even = top - (top - lowest) * ((N_PLACES - 1 - k) / (N_PLACES - 2))
        return jnp.where(k == 0, closest, even)

    found = _best(search(lambda u, points: at_gap(u, points, criterion), points, place, N_PLACES, _KEPT))
    at_zero = free & (found.place >= top - _AT_ZERO)
    u = jnp.where(at_zero, top, found.place)
    at = at_gap(u, points, criterion)
    alpha = at.line.slope / groups.deviation
    return Found(
        L_inf=jnp.where(free, jnp.where(at_zero, 0.0, smallest - jnp.exp(u)), pinned),
        log_A=at.line.intercept + u + alpha * groups.mean,
        alpha=alpha,
        scores=at.scores,
        slope=-at.slope,
        fall=at.line.slope,
        on_bound=free & (at_zero | (u <= closest)),
        converged=found.converged,
        place=u,
        line=at.line,
        places=place,
    )


def _fit_losses(groups: Groups, criterion: Criterion) -> Found:
    """Residuals of the loss, S = 1."""
    points, pinned = groups.points, groups.pinned
    free = jnp.isnan(pinned)
    places = _alpha_places(points, N_PLACES)
    found = _search_alpha(points, criterion, places, N_PLACES, _KEPT)
    at = at_alpha(found.place, points, criterion)
    alpha = jnp.exp(found.place)
    L_inf = at.line.intercept[0]
    return Found(
        L_inf=L_inf,
        log_A=jnp.log(at.line.slope) + alpha * groups.first,
        alpha=alpha[None],
        scores=at.scores,
        slope=at.slope,
        fall=jnp.where(found.place > places(0), at.line.slope / groups.largest, 0.0),
        on_bound=(free & (L_inf <= _AT_ZERO * groups.smallest)) | (found.place >= places(N_PLACES - 1)),
        converged=found.converged,
        place=found.place,
        line=at.line,
        places=places,
    )


def _fit_shared_losses(groups: Groups, criterion: Criterion) -> Found:
    """Residuals of the loss, one asymptote for all series of a group."""
    points, smallest, largest = groups.points, groups.smallest, groups.largest
    _, lowest, top = _places(groups)
    below = _ASYMPTOTES // 2

    def place(k: jax.Array | int) -> jax.Array:
        """From 0 to the smallest loss, denser towards it, and on to the largest."""
        gap = jnp.where(k == 0, smallest, jnp.exp(top + (lowest - top) * (k / (below - 1))))
        beyond = jnp.maximum(k - below + 1, 0) / (_ASYMPTOTES - below)
        return jnp.where(k < below, smallest - gap, smallest + (largest - smallest) * beyond**2)

    minima = search(lambda at, points: _at_asymptote(at, points, criterion), points, place, _ASYMPTOTES, _INNER_KEPT)
    found = _best(minima)
    at_zero = found.place <= _AT_ZERO * smallest
    L_inf = jnp.where(at_zero, 0.0, found.place)
    each = _exponents(L_inf, points, criterion)
    return Found(
        L_inf=L_inf,
        log_A=each.log_height + each.alpha * groups.first,
        alpha=each.alpha,
        scores=each.scores,
        slope=each.slope,
        fall=jnp.exp(each.log_height) / largest,
        on_bound=at_zero | jnp.any(each.on_bound & jnp.any(points.share > 0, axis=0), axis=0),
        converged=found.converged & jnp.all(each.converged, axis=0),
        place=L_inf,
        line=None,
        places=place,
    )


def make_groups(log_compute: jax.Array, loss: jax.Array, weight: jax.Array, pinned: jax.Array) -> Groups:
    """From ``pinned`` [B] and the others, [B, S, P]."""
    weight = jnp.moveaxis(weight, (0, 1, 2), (2, 1, 0))
    present = weight > 0
    x, loss = (
        jnp.where(present, jnp.moveaxis(field, (0, 1, 2), (2, 1, 0)), filler)
        for field, filler in ((log_compute, 0.0), (loss, 1.0))
    )
    weight = jnp.where(present, weight, 0.0)
    total = jnp.sum(weight, axis=0)
    share = weight / jnp.where(total > 0, total, 1.0)
    mean_total = jnp.sum(total, axis=0) / jnp.maximum(jnp.sum(total > 0, axis=0), 1)
    part = jnp.where(total > 0, total / jnp.where(mean_total > 0, mean_total, 1.0), 1.0)
    mean = jnp.sum(share * x, axis=0)
    dx = jnp.where(present, x - mean, 0.0)
    deviation = jnp.sqrt(jnp.sum(share * dx**2, axis=0))
    deviation = jnp.where(deviation > 0, deviation, 1.0)
    first = jnp.min(jnp.where(present, x, jnp.inf), axis=0)
    some = jnp.any(present, axis=(0, 1))
    smallest = jnp.where(some, jnp.min(jnp.where(present, loss, jnp.inf), axis=(0, 1)), 1.0)
    largest = jnp.where(some, jnp.max(jnp.where(present, loss, -jnp.inf), axis=(0, 1)), 1.0)
    free = jnp.isnan(pinned)
    low, high = (jnp.broadcast_to(jnp.where(free, end, pinned), (1, *mean.shape)) for end in (0.0, jnp.inf))
    points = Points(
        above=jnp.where(present, loss - smallest, 0.0),
        loss=jnp.where(present, loss, 0.0),
        share=share,
        part=part[None],
        after=jnp.where(present, x - first, 0.0),
        slant=dx / deviation,
        low=low,
        high=high,
    )
    return Groups(points, jnp.where(jnp.isfinite(first), first, 0.0), mean, deviation, smallest, largest, pinned)


def _enough(points: Points, pinned: jax.Array) -> jax.Array:
    """[L] whether every series with points has two distinct budgets, and where L_inf is free one of them three."""
    present, after = points.share > 0, points.after
    last = jnp.max(after, axis=0)
    two = last > 0
    three = jnp.any(present & (after > 0) & (after < last), axis=0)
    here = jnp.any(present, axis=0)
    determined = ~jnp.isnan(pinned) | jnp.any(three, axis=0)
    return jnp.all(two | ~here, axis=0) & jnp.any(here, axis=0) & determined


def solve(groups: Groups, criterion: Criterion, of_loss: bool) -> tuple[OptimalLaw, Found]:
    """Laws of L groups, fields [S, L]. For kernels: traced, and not cut into chunks."""
    points, pinned = groups.points, groups.pinned
    here = jnp.any(points.share > 0, axis=0)
    if not of_loss:
        found = _fit_logs(groups, criterion)
    elif len(here) == 1:
        found = _fit_losses(groups, criterion)
    else:
        found = _fit_shared_losses(groups, criterion)
    falls = jnp.all((found.fall > ROUNDING) | ~here, axis=0)
    status = jnp.select(
        [~_enough(points, pinned), pinned >= groups.smallest, ~falls, ~found.converged, found.on_bound],
        [
            Status.TOO_FEW_POINTS,
            Status.ASYMPTOTE_ABOVE_LOSS,
            Status.LOSS_DOES_NOT_FALL,
            Status.NOT_CONVERGED,
            Status.BOUND_HIT,
        ],
        Status.FITTED,
    )
    total = jnp.sum(points.part[0] * found.scores, axis=0)
    gradient = jnp.where(jnp.isnan(pinned), found.slope / jnp.where(total > 0, total, 1.0), jnp.nan)
    usable = ((status == Status.FITTED) | (status == Status.BOUND_HIT)) & here
    numbers = (found.L_inf, found.log_A, found.alpha, found.scores, gradient)
    law = OptimalLaw(
        *(jnp.where(usable, number, jnp.nan) for number in numbers), jnp.where(here, status, Status.TOO_FEW_POINTS)
    )
    return law, found


def _kernel(huber: bool, of_loss: bool) -> Callable[..., OptimalLaw]:
    def fit(
        log_compute: jax.Array, loss: jax.Array, weight: jax.Array, pinned: jax.Array, delta: jax.Array
    ) -> OptimalLaw:
        def fit_chunk(*data: jax.Array) -> OptimalLaw:
            law, _ = solve(make_groups(*data), Criterion(huber, delta), of_loss)
            return jax.tree.map(jnp.transpose, law)

        return in_chunks(fit_chunk, CHUNK, log_compute, loss, weight, pinned)

    fit.__name__ = f"fit_{'huber' if huber else 'squared'}_{'loss' if of_loss else 'log'}_laws"
    return jit64(cpu_options=OLD_EMITTERS)(fit)


# Apart rather than one with static arguments, so that compiled programs can be kept by their names.
_KERNELS = {(huber, of_loss): _kernel(huber, of_loss) for huber in (False, True) for of_loss in (False, True)}


def fit_objective_laws(
    log_compute: jax.Array,
    loss: jax.Array,
    weight: jax.Array,
    pinned: jax.Array,
    delta: jax.Array | float,
    *,
    huber: bool,
    of_loss: bool,
) -> OptimalLaw:
    """Fit B groups of S series, one asymptote each, free where ``pinned`` [B] is NaN and else that value.

    ``log_compute`` = log C, ``loss`` and ``weight``: [B, S, P]; a series without weight takes no part, and the others
    count by their weights. ``huber``:
    Huber's function with ``delta`` instead of the square; ``of_loss``: residuals of the loss instead of logarithms. A
    pinned group has one series. Fields are [B, S]; scores are each series' own. L_inf is at least 0, and below every
    loss where the residual is a logarithm. Statuses are those of
    :func:`~delphi_jax.kernels.optimum.fit_optimal_laws`, one for all series of a group that have points; BOUND_HIT
    also where the law falls on the first budget alone. ``gradient`` is the slope of the profile, in
    log(min L - L_inf), or log alpha, or L_inf itself where losses share it, over the profile.
    """
    return _KERNELS[huber, of_loss](log_compute, loss, weight, pinned, np.float64(delta))
