"""Richards curves y = f + (K - f)/(1 + exp(-k(x - x0)))^v: bounded least squares, many problems at once.

Levenberg-Marquardt (Marquardt 1963) in theta = (log k, x0, log v, K - f) with an active set for the bounds, from
several starts: the best point of a coarse grid for each of its values of v, where the amplitude K - f is the
clipped least-squares one (variable projection, Golub & Pereyra 1973), the reference's own start, and a flat
curve. All starts are refined shortly in rounds of a few, the best of them then to convergence: the same
compiled loop serves every round.

Axes: B problems, C of them at a time, P points (padded, masked), S starts, L lanes, 4 parameters.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from delphi_jax.kernels.chunks import in_chunks
from delphi_jax.kernels.linalg import solve
from delphi_jax.kernels.loops import keep_where, loop_lanes
from delphi_jax.kernels.precision import jit64
from delphi_jax.status import Status

__all__ = ["LONG", "MIN_POINTS", "REFERENCE_START", "RichardsBounds", "RichardsCurve", "fit_richards"]

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
_SHORT = 40
"""The same for every start."""
CHUNK = 8
_PER_ROUND = 3
"""Starts refined side by side; also the number of survivors."""
_PATIENCE = 40
"""Consecutive steps of no relative gain beyond _GAIN after which the valley counts as flat."""
_GAIN = 1e-13
MIN_POINTS = 4
"""As many as the curve has parameters."""
_ON_BOUND = 1e-6
"""Relative distance at which a parameter counts as lying on its bound: the last steps towards one gain nothing."""
_LEAST_DAMPING = 1e-9
_GRADIENT = 1e-11
"""Converged where every free parameter's gradient is this small, as a cosine with the residual."""
_EXACT = 1e-28
"""Mean squared residual at which the curve passes through every point."""
_LOGARITHMIC = np.array([True, False, True, False])
"""Which of k, x0, v and the amplitude theta holds as logarithms."""


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
    """The objective at L places; fields [L, ...]."""

    theta: jax.Array
    sse: jax.Array
    gradient: jax.Array
    """[L, 4] of half the sum of squares."""
    hessian: jax.Array
    """[L, 4, 4] Gauss-Newton."""


class _Lanes(NamedTuple):
    """Where each start has come to; fields [C, S, ...]."""

    theta: jax.Array
    sse: jax.Array
    converged: jax.Array


class _State(NamedTuple):
    at: _Point
    """The best points so far."""
    trial: jax.Array
    """[L, 4] theta to evaluate next."""
    damping: jax.Array
    evaluations: jax.Array
    idle: jax.Array
    """Consecutive accepted steps without gain."""
    converged: jax.Array


