"""Richards curves y = f + (K - f)/(1 + exp(-k(x - x0)))^v: bounded least squares, many problems at once.

Levenberg-Marquardt (Marquardt 1963) in theta = (log k, x0, log v, K - f) with an active set for the bounds, from
several starts: the best point of a coarse grid for each of its values of v, where the amplitude K - f is the
clipped least-squares one (variable projection, Golub & Pereyra 1973), the reference's own start, and a flat
curve. All starts are refined shortly in rounds of a few, the best of them then to convergence: the same
compiled loop serves every round.

Axes: B problems, P points (padded, masked), S starts, 4 parameters.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from delphi_jax.kernels.chunks import in_chunks
from delphi_jax.kernels.linalg import solve
from delphi_jax.kernels.precision import jit64
from delphi_jax.status import Status

__all__ = ["LONG", "REFERENCE_START", "RichardsBounds", "RichardsCurve", "fit_richards"]

REFERENCE_START = (5.0, 1.0)
"""k and v of the reference's start; its x0 is the median of x."""
_FLAT_START = (0.12, 4.0)
"""k and v of a curve that hardly rises; its x0 is on its upper bound."""

_GRID_K = np.geomspace(0.15, 40.0, 7)
_GRID_V = np.geomspace(0.12, 18.0, 7)
_GRID_HEIGHT = np.linspace(-0.1, 1.3, 8)
"""Places of the half-height point, as shares of the range of x."""

LONG = 400
"""Levenberg-Marquardt evaluations for the survivors, unless the caller wants more."""
_SHORT = 70
"""The same for every start."""
_CHUNK = 8
_PER_ROUND = 3
"""Starts refined side by side; also the number of survivors."""
_PATIENCE = 40
"""Consecutive steps of no relative gain beyond _GAIN after which the valley counts as flat."""
_GAIN = 1e-13
_MIN_POINTS = 4
"""As many as the curve has parameters."""
_ON_BOUND = 1e-9
"""Relative distance at which a parameter counts as lying on its bound."""
_LEAST_DAMPING = 1e-9
_GRADIENT = 1e-11
"""Converged where every free parameter's gradient is this small, as a cosine with the residual."""
_EXACT = 1e-28
"""Mean squared residual at which the curve passes through every point."""


class RichardsBounds(NamedTuple):
    """Box of one problem; fields []. The amplitude is K - f; a pinned ceiling has equal ends."""

    k: tuple[jax.Array, jax.Array]
    x0: tuple[jax.Array, jax.Array]
    v: tuple[jax.Array, jax.Array]
    amplitude: tuple[jax.Array, jax.Array]


class RichardsCurve(NamedTuple):
    """Curves of B problems; fields [B]."""

    k: jax.Array
    x0: jax.Array
    v: jax.Array
    amplitude: jax.Array
    sse: jax.Array
    on_bound: jax.Array
    """[B, 4] whether k, x0, v, amplitude lie on a bound."""
    status: jax.Array


class _Point(NamedTuple):
    """The objective at one theta."""

    theta: jax.Array
    sse: jax.Array
    gradient: jax.Array
    """[4] of half the sum of squares."""
    hessian: jax.Array
    """[4, 4] Gauss-Newton."""


class _Lanes(NamedTuple):
    """Where each start has come to; fields [S, ...]."""

    theta: jax.Array
    sse: jax.Array
    converged: jax.Array


class _State(NamedTuple):
    at: _Point
    """The best point so far."""
    trial: jax.Array
    """[4] theta to evaluate next."""
    damping: jax.Array
    evaluations: jax.Array
    idle: jax.Array
    """Consecutive accepted steps without gain."""
    converged: jax.Array


