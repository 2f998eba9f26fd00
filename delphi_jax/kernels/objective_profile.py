"""Profile intervals of the asymptotic power law under the objectives of :mod:`~delphi_jax.kernels.law_objectives`.

As in :mod:`~delphi_jax.kernels.law_profile`: at a given place of the search the rest is a line, the laws within the
limit are a convex set of lines, and the extremes over that set are made extreme over the places. Here an extreme is
found by Newton steps on the score of the best line that is held to a value: that score is convex in the value, so that
after a first step beyond the limit each one comes nearer and none passes.

A value is within the interval where the sum of the loss function exceeds its least value by at most
F/2 * mean(psi^2)/mean(psi'), with psi the derivative of the loss function, both means over the residuals with p
parameters taken off, and F a quantile of the F distribution with 1 and n - p degrees of freedom: for squared errors the
limit of :func:`~delphi_jax.quantiles.profile_limit`, else its robust likeness (Heritier & Ronchetti 1994). mean(psi')
is the share of residuals within delta, of which p would be there anyhow.

Axes: B groups of S series, P points, Q targets, E ends of intervals, L lanes; inside, points come first and lanes last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from delphi_jax.kernels.chunks import in_chunks
from delphi_jax.kernels.law_objectives import (
    N_PLACES,
    Criterion,
    Found,
    Groups,
    Line,
    Place,
    Points,
    at_alpha,
    at_gap,
    best_line,
    make_groups,
    solve,
)
from delphi_jax.kernels.law_profile import SLACK, ProfiledLaw, first_largest, most_extreme, outermost
from delphi_jax.kernels.precision import OLD_EMITTERS, jit64
from delphi_jax.status import Bound, Status

__all__ = ["LEAST_WITHIN_DELTA", "profile_objective_laws"]

CHUNK = 4
"""Groups computed at once."""

LEAST_WITHIN_DELTA = 2 / 3
"""Share of the residuals, beyond as many as there are parameters, that has to lie within delta: fewer tell the density
of the noise there too badly. In simulations with 7 points, 95 % intervals held the truth in 94 to 95 % where delta was
a standard deviation of the noise (7 in 10 studies had one), and in 87 to 91 % where it was 0.7 (4 in 10 had one)."""
_MOST_STEPS = 60
_ROUNDED = 1e-12
"""Relative length of the last step of an extreme."""
_ROUNDING = 1e-30
"""Score that the rounding of logarithms alone can give."""


class _Ends(NamedTuple):
    """What the ends are of; fields [E, 1], or [E, B]."""

    sign: np.ndarray
    """-1 for a low end, 1 for a high one."""
    series: np.ndarray
    slope: jax.Array
    """Whether the end is of the line's slope rather than its height at ``anchor``."""
    anchor: jax.Array
    """Where the line is held: log C above the smallest budget's; inf for the asymptote."""


class _Extremes(NamedTuple):
    """What the ends come to at places; fields [..., E, B]."""

    value: jax.Array
    """Times the sign; -inf where no law is within the limit."""
    flat: jax.Array
    """Whether alpha is 0 there."""
    bare: jax.Array
    """Whether L_inf is 0 there, of a loss' residuals."""


class _Held(NamedTuple):
    """Search for an extreme; fields [L] but for the number of steps."""

    distance: jax.Array
    flat: jax.Array
    """Of the line looked at last: whether it has no slope."""
    at_bound: jax.Array
    """Whether its intercept is at its lower bound."""
    found: jax.Array
    steps: jax.Array


class _Problem(NamedTuple):
    """Lines through one series at L places; fields [P, L] or [L]."""

    y: jax.Array
    z: jax.Array
    share: jax.Array
    best: Line
    least: jax.Array
    """Score of the best line."""
    room: jax.Array
    """How much more a line within the limit may score."""
    sign: jax.Array
    slope: jax.Array
    """Whether the value is the line's slope rather than its height at ``anchor``."""
    anchor: jax.Array
    """z at which the value is the line's height."""
    low: jax.Array
    """Bounds of the intercept."""
    high: jax.Array
    floor: jax.Array
    """What the value is at least."""


