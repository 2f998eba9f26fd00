"""Minima of a function of one variable that may have several, for many functions at once.

Slopes are taken at coarse places. The minimum of the cubic through two neighbours is a candidate; the deepest few are
refined by Newton steps that a bracket guards, or by bisection of the slope where there is no curvature.

Axis: L lanes, a function each, last in every array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from delphi_jax.kernels.loops import keep_where, loop_lanes

__all__ = ["Evaluation", "Minima", "search"]

_STEP = 1e-9
"""Converged where a Newton step is this short: it is the last, and squares what is left."""
_ROUNDED = 1e-15
"""Relative length of a step that halves the bracket at which there is nothing left to halve."""
_MOST_STEPS = 60
"""Bisection alone ends in fewer."""


class Evaluation(Protocol):
    """What a function and its derivatives are at a place; [L]. A curvature of 0 stands for one that is not known."""

    score: jax.Array
    slope: jax.Array
    curvature: jax.Array


class _Slope(NamedTuple):
    """What is kept of an evaluation; [L]."""

    score: jax.Array
    slope: jax.Array


class Minima(NamedTuple):
    """The deepest minima; fields [K, L], in no order. Where there are fewer than K, some are ends of the places."""

    place: jax.Array
    score: jax.Array
    converged: jax.Array


class _Candidate(NamedTuple):
    """A bracketed minimum; fields [L]."""

    score: jax.Array
    """About what it will be."""
    start: jax.Array
    low: jax.Array
    high: jax.Array


class _State(NamedTuple):
    """Of the refinement; fields [L]."""

    place: jax.Array
    """Where to look next; where converged, the minimum."""
    low: jax.Array
    high: jax.Array
    score: jax.Array
    """At the place looked at last."""
    converged: jax.Array
    steps: jax.Array


def search(
    evaluate: Callable[[jax.Array, Any], Evaluation],
    data: Any,
    place: Callable[[jax.Array | int], jax.Array],
    n_places: int,
    n_kept: int,
) -> Minima:
    """The ``n_kept`` deepest minima between ``place(0)`` and ``place(n_places - 1)`` [L], ascending coarse places.

    ``evaluate(places, data)`` takes places [M] and leaves of ``data`` [..., M] for any number M of lanes. An end is a
    minimum where the function falls towards it.
    """
    kept = _coarse_minima(lambda at: evaluate(at, data), place, n_places, n_kept)
    start = jax.tree.map(lambda *fields: jnp.concatenate(fields), *kept)
    data = jax.tree.map(lambda leaf: jnp.concatenate([leaf] * n_kept, axis=-1), data)
    ends = _refine(lambda at: evaluate(at, data), start)
    return Minima(*(field.reshape(n_kept, -1) for field in (ends.place, ends.score, ends.converged)))


def _cubic(low: jax.Array, high: jax.Array, left: _Slope, right: _Slope) -> _Candidate:
    """The minimum of the cubic through both ends' values and slopes (Nocedal & Wright 2006, equation 3.59).

    Its score is inf where there is none between the ends. There may be one though the slopes do not change sign: a
    minimum beside a maximum.
    """
    width = jnp.where(high > low, high - low, 1.0)
    d1 = left.slope + right.slope - 3 * (right.score - left.score) / width
    square = d1**2 - left.slope * right.slope
    d2 = jnp.sqrt(jnp.maximum(square, 0.0))
    below = right.slope - left.slope + 2 * d2
    share = (d1 + d2 - left.slope) / jnp.where(below > 0, below, jnp.inf)
    found = ((left.slope < 0) & (right.slope >= 0)) | ((square > 0) & (share > 0) & (share < 1))
    share = jnp.clip(share, 0.0, 1.0)
    rest = 1 - share
    score = (
        rest**2 * (1 + 2 * share) * left.score
        + share**2 * (1 + 2 * rest) * right.score
        + share * rest * width * (rest * left.slope - share * right.slope)
    )
    return _Candidate(jnp.where(found & (high > low), score, jnp.inf), low + share * width, low, high)


def _insert(new: _Candidate, kept: tuple[_Candidate, ...]) -> tuple[_Candidate, ...]:
    """``kept``, best first, after ``new`` has taken its place among them."""
    result = []
    for old in kept:
        better = new.score < old.score
        result.append(keep_where(better, new, old))
        new = keep_where(better, old, new)
    return tuple(result)


def _coarse_minima(
    evaluate: Callable[[jax.Array], Evaluation],
    place: Callable[[jax.Array | int], jax.Array],
    n_places: int,
    n_kept: int,
) -> tuple[_Candidate, ...]:
    # The function is compiled once here and once where it is refined, which is what takes time to compile.
    def look(k: jax.Array, carry: tuple) -> tuple:
        low, left, kept = carry
        high = place(k)
        at = evaluate(high)
        right = _Slope(at.score, at.slope)
        between = _cubic(low, high, left, right)
        at_first = _Candidate(jnp.where(at.slope >= 0, at.score, jnp.inf), high, high, high)
        first = jnp.broadcast_to(k == 0, high.shape)
        return high, right, _insert(keep_where(first, at_first, between), kept)

    bottom, top = place(0), place(n_places - 1)
    nowhere = _Candidate(jnp.full_like(top, jnp.inf), top, top, top)
    start = bottom, _Slope(jnp.zeros_like(top), jnp.zeros_like(top)), (nowhere,) * n_kept
    _, last, kept = jax.lax.fori_loop(0, n_places, look, start)
    return _insert(_Candidate(jnp.where(last.slope <= 0, last.score, jnp.inf), top, top, top), kept)


def _refine(evaluate: Callable[[jax.Array], Evaluation], found: _Candidate) -> _State:
    def unfinished(state: _State) -> jax.Array:
        return ~state.converged & (state.steps < _MOST_STEPS)

    def step(state: _State) -> _State:
        place = state.place
        at = evaluate(place)
        low, high = jnp.where(at.slope < 0, place, state.low), jnp.where(at.slope < 0, state.high, place)
        newton = place - at.slope / jnp.where(at.curvature > 0, at.curvature, jnp.inf)
        inside = (at.curvature > 0) & (newton >= low) & (newton <= high)
        following = jnp.where(inside, newton, (low + high) / 2)
        enough = jnp.where(inside, _STEP, _ROUNDED * jnp.maximum(jnp.abs(place), 1.0))
        return _State(following, low, high, at.score, jnp.abs(following - place) <= enough, state.steps + 1)

    steps = jnp.zeros(found.start.shape, int)
    start = _State(found.start, found.low, found.high, found.score, steps > 0, steps)
    return loop_lanes(unfinished, step, start)
