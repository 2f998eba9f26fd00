"""Profile intervals of the asymptotic power law: of L_inf, of alpha, and of forecasts.

The interval of a quantity holds every value at which the best law that has it reaches a score of at most ``limit``
times the least one. At a given place u = log(min L - L_inf) the score is a parabola over the line's height and slope,
so the laws within the limit form an ellipse, on which alpha, or the line's height at a target, has its extremes in
closed form; where they would need a rising line, the extremes on alpha = 0 stand in. What is left is one dimension: the
places that are within the limit, whose outermost ends are bisected, and between them the place where the extreme
is most extreme, by coarse places and golden sections. Ends bound the whole set, also where it has a gap.

Axes: B series, P points, Q targets, V = 1 + Q quantities that are not L_inf (alpha, then forecasts), E = 2*V ends (low
ones, then high ones).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from delphi_jax.kernels.chunks import in_chunks
from delphi_jax.kernels.optimum import N_COARSE, LawSeries, OptimalLaw, coarse_place, find_optima
from delphi_jax.kernels.precision import OLD_EMITTERS, jit64
from delphi_jax.status import Bound, Status

__all__ = ["SLACK", "ProfiledLaw", "first_largest", "most_extreme", "outermost", "profile_laws"]

CHUNK = 32
"""Series computed at once."""

_HALVINGS = 60
"""Of the bracket of an end of the places within the limit: to the last bit."""
_ANGLES = 25
"""Coarse places between these ends, crowded towards them like a sine's values at even angles, because extremes grow
with the square root of the distance from an end."""
_SECTIONS = 40
"""Golden sections of an angle between two coarse ones: to 1e-10, where an extreme is known to 1e-20."""
_GOLDEN = (np.sqrt(5.0) - 1) / 2
_ROUNDING = 1e-30
"""Score that the rounding of logarithms alone can give."""
SLACK = 1e-12
"""Share by which a score may exceed the limit, and extremes differ, through rounding."""


class ProfiledLaw(NamedTuple):
    """Laws of B series and intervals of their quantities: L_inf, alpha, then the Q forecasts.

    Numbers are NaN where ``status`` is not usable; of a pinned law the ends of L_inf are the pinned value.
    """

    law: OptimalLaw
    low: jax.Array
    """[B, 2 + Q]"""
    high: jax.Array
    """[B, 2 + Q]"""
    low_bound: jax.Array
    """[B, 2 + Q] Bound that cuts this end, as an integer."""
    high_bound: jax.Array
    """[B, 2 + Q]"""
    status: jax.Array
    """[B]"""


class _Lines(NamedTuple):
    """The best line at every place of u; fields [..., B]."""

    height: jax.Array
    """Mean of log(L - L_inf)."""
    fall: jax.Array
    """alpha times the standard deviation of log C, of either sign."""
    score: jax.Array
    flat: jax.Array
    """Score of the best line that does not fall."""


class _Ends(NamedTuple):
    """Ends of intervals; fields that broadcast with [E, B]."""

    sign: jax.Array
    """-1 for a low end, 1 for a high one."""
    forecast: jax.Array
    """1 where the end is of a forecast, 0 of alpha."""
    slant: jax.Array
    """The end is of the line's height times ``forecast`` plus its fall times this."""


class _Extremes(NamedTuple):
    """What the ends come to at places of u; fields [E, B]."""

    value: jax.Array
    """Times the sign, so that more is more extreme; -inf where no law is within the limit."""
    flat: jax.Array
    """Whether alpha is 0 there."""


def _lines(u: jax.Array, series: LawSeries) -> _Lines:
    """``u`` [..., B]"""
    above, share, slant = (jnp.expand_dims(field, range(1, u.ndim)) for field in series)
    y = jnp.log(above + jnp.exp(u))
    height = jnp.sum(share * y, axis=0)
    dy = y - height
    fall = -jnp.sum(share * slant * dy, axis=0)
    score = jnp.sum(share * (dy + fall * slant) ** 2, axis=0)
    return _Lines(height, fall, score, score + fall**2)