def _held(value: jax.Array, problem: _Problem, criterion: Criterion) -> tuple[Line, jax.Array, jax.Array]:
    """The best line with ``value`` [L], whether its intercept is at its bound, and the derivative of its score."""
    y, z, share, slope = problem.y, problem.z, problem.share, problem.slope
    # A line of a given height turns about its anchor, down to where its intercept, z = 0, is at its bound.
    bounded = ~slope & (problem.anchor > 0) & jnp.isfinite(problem.low)
    steepest = jnp.where(bounded, (value - problem.low) / jnp.where(bounded, problem.anchor, 1.0), jnp.inf)
    line = best_line(
        y - value * jnp.where(slope, z, 1.0),
        jnp.where(slope, 0.0, z - problem.anchor),
        share,
        jnp.where(slope, problem.low, 0.0),
        jnp.where(slope, problem.high, 0.0),
        criterion,
        steepest,
    )
    at_bound = line.slope >= steepest
    moves = jnp.where(slope, z, jnp.where(at_bound, z / jnp.where(bounded, problem.anchor, 1.0), 1.0))
    return line, at_bound, -jnp.sum(share * criterion.slope(line.residual) * moves, axis=0)


def _extreme(problem: _Problem, criterion: Criterion) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The value [L] furthest in the direction of the sign whose best line is within the limit.

    Also whether that line has no slope, and whether its intercept is at its lower bound.
    """
    z, share, sign, room = problem.z, problem.share, problem.sign, problem.room
    mean = jnp.sum(share * z, axis=0)
    variance = jnp.sum(share * (z - mean) ** 2, axis=0)
    variance = jnp.where(variance > 0, variance, 1.0)
    size = jnp.where(problem.slope, 1 / jnp.sqrt(variance), jnp.sqrt(1 + (problem.anchor - mean) ** 2 / variance))
    best = jnp.where(problem.slope, problem.best.slope, problem.best.intercept + problem.best.slope * problem.anchor)
    furthest = jnp.where(sign < 0, jnp.maximum(best - problem.floor, 0.0), jnp.inf)

    def step(state: _Held) -> _Held:
        distance = state.distance
        line, at_bound, derivative = _held(best + sign * distance, problem, criterion)
        excess = jnp.sum(share * criterion.value(line.residual), axis=0) - problem.least - room
        rise = sign * derivative
        newton = distance - excess / jnp.where(rise > 0, rise, 1.0)
        following = jnp.minimum(jnp.where(rise > 0, newton, 2 * distance), furthest)
        following = jnp.where(state.found, distance, following)
        found = state.found | (jnp.abs(following - distance) <= _ROUNDED * distance)
        flat = jnp.where(problem.slope, best + sign * distance, line.slope) <= 0
        return _Held(following, flat, at_bound, found, state.steps + 1)

    start = jnp.minimum(jnp.sqrt(jnp.maximum(room, 0.0)) * size, furthest)
    ends = jax.lax.while_loop(
        lambda state: jnp.any(~state.found) & (state.steps < _MOST_STEPS),
        step,
        _Held(start, start < 0, start < 0, start < 0, jnp.zeros((), int)),
    )
    return best + sign * ends.distance, ends.flat, ends.at_bound


def _tiled(points: Points, n: int) -> Points:
    return jax.tree.map(lambda leaf: jnp.tile(leaf, (1, 1, n)), points)


def _extremes(
    places: jax.Array, groups: Groups, limit: jax.Array, ends: _Ends, criterion: Criterion, of_loss: bool
) -> _Extremes:
    """``places`` [..., E, B]"""
    n = places.size // len(limit)

    def lanes(field: jax.Array) -> jax.Array:
        return jnp.broadcast_to(field, places.shape).reshape(-1)

    at = places.reshape(-1)
    points = _tiled(groups.points, n)
    evaluated = _evaluate(at, points, criterion, of_loss)
    series, anchor = lanes(ends.series), lanes(ends.anchor)

    def own(field: jax.Array) -> jax.Array:
        """[..., S, L] of the series of each lane."""
        index = jnp.broadcast_to(series, (*field.shape[:-2], 1, len(series)))
        return jnp.take_along_axis(field, index, axis=-2)[..., 0, :]

    if of_loss:
        y, z, anchor = points.loss, jnp.exp(-jnp.exp(at) * points.after), jnp.exp(-jnp.exp(at) * anchor)
        low, high, floor = points.low[0], points.high[0], 0.0
    else:
        pull = jnp.exp(at) / (points.above + jnp.exp(at))
        y, z = -jnp.log(pull), -points.slant
        low, high, floor = (jnp.full_like(evaluated.scores, end) for end in (-jnp.inf, jnp.inf, -jnp.inf))
        floor = own(floor)
    slope, room = lanes(ends.slope), lanes(limit) - evaluated.score
    problem = _Problem(
        y=own(y),
        z=own(z),
        share=own(points.share),
        best=jax.tree.map(own, evaluated.line),
        least=own(evaluated.scores),
        room=room / own(points.part[0]),
        sign=lanes(ends.sign),
        slope=slope,
        anchor=anchor,
        low=own(low),
        high=own(high),
        floor=jnp.where(slope, 0.0, floor),
    )
    held, flat, at_bound = _extreme(problem, criterion)
    if of_loss:
        value = jnp.where(slope, problem.low + held * anchor, held)
        bare = ~slope & (at_bound | (held <= 0))
    else:
        deviation = own(jnp.tile(groups.deviation, (1, n)))
        value = jnp.where(slope, held / deviation, lanes(groups.smallest) - jnp.exp(at) + jnp.exp(at + held))
        bare = jnp.zeros_like(slope)
    value = jnp.where(room >= -SLACK * lanes(limit), problem.sign * value, -jnp.inf)
    return _Extremes(*(field.reshape(places.shape) for field in (value, flat, bare)))


def _evaluate(places: jax.Array, points: Points, criterion: Criterion, of_loss: bool) -> Place:
    return at_alpha(places, points, criterion) if of_loss else at_gap(places, points, criterion)


def _ends(groups: Groups, log_targets: jax.Array, of_loss: bool) -> _Ends:
    """Low ends, then high ones: of a series' alpha, or L_inf where residuals are of the loss, then its forecasts."""
    n_series, n_values = groups.first.shape[0], 1 + len(log_targets)
    place = np.arange(2 * n_series * n_values)[:, None]
    series = place // n_values % n_series
    forecast = place % n_values > 0
    target = jnp.concatenate([jnp.full(1, jnp.inf), log_targets])[place % n_values]
    sign = np.where(place < n_series * n_values, -1.0, 1.0)
    if of_loss:
        # A line whose intercept is pinned has nothing but its slope.
        return _Ends(sign, series, ~jnp.isnan(groups.pinned)[None] & (place >= 0), target - groups.first[series[:, 0]])
    slant = (target - groups.mean[series[:, 0]]) / groups.deviation[series[:, 0]]
    return _Ends(sign, series, jnp.asarray(~forecast), jnp.where(forecast, -slant, 0.0))