def _shape(theta: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(1 + e^u)^-v, its softplus log(1 + e^u) and sigmoid e^u/(1 + e^u), u = -k(x - x0).

    ``theta`` [..., 4] (the amplitude is not read), ``x`` [..., P] with the same leading axes.
    """
    log_k, x0, log_v = (theta[..., i, None] for i in range(3))
    u = -jnp.exp(log_k) * (x - x0)
    decay = jnp.exp(-jnp.abs(u))
    softplus = jnp.maximum(u, 0.0) + jnp.log1p(decay)
    sigmoid = jnp.where(u >= 0, 1.0, decay) / (1.0 + decay)
    return jnp.exp(-jnp.exp(log_v) * softplus), softplus, sigmoid


def _evaluate(theta: jax.Array, x: jax.Array, z: jax.Array, mask: jax.Array) -> _Point:
    """``theta`` [L, 4], data [L, P]."""
    shape, softplus, sigmoid = _shape(theta, x)
    s = jnp.where(mask, shape, 0.0)
    k, x0, v, amplitude = jnp.exp(theta[:, 0:1]), theta[:, 1:2], jnp.exp(theta[:, 2:3]), theta[:, 3:4]
    curve = amplitude * s
    jacobian = jnp.stack(
        [curve * v * sigmoid * k * (x - x0), -curve * v * sigmoid * k, -curve * v * softplus, s], axis=1
    )
    residual = curve - z
    hessian = jnp.sum(jacobian[:, :, None] * jacobian[:, None], axis=3)
    return _Point(theta, jnp.sum(residual**2, axis=1), jnp.sum(jacobian * residual[:, None], axis=2), hessian)


def _free(point: _Point, lower: jax.Array, upper: jax.Array) -> jax.Array:
    """[L, 4] parameters that are not held by an active bound."""
    return ~((point.theta <= lower) & (point.gradient > 0)) & ~((point.theta >= upper) & (point.gradient < 0))


def _refine(
    start: jax.Array,
    x: jax.Array,
    z: jax.Array,
    mask: jax.Array,
    lower: jax.Array,
    upper: jax.Array,
    budget: jax.Array,
) -> _State:
    """Levenberg-Marquardt within the box from ``start`` [L, 4], at most ``budget`` [] evaluations."""
    exact = _EXACT * jnp.sum(mask, axis=1)

    def unfinished(state: _State) -> jax.Array:
        return (state.evaluations < budget) & ~state.converged

    def step(state: _State) -> _State:
        trial = _evaluate(state.trial, x, z, mask)
        better = trial.sse < state.at.sse
        at = keep_where(better, trial, state.at)
        damping = jnp.where(better, jnp.maximum(state.damping / 9, _LEAST_DAMPING), state.damping * 5)
        idle = jnp.where(state.at.sse - at.sse > _GAIN * at.sse, 0, state.idle + 1)

        free = _free(at, lower, upper)
        diagonal = jnp.diagonal(at.hessian, axis1=1, axis2=2)
        cosine = jnp.abs(at.gradient) / jnp.sqrt(jnp.maximum(diagonal * at.sse[:, None], 1e-300))
        stationary = jnp.all(jnp.where(free, cosine, 0.0) <= _GRADIENT, axis=1)
        converged = stationary | (idle >= _PATIENCE) | (at.sse <= exact)

        least = 1e-12 * jnp.max(diagonal, axis=1, keepdims=True) + 1e-300
        ridge = jnp.where(free, (damping[:, None] + 1e-15) * jnp.maximum(diagonal, least), 1.0)
        matrix = jnp.where(free[:, :, None] & free[:, None], at.hessian, 0.0) + jnp.eye(4) * ridge[:, :, None]
        move = solve(matrix, jnp.where(free, -at.gradient, 0.0))
        following = jnp.clip(at.theta + jnp.where(free, move, 0.0), lower, upper)
        return _State(at, following, damping, state.evaluations + 1, idle, converged)

    n = start.shape[0]
    unvisited = _Point(start, jnp.full(n, jnp.inf), jnp.zeros((n, 4)), jnp.zeros((n, 4, 4)))
    none = jnp.zeros(n, int)
    return loop_lanes(unfinished, step, _State(unvisited, start, jnp.full(n, 1e-2), none, none, jnp.zeros(n, bool)))


def _starts(x: jax.Array, z: jax.Array, mask: jax.Array, bounds: RichardsBounds) -> jax.Array:
    """[C, S, 4] starts: the best grid point for each v, the reference's start, and a flat curve."""
    lowest = jnp.min(jnp.where(mask, x, jnp.inf), axis=1, keepdims=True)
    highest = jnp.max(jnp.where(mask, x, -jnp.inf), axis=1, keepdims=True)
    v, k, share = (axis.ravel() for axis in np.meshgrid(_GRID_V, _GRID_K, _GRID_HEIGHT, indexing="ij"))
    half = lowest + share * (highest - lowest)
    on_grid = jnp.clip(half + np.log(2.0 ** (1 / v) - 1) / k, bounds.x0[0][:, None], bounds.x0[1][:, None])
    ordered = jnp.sort(jnp.where(mask, x, jnp.inf), axis=1)
    n = jnp.sum(mask, axis=1, keepdims=True)
    median = (jnp.take_along_axis(ordered, (n - 1) // 2, 1) + jnp.take_along_axis(ordered, n // 2, 1)) / 2
    x0 = jnp.concatenate([on_grid, median, bounds.x0[1][:, None]], axis=1)

    k_fixed, v_fixed = np.array([REFERENCE_START, _FLAT_START]).T
    log_k, log_v = (np.broadcast_to(np.log(np.append(*pair)), x0.shape) for pair in ((k, k_fixed), (v, v_fixed)))
    theta = jnp.stack([log_k, x0, log_v], axis=2)
    s = jnp.where(mask[:, None], _shape(theta, x[:, None])[0], 0.0)
    # The least-squares amplitude of every shape, within its bounds.
    power = jnp.maximum(jnp.sum(s * s, axis=2), 1e-300)
    low, high = (end[:, None] for end in bounds.amplitude)
    amplitude = jnp.clip(jnp.sum(z[:, None] * s, axis=2) / power, low, high)
    cost = jnp.sum((z[:, None] - amplitude[:, :, None] * s) ** 2, axis=2)

    per_v = len(v) // len(_GRID_V)
    best = jnp.argmin(cost[:, : len(v)].reshape(-1, len(_GRID_V), per_v), axis=2) + per_v * np.arange(len(_GRID_V))
    fixed = np.broadcast_to(len(v) + np.arange(len(v_fixed)), (len(x), len(v_fixed)))
    chosen = jnp.concatenate([best, fixed], axis=1)
    return jnp.take_along_axis(jnp.concatenate([theta, amplitude[:, :, None]], axis=2), chosen[:, :, None], axis=1)


def _fit(
    x: jax.Array, y: jax.Array, mask: jax.Array, floor: jax.Array, bounds: RichardsBounds, budget: jax.Array
) -> RichardsCurve:
    """C problems: ``x``, ``y`` and ``mask`` [C, P], the others [C]."""
    x, z = jnp.where(mask, x, 0.0), jnp.where(mask, y - floor[:, None], 0.0)
    low, high = (jnp.stack([bound[end] for bound in bounds], axis=1) for end in (0, 1))
    lower, upper = (jnp.where(_LOGARITHMIC, jnp.log(jnp.abs(end)), end) for end in (low, high))
    starts = _starts(x, z, mask, bounds)
    n_problems, n_starts, _ = starts.shape
    n_rounds = n_starts // _PER_ROUND
    own = np.arange(n_problems)[:, None]
    # [L, ...] what each lane of a round fits.
    fitted = [jnp.repeat(field, _PER_ROUND, axis=0) for field in (x, z, mask, lower, upper)]

    def play(lanes: _Lanes, number: jax.Array) -> tuple[_Lanes, None]:
        """One round; the last is played by the survivors of all others."""
        last = number == n_rounds
        survivors = jax.lax.top_k(-lanes.sse, _PER_ROUND)[1]
        place = jnp.where(last, survivors, number * _PER_ROUND + np.arange(_PER_ROUND))
        ends = _refine(lanes.theta[own, place].reshape(-1, 4), *fitted, jnp.where(last, budget, _SHORT))
        played = _Lanes(ends.at.theta, ends.at.sse, ends.converged)

        def put(old: jax.Array, new: jax.Array) -> jax.Array:
            return old.at[own, place].set(new.reshape(n_problems, _PER_ROUND, *new.shape[1:]))

        return jax.tree.map(put, lanes, played), None

    lanes = _Lanes(starts, jnp.full((n_problems, n_starts), jnp.inf), jnp.zeros((n_problems, n_starts), bool))
    lanes, _ = jax.lax.scan(play, lanes, jnp.arange(n_rounds + 1))
    best = jnp.argmin(lanes.sse, axis=1)
    theta, sse, converged = (field[own[:, 0], best] for field in lanes)
    values = jnp.where(_LOGARITHMIC, jnp.exp(theta), theta)
    on_bound = (values <= low + _ON_BOUND * jnp.abs(low)) | (values >= high - _ON_BOUND * jnp.abs(high))
    pinned = bounds.amplitude[0] >= bounds.amplitude[1]
    on_bound = on_bound & ~(pinned[:, None] & (np.arange(4) == 3))
    status = jnp.where(
        jnp.sum(mask, axis=1) < MIN_POINTS,
        Status.TOO_FEW_POINTS,
        jnp.where(
            ~converged,
            Status.NOT_CONVERGED,
            jnp.where(jnp.any(on_bound, axis=1), Status.BOUND_HIT, Status.FITTED),
        ),
    )
    return RichardsCurve(*values.T, sse, on_bound, status)


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
    return in_chunks(lambda *problems: _fit(*problems, budget), CHUNK, x, y, mask, floor, bounds)