def _within(lines: _Lines, limit: jax.Array) -> jax.Array:
    return jnp.where(lines.fall > 0, lines.score, lines.flat) <= limit * (1 + SLACK)


def _extremes(
    u: jax.Array, series: LawSeries, smallest: jax.Array, deviation: jax.Array, limit: jax.Array, ends: _Ends
) -> _Extremes:
    """``u`` [E, B], the others [B] or per end."""
    lines = _lines(u, series)
    sign, forecast, slant = ends
    size = jnp.sqrt(forecast + slant**2)
    room = jnp.sqrt(jnp.maximum(limit - lines.score, 0.0))
    flat = lines.fall + sign * slant / size * room < 0
    centre = forecast * lines.height + jnp.where(flat, 0.0, slant * lines.fall)
    room = jnp.where(flat, forecast * jnp.sqrt(jnp.maximum(limit - lines.flat, 0.0)), size * room)
    end = centre + sign * room
    value = jnp.where(forecast > 0, smallest - jnp.exp(u) + jnp.exp(end), end / deviation)
    return _Extremes(jnp.where(_within(lines, limit), sign * value, -jnp.inf), flat)


def outermost(known: jax.Array, inside: jax.Array, within: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The lowest and the highest place within the limit, [2, B].

    ``known`` [K, B]: places all over, ``inside`` [K, B]: which are within; ``within`` tells it of places [2, B].
    """
    # Signs turn both into lowest ones.
    sign = jnp.array([[1.0], [-1.0]])
    signed = sign[:, None] * known
    inner = jnp.min(jnp.where(inside, signed, jnp.inf), axis=1)
    outer = jnp.max(jnp.where(signed < inner[:, None], signed, -jnp.inf), axis=1)
    outer = jnp.where(jnp.isfinite(outer), outer, inner)

    def halve(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        outer, inner = bracket
        middle = (outer + inner) / 2
        at_middle = within(sign * middle)
        return jnp.where(at_middle, outer, middle), jnp.where(at_middle, middle, inner)

    return sign * jax.lax.fori_loop(0, _HALVINGS, halve, (outer, inner))[1]


def most_extreme(low: jax.Array, high: jax.Array, value: Callable[[jax.Array], jax.Array], n: int) -> jax.Array:
    """The place [E, B] between ``low`` and ``high`` [B] at which each of ``n`` = E ends has its largest value.

    ``value`` takes places [..., E, B].
    """
    middle, half = (low + high) / 2, (high - low) / 2

    def at_angle(angle: jax.Array) -> jax.Array:
        return middle + half * jnp.sin(angle)

    step = np.pi / (_ANGLES - 1)

    def look(k: jax.Array, best: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        angle = jnp.full((n, len(low)), k * step - np.pi / 2)
        found = value(at_angle(angle))
        better = found > best[1]
        return jnp.where(better, angle, best[0]), jnp.where(better, found, best[1])

    nothing = jnp.zeros((n, len(low)))
    centre, _ = jax.lax.fori_loop(0, _ANGLES, look, (nothing, nothing - jnp.inf))

    def cut(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        left, right = bracket
        width = right - left
        lower, upper = right - _GOLDEN * width, left + _GOLDEN * width
        at_lower, at_upper = value(at_angle(jnp.stack([lower, upper])))
        keep_left = at_lower >= at_upper
        return jnp.where(keep_left, left, lower), jnp.where(keep_left, upper, right)

    bracket = (jnp.maximum(centre - step, -np.pi / 2), jnp.minimum(centre + step, np.pi / 2))
    left, right = jax.lax.fori_loop(0, _SECTIONS, cut, bracket)
    return at_angle((left + right) / 2)


def first_largest(value: jax.Array) -> jax.Array:
    """Which of ``value`` [K, ...] is the largest: the first of those that are equal but for rounding."""
    largest = jnp.max(value, axis=0)
    return jnp.argmax(value >= largest - SLACK * jnp.abs(largest), axis=0)


def _profile(
    log_compute: jax.Array,
    loss: jax.Array,
    weight: jax.Array,
    limit: jax.Array,
    pinned: jax.Array,
    log_targets: jax.Array,
) -> ProfiledLaw:
    optima = find_optima(log_compute, loss, weight, pinned)
    law, series, places, smallest = optima.law, optima.series, optima.places, optima.smallest
    deviation = jnp.where(optima.deviation > 0, optima.deviation, 1.0)
    limit = limit * _lines(optima.u, series).score + _ROUNDING
    known = jnp.concatenate([coarse_place(places, jnp.arange(N_COARSE)[:, None]), optima.minima])
    low, high = outermost(known, _within(_lines(known, series), limit), lambda u: _within(_lines(u, series), limit))

    slant = -(log_targets[:, None] - optima.mean) / deviation
    slant = jnp.tile(jnp.concatenate([jnp.ones_like(deviation)[None], slant]), (2, 1))
    n_values = 1 + len(log_targets)
    alone = np.arange(2 * n_values)[:, None]
    ends = _Ends(np.where(alone < n_values, -1.0, 1.0), np.where(alone % n_values > 0, 1.0, 0.0), slant)

    def extremes(u: jax.Array) -> _Extremes:
        return _extremes(u, series, smallest, deviation, limit, ends)

    found = most_extreme(low, high, lambda u: extremes(u).value, 2 * n_values)
    # On a bound rather than beside it.
    tried = jnp.stack([jnp.broadcast_to(u, found.shape) for u in (high, low, found, optima.u)])
    value, flat = extremes(tried)
    best = first_largest(value)
    value, flat = (jnp.take_along_axis(each, best[None], axis=0)[0] for each in (value, flat))
    free = jnp.isnan(pinned)
    at_zero, at_loss = free & (high >= places.top), free & (low <= places.closest)
    bound = (
        jnp.where(flat, Bound.NO_FALL.value, 0)
        # An alpha of 0 is that of the flat law under every asymptote.
        + jnp.where((best == 0) & at_zero & ~(flat & (ends.forecast == 0)), Bound.NO_ASYMPTOTE.value, 0)
        + jnp.where((best == 1) & at_loss, Bound.SMALLEST_LOSS.value, 0)
    )
    value = ends.sign * value
    L_inf = jnp.where(at_zero, 0.0, smallest - jnp.exp(high)), smallest - jnp.exp(low)
    L_inf_bound = jnp.where(at_zero, Bound.NO_ASYMPTOTE.value, 0), jnp.where(at_loss, Bound.SMALLEST_LOSS.value, 0)

    usable = (law.status == Status.FITTED) | (law.status == Status.BOUND_HIT)
    status = jnp.where(usable & jnp.isnan(limit), Status.TOO_FEW_POINTS, law.status)
    known_ends = usable & ~jnp.isnan(limit)

    def columns(first: jax.Array, rest: jax.Array, unknown: float) -> jax.Array:
        return jnp.where(known_ends, jnp.concatenate([first[None], rest]), unknown).T

    return ProfiledLaw(
        law,
        columns(jnp.where(free, L_inf[0], pinned), value[:n_values], jnp.nan),
        columns(jnp.where(free, L_inf[1], pinned), value[n_values:], jnp.nan),
        columns(L_inf_bound[0], bound[:n_values], 0),
        columns(L_inf_bound[1], bound[n_values:], 0),
        status,
    )


@jit64(cpu_options=OLD_EMITTERS)
def profile_laws(
    log_compute: jax.Array,
    loss: jax.Array,
    weight: jax.Array,
    log_targets: jax.Array,
    limit: jax.Array,
    pinned: jax.Array,
) -> ProfiledLaw:
    """Laws of B series and their profile intervals, for the weighted mean squared log residual.

    Series as in :func:`~delphi_jax.kernels.optimum.fit_optimal_laws`; ``log_targets`` [Q] = log C of the forecasts;
    ``limit`` [B] is how many times the least score a value may reach, see
    :func:`~delphi_jax.quantiles.profile_limit`, NaN where there are too few points for an interval.
    """
    return in_chunks(
        lambda *problems: _profile(*problems, log_targets), CHUNK, log_compute, loss, weight, limit, pinned
    )