def _limit(
    found: Found, points: Points, weight: jax.Array, F: jax.Array, n_params: jax.Array, criterion: Criterion
) -> jax.Array:
    """The highest score [B] within the interval, NaN where the residuals cannot tell it; ``weight`` [P, S, B]."""
    residual = found.line.residual
    square = jnp.sum(points.part * points.share * criterion.slope(residual) ** 2, axis=(0, 1))
    bend = criterion.curvature(jnp.zeros(()))
    near = jnp.sum(weight * criterion.curvature(residual), axis=(0, 1)) / bend - n_params
    told = near >= jnp.maximum(LEAST_WITHIN_DELTA * (jnp.sum(weight, axis=(0, 1)) - n_params), 1)
    return (
        jnp.sum(points.part[0] * found.scores, axis=0)
        + square * F / (2 * bend * jnp.where(told, near, jnp.nan))
        + _ROUNDING
    )


def _profile(
    log_compute: jax.Array,
    loss: jax.Array,
    weight: jax.Array,
    F: jax.Array,
    n_params: jax.Array,
    pinned: jax.Array,
    log_targets: jax.Array,
    criterion: Criterion,
    of_loss: bool,
) -> ProfiledLaw:
    groups = make_groups(log_compute, loss, weight, pinned)
    law, found = solve(groups, criterion, of_loss)
    weight = jnp.moveaxis(jnp.where(weight > 0, weight, 0.0), (0, 1, 2), (2, 1, 0))
    limit = _limit(found, groups.points, weight, F, n_params, criterion)

    def score(places: jax.Array) -> jax.Array:
        return _evaluate(places, groups.points, criterion, of_loss).score

    def within(places: jax.Array) -> jax.Array:
        return jax.lax.map(score, places) <= limit * (1 + SLACK)

    known = jnp.concatenate([jax.vmap(found.places)(jnp.arange(N_PLACES)), found.place[None]])
    low, high = outermost(known, within(known), within)

    ends = _ends(groups, log_targets, of_loss)

    def extremes(places: jax.Array) -> _Extremes:
        return _extremes(places, groups, limit, ends, criterion, of_loss)

    extreme = most_extreme(low, high, lambda places: extremes(places).value, len(ends.sign))
    tried = jnp.stack([jnp.broadcast_to(place, extreme.shape) for place in (high, low, extreme, found.place)])
    all_tried = extremes(tried)
    best = first_largest(all_tried.value)
    value, flat, bare = (jnp.take_along_axis(field, best[None], axis=0)[0] for field in all_tried)

    free = jnp.isnan(pinned)
    at_first, at_last = low <= known[0], high >= known[N_PLACES - 1]
    if of_loss:
        searched = jnp.where(at_first, 0.0, jnp.exp(low)), jnp.exp(high)
        first_bound, last_bound = Bound.NO_FALL, Bound.STEEPEST
        bound = jnp.where(bare, Bound.NO_ASYMPTOTE.value, 0)
    else:
        at_first, at_last = at_first & free, at_last & free
        searched = jnp.where(at_last, 0.0, groups.smallest - jnp.exp(high)), groups.smallest - jnp.exp(low)
        searched = tuple(jnp.where(free, end, pinned) for end in searched)
        first_bound, last_bound = Bound.SMALLEST_LOSS, Bound.NO_ASYMPTOTE
        bound = 0
    # An alpha of 0 is that of the flat law under every asymptote.
    here = ~(flat & ends.slope)
    bound = bound + jnp.where(flat, Bound.NO_FALL.value, 0)
    bound = bound + jnp.where((best == 0) & at_last & here, last_bound.value, 0)
    bound = bound + jnp.where((best == 1) & at_first & here & ~flat, first_bound.value, 0)
    bound = jnp.where(jnp.isinf(ends.anchor) & ~free, 0, bound)
    ends_at = (at_first, first_bound), (at_last, last_bound)
    searched_bound = tuple(jnp.where(at, which.value, 0) for at, which in (ends_at if of_loss else ends_at[::-1]))

    n_values = 1 + len(log_targets)
    status = jnp.where(jnp.isnan(F), Status.TOO_FEW_POINTS, Status.TOO_FEW_WITHIN_DELTA)
    usable = (law.status == Status.FITTED) | (law.status == Status.BOUND_HIT)
    status = jnp.where(usable & jnp.isnan(limit), status, law.status)
    told = usable & ~jnp.isnan(limit)

    def columns(end: int, searched: jax.Array, held: jax.Array, unknown: float) -> jax.Array:
        """[B, S, 2 + Q] of one end, from ``searched`` [B] and ``held`` [E, B]."""
        held = jnp.moveaxis(held.reshape(2, -1, n_values, len(limit))[end], -1, 0)
        searched = jnp.broadcast_to(searched[:, None, None], (*held.shape[:2], 1))
        order = (held[..., :1], searched) if of_loss else (searched, held[..., :1])
        return jnp.where(told.T[..., None], jnp.concatenate([*order, held[..., 1:]], axis=-1), unknown)

    value = ends.sign * value
    return ProfiledLaw(
        jax.tree.map(jnp.transpose, law),
        columns(0, searched[0], value, jnp.nan),
        columns(1, searched[1], value, jnp.nan),
        columns(0, searched_bound[0], bound, 0),
        columns(1, searched_bound[1], bound, 0),
        status.T,
    )