def _shape(theta: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(1 + e^u)^-v, its softplus log(1 + e^u) and sigmoid e^u/(1 + e^u), u = -k(x - x0); each [P]."""
    u = -jnp.exp(theta[0]) * (x - theta[1])
    decay = jnp.exp(-jnp.abs(u))
    softplus = jnp.maximum(u, 0.0) + jnp.log1p(decay)
    sigmoid = jnp.where(u >= 0, 1.0, decay) / (1.0 + decay)
    return jnp.exp(-jnp.exp(theta[2]) * softplus), softplus, sigmoid


def _best_amplitude(s: jax.Array, z: jax.Array, limits: tuple[jax.Array, jax.Array]) -> jax.Array:
    """The least-squares amplitude of shape ``s`` [P] for data ``z`` [P], clipped to ``limits``."""
    return jnp.clip(jnp.sum(z * s) / jnp.maximum(jnp.sum(s * s), 1e-300), *limits)


def _evaluate(theta: jax.Array, x: jax.Array, z: jax.Array, mask: jax.Array) -> _Point:
    shape, softplus, sigmoid = _shape(theta, x)
    s = jnp.where(mask, shape, 0.0)
    k, v, amplitude = jnp.exp(theta[0]), jnp.exp(theta[2]), theta[3]
    curve = amplitude * s
    jacobian = jnp.stack([curve * v * sigmoid * k * (x - theta[1]), -curve * v * sigmoid * k, -curve * v * softplus, s])
    residual = curve - z
    hessian = jnp.sum(jacobian[:, None, :] * jacobian[None, :, :], axis=2)
    return _Point(theta, jnp.sum(residual**2), jnp.sum(jacobian * residual, axis=1), hessian)


def _free(point: _Point, lower: jax.Array, upper: jax.Array) -> jax.Array:
    """[4] parameters that are not held by an active bound."""
    return ~((point.theta <= lower) & (point.gradient > 0)) & ~((point.theta >= upper) & (point.gradient < 0))


def _unvisited(theta: jax.Array) -> _Point:
    """A point that any evaluated one improves on."""
    return _Point(theta, jnp.asarray(jnp.inf), jnp.zeros(4), jnp.eye(4))


def _refine(
    start: jax.Array,
    x: jax.Array,
    z: jax.Array,
    mask: jax.Array,
    bounds: RichardsBounds,
    budget: jax.Array,
) -> _State:
    """Levenberg-Marquardt within the box from one ``start`` [4], at most ``budget`` evaluations."""
    lower, upper = (
        jnp.stack([jnp.log(bounds.k[end]), bounds.x0[end], jnp.log(bounds.v[end]), bounds.amplitude[end]])
        for end in (0, 1)
    )
    exact = _EXACT * jnp.sum(mask)

    def unfinished(state: _State) -> jax.Array:
        return (state.evaluations < budget) & ~state.converged

    def step(state: _State) -> _State:
        trial = _evaluate(state.trial, x, z, mask)
        better = trial.sse < state.at.sse
        at = jax.tree.map(lambda new, old: jnp.where(better, new, old), trial, state.at)
        damping = jnp.where(better, jnp.maximum(state.damping / 9, _LEAST_DAMPING), state.damping * 5)
        idle = jnp.where(state.at.sse - at.sse > _GAIN * at.sse, 0, state.idle + 1)

        free = _free(at, lower, upper)
        diagonal = jnp.diagonal(at.hessian)
        cosine = jnp.abs(at.gradient) / jnp.sqrt(jnp.maximum(diagonal * at.sse, 1e-300))
        stationary = jnp.all(jnp.where(free, cosine, 0.0) <= _GRADIENT)
        converged = stationary | (idle >= _PATIENCE) | (at.sse <= exact)

        scale = jnp.where(free, jnp.maximum(diagonal, 1e-12 * jnp.max(diagonal) + 1e-300), 1.0)
        ridge = jnp.where(free, (damping + 1e-15) * scale, 1.0)
        matrix = jnp.where(free[:, None] & free[None, :], at.hessian, 0.0) + jnp.diag(ridge)
        move = solve(matrix, jnp.where(free, -at.gradient, 0.0))
        following = jnp.clip(at.theta + jnp.where(free, move, 0.0), lower, upper)
        return _State(at, following, damping, state.evaluations + 1, idle, converged)

    begin = _State(_unvisited(start), start, jnp.asarray(1e-2), jnp.asarray(0), jnp.asarray(0), jnp.asarray(False))
    return jax.lax.while_loop(unfinished, step, begin)


def _starts(x: jax.Array, z: jax.Array, mask: jax.Array, bounds: RichardsBounds) -> jax.Array:
    """[S, 4] starts: the best grid point for each v, the reference's start, and a flat curve."""
    lowest, highest = jnp.min(jnp.where(mask, x, jnp.inf)), jnp.max(jnp.where(mask, x, -jnp.inf))
    v, k, share = (axis.ravel() for axis in np.meshgrid(_GRID_V, _GRID_K, _GRID_HEIGHT, indexing="ij"))
    half = lowest + share * (highest - lowest)
    x0 = jnp.clip(half + np.log(2.0 ** (1 / v) - 1) / k, *bounds.x0)

    def complete(log_k: jax.Array, place: jax.Array, log_v: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Theta with its best amplitude, and the sum of squares there."""
        theta = jnp.stack([log_k, place, log_v])
        s = jnp.where(mask, _shape(theta, x)[0], 0.0)
        amplitude = _best_amplitude(s, z, bounds.amplitude)
        return jnp.append(theta, amplitude), jnp.sum((z - amplitude * s) ** 2)

    theta, cost = jax.vmap(complete)(np.log(k), x0, np.log(v))
    best = jnp.argmin(cost.reshape(len(_GRID_V), -1), axis=1)
    chosen = jnp.take_along_axis(theta.reshape(len(_GRID_V), -1, 4), best[:, None, None], axis=1)[:, 0]
    ordered = jnp.sort(jnp.where(mask, x, jnp.inf))
    n = jnp.sum(mask)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    places = jnp.stack([median, bounds.x0[1]])
    k_fixed, v_fixed = np.log(np.array([REFERENCE_START, _FLAT_START])).T
    return jnp.concatenate([chosen, jax.vmap(complete)(k_fixed, places, v_fixed)[0]])


def _fit(
    x: jax.Array, y: jax.Array, mask: jax.Array, floor: jax.Array, bounds: RichardsBounds, budget: jax.Array
) -> RichardsCurve:
    x, z = jnp.where(mask, x, 0.0), jnp.where(mask, y - floor, 0.0)
    n = jnp.sum(mask)
    starts = _starts(x, z, mask, bounds)
    n_rounds = starts.shape[0] // _PER_ROUND
    refine = jax.vmap(lambda start, most: _refine(start, x, z, mask, bounds, most), in_axes=(0, None))

    def play(lanes: _Lanes, number: jax.Array) -> tuple[_Lanes, None]:
        """One round; the last is played by the survivors of all others."""
        last = number == n_rounds
        survivors = jax.lax.top_k(-lanes.sse, _PER_ROUND)[1]
        place = jnp.where(last, survivors, number * _PER_ROUND + jnp.arange(_PER_ROUND))
        ends = refine(lanes.theta[place], jnp.where(last, budget, _SHORT))
        played = _Lanes(ends.at.theta, ends.at.sse, ends.converged)
        return jax.tree.map(lambda old, new: old.at[place].set(new), lanes, played), None

    n_starts = starts.shape[0]
    lanes = _Lanes(starts, jnp.full(n_starts, jnp.inf), jnp.zeros(n_starts, bool))
    lanes, _ = jax.lax.scan(play, lanes, jnp.arange(n_rounds + 1))
    best = jnp.argmin(lanes.sse)
    theta = lanes.theta[best]
    k, x0, v, amplitude = jnp.exp(theta[0]), theta[1], jnp.exp(theta[2]), theta[3]
    box = (bounds.k, bounds.x0, bounds.v, bounds.amplitude)
    pinned = bounds.amplitude[0] >= bounds.amplitude[1]
    on_bound = jnp.stack(
        [
            (value <= low + _ON_BOUND * jnp.abs(low)) | (value >= high - _ON_BOUND * jnp.abs(high))
            for value, (low, high) in zip((k, x0, v, amplitude), box, strict=True)
        ]
    )
    on_bound = on_bound & ~(pinned & (jnp.arange(4) == 3))
    status = jnp.where(
        n < _MIN_POINTS,
        Status.TOO_FEW_POINTS,
        jnp.where(
            ~lanes.converged[best],
            Status.NOT_CONVERGED,
            jnp.where(jnp.any(on_bound), Status.BOUND_HIT, Status.FITTED),
        ),
    )
    return RichardsCurve(k, x0, v, amplitude, lanes.sse[best], on_bound, status)


@jit64()
def fit_richards(
    x: jax.Array,
    y: jax.Array,
    mask: jax.Array,
    floor: jax.Array,
    bounds: RichardsBounds,
    budget: jax.Array | int = LONG,
) -> RichardsCurve:
    """All problems at once: ``x``, ``y``, ``mask`` [B, P], ``floor`` [B], fields of ``bounds`` [B].

    ``budget`` [] is the number of evaluations after which a start counts as not converged. Numbers of a problem
    whose status is TOO_FEW_POINTS mean nothing.
    """
    budget = jnp.asarray(budget)
    return in_chunks(lambda *problem: _fit(*problem, budget), _CHUNK, x, y, mask, floor, bounds)