def _kernel(huber: bool, of_loss: bool) -> Callable[..., ProfiledLaw]:
    def profile(
        log_compute: jax.Array,
        loss: jax.Array,
        weight: jax.Array,
        log_targets: jax.Array,
        F: jax.Array,
        n_params: jax.Array,
        pinned: jax.Array,
        delta: jax.Array,
    ) -> ProfiledLaw:
        return in_chunks(
            lambda *groups: _profile(*groups, log_targets, Criterion(huber, delta), of_loss),
            CHUNK,
            log_compute,
            loss,
            weight,
            F,
            n_params,
            pinned,
        )

    profile.__name__ = f"profile_{'huber' if huber else 'squared'}_{'loss' if of_loss else 'log'}_laws"
    return jit64(cpu_options=OLD_EMITTERS)(profile)


_KERNELS = {(huber, of_loss): _kernel(huber, of_loss) for huber in (False, True) for of_loss in (False, True)}


def profile_objective_laws(
    log_compute: jax.Array,
    loss: jax.Array,
    weight: jax.Array,
    log_targets: jax.Array,
    F: jax.Array,
    n_params: jax.Array,
    pinned: jax.Array,
    delta: jax.Array | float,
    *,
    huber: bool,
    of_loss: bool,
) -> ProfiledLaw:
    """Laws of B groups of S series and their profile intervals; ends are [B, S, 2 + Q], statuses [B, S].

    Groups as in :func:`~delphi_jax.kernels.law_objectives.fit_objective_laws`; a group whose residuals are of the loss
    has one series. ``log_targets`` [Q] = log C of the forecasts; ``F`` [B]: quantile of the F distribution with 1 and
    n - ``n_params`` [B] degrees of freedom, NaN where there are none (TOO_FEW_POINTS). TOO_FEW_WITHIN_DELTA where
    Huber's function finds fewer residuals within delta than ``n_params`` and LEAST_WITHIN_DELTA of the others.
    """
    settings = log_targets, F, np.asarray(n_params, np.float64), pinned, np.float64(delta)
    return _KERNELS[huber, of_loss](log_compute, loss, weight, *settings)
