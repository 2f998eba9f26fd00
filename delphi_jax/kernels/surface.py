"""Loss surface L(N, D) = E + A/N**a + B/D**b (Hoffmann et al. 2022, approach 3): squared and Huber loss.

Variable projection (Golub & Pereyra 1973; Czech et al. 2026, arXiv 2603.22339) starts a fit: on a coarse grid of
exponents the linear coefficients solve a least-squares problem with non-negativity, in closed form over its active
sets. From there all five coefficients are refined by Newton steps with exact second derivatives, damped after Marquardt
(1963), in the box of their bounds.

A Huber loss (Huber 1964) with a scale far below the residuals is nearly their absolute sum: piecewise smooth, with
kinks, and now and then with several minima along the valley in which E trades against the other terms. A search goes
through stages and keeps the lowest optimum: from the squared loss through larger scales to the one asked for, from both
sides along that valley, and from a given start.

Coefficients are theta = (E, A, B, a, b) with N and D in units in which log N and log D are near zero. Axes: B problems,
L lanes, P points (padded, weight 0).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from delphi_jax.kernels.loops import keep_where
from delphi_jax.kernels.precision import OLD_EMITTERS, jit64
from delphi_jax.status import Status

__all__ = ["EXPONENTS", "LANES", "Surface", "fit_surfaces", "linear_coefficients"]

EXPONENTS = (0.01, 4.0)
"""Range of a and b."""
LANES = 16
"""Problems computed at once on CPU."""
_GRID = np.geomspace(0.04, EXPONENTS[1], 13)
"""Exponents at which a search may start, for a and b alike."""
_LOWER = np.array([0.0, 0.0, 0.0, EXPONENTS[0], EXPONENTS[0]])
_UPPER = np.array([np.inf, np.inf, np.inf, EXPONENTS[1], EXPONENTS[1]])

_SCALES = np.array([np.inf, 10.0, 3.0, 1.0, 1.0, 1.0, 1.0])
"""Huber scale of each stage of a search, as a multiple of the one asked for."""
_FROM_START = 4
"""The stage that sets out from the given start. Those before it follow one another from the grid."""
_KICKS = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 6.0, -6.0])
"""Mean absolute residuals by which E is moved from the lowest optimum so far, for a stage to set out there: the next
optimum may lie on either side along the valley."""
_MOST = np.array([60, 10, 10, 400, 400, 400, 400])
"""Evaluations of each stage."""
_TURN = 4
"""Evaluations before problems that have ended make room for others."""

_DAMPING = 1e-3
"""Damping of a stage's first step, as a share of the curvature along each coefficient."""
_LEAST_DAMPING = 1e-15
_RAISED_DAMPING = 1e-6
"""The least to which damping rises after a bad step."""
_LEAST_PIVOT = 1e-12
"""Smallest pivot of a matrix with unit diagonal."""

_STATIONARY = 1e-14
"""A stage ends where the gradient, as a cosine, is this small,"""
_LITTLE, _SOME = 1e-13, 1e-6
"""or after a step that was to gain so little of the objective asked for, or of one on the way there."""
_AT_REST = 1e-6
"""Largest gradient, as a cosine, of an optimum."""
_ROUNDING = 1e-15
"""Relative difference between two values of the objective that is none."""
_APART = 1e-9
"""Share by which the values of two optima differ that are not one."""
_EXACT = 1e-15
"""Residuals, as shares of the losses, of a surface that passes through every point."""

_BENDS = np.zeros((4, 5, 5))
"""Where the second derivatives of the surface stand in the Hessian: by A and a, B and b, a twice, b twice."""
_BENDS[0, 1, 3] = _BENDS[0, 3, 1] = _BENDS[1, 2, 4] = _BENDS[1, 4, 2] = _BENDS[2, 3, 3] = _BENDS[3, 4, 4] = 1.0


class Surface(NamedTuple):
    """Surfaces of B problems."""

    theta: jax.Array
    """[B, 5] E, A, B, a, b; where A (B) is 0, a (b) means nothing."""
    value: jax.Array
    """[B] weighted mean of the Huber loss: r**2/2 within its scale."""
    gradient: jax.Array
    """[B] largest cosine between residuals as the loss clips them and their derivatives by a coefficient on no bound;
    0 where the surface passes through every point."""
    on_bound: jax.Array
    """[B, 5]"""
    rivals: jax.Array
    """[B] whether descents ended in different optima, of which this is the lowest: there may be more."""
    status: jax.Array
    """[B] FITTED, BOUND_HIT or NOT_CONVERGED."""


class _Points(NamedTuple):
    """What each lane fits; fields [L, P]."""

    log_params: jax.Array
    log_tokens: jax.Array
    loss: jax.Array
    weight: jax.Array


class _Place(NamedTuple):
    """The objective at L places; fields [L, ...]."""

    theta: jax.Array
    value: jax.Array
    gradient: jax.Array
    hessian: jax.Array
    stiff: jax.Array
    """[L, 5] the diagonal of the Hessian (Gauss-Newton), were every residual within the Huber scale."""
    pulls: jax.Array
    """[L] sum of squared derivatives of the Huber loss."""


class _State(NamedTuple):
    """Where each search has come to; fields [L, ...]."""

    at: _Place
    """The lowest place of this stage."""
    trial: jax.Array
    """[L, 5] theta to evaluate next."""
    gain: jax.Array
    """What the trial is to gain."""
    damping: jax.Array
    evaluations: jax.Array
    stage: jax.Array
    best: jax.Array
    """[L, 5] the lowest theta of all stages of the scale asked for."""
    best_value: jax.Array
    best_cosine: jax.Array
    highest: jax.Array
    """The value where another of these stages ended."""
    converged: jax.Array
    """Whether the lowest one is an optimum."""


def _residual(mean: jax.Array, loss: jax.Array, log: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Residuals and minus their derivative by the model ``mean`` [L, P]."""

    def of_logs() -> tuple[jax.Array, jax.Array]:
        positive = jnp.maximum(mean, 1e-300)
        return jnp.log(loss) - jnp.log(positive), 1.0 / positive

    return jax.lax.cond(log, of_logs, lambda: (loss - mean, jnp.ones_like(mean)))


def _huber(residual: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The loss and its derivative."""
    size = jnp.abs(residual)
    clipped = jnp.minimum(size, scale)
    return clipped * (size - clipped / 2), jnp.sign(residual) * clipped


def _evaluate(theta: jax.Array, points: _Points, scale: jax.Array, log: jax.Array) -> _Place:
    """``theta`` [L, 5], ``scale`` [L], ``log`` []."""
    E, A, B, a, b = (theta[:, i, None] for i in range(5))
    p, q, y, weight = points
    x, z = jnp.exp(-a * p), jnp.exp(-b * q)
    residual, slope = _residual(E + A * x + B * z, y, log)
    value, pull = _huber(residual, scale[:, None])
    within = jnp.abs(residual) <= scale[:, None]
    force = weight * pull * slope
    stiffness = weight * (within + jnp.where(log, pull, 0.0)) * slope**2
    # All sums over points are one product of two small matrices.
    basis = jnp.stack([jnp.ones_like(x), x, z, p * x, q * z, p * p * x, q * q * z], axis=1)
    rows = jnp.stack([force, weight * value, weight * pull**2], axis=1)
    rows = jnp.concatenate([stiffness[:, None] * basis[:, :5], rows], axis=1)
    sums = jnp.einsum("lip,ljp->lij", rows, basis)
    bend = sums[:, 5]
    bends = jnp.concatenate([bend[:, 3:5], -theta[:, 1:3] * bend[:, 5:7]], axis=1)
    factor = jnp.concatenate([jnp.ones_like(theta[:, :3]), -theta[:, 1:3]], axis=1)
    hessian = factor[:, :, None] * factor[:, None] * sums[:, :5, :5] + jnp.einsum("lk,kij->lij", bends, _BENDS)
    stiff = factor**2 * jnp.einsum("lip,lp->li", basis[:, :5] ** 2, weight * slope**2)
    return _Place(theta, sums[:, 6, 0], -factor * bend[:, :5], hessian, stiff, sums[:, 7, 0])


def _idle(theta: jax.Array) -> jax.Array:
    """[L, 5] exponents of terms that are 0: they mean nothing."""
    return jnp.concatenate([jnp.zeros_like(theta[:, :3], bool), theta[:, 1:3] <= 0], axis=1)


def _free(at: _Place) -> jax.Array:
    """[L, 5] coefficients that mean something and lie on no bound towards which the objective falls."""
    held = ((at.theta <= _LOWER) & (at.gradient > 0)) | ((at.theta >= _UPPER) & (at.gradient < 0))
    return ~(held | _idle(at.theta))


def _cosine(at: _Place) -> jax.Array:
    """[L] the largest, over free coefficients, of residuals as the loss clips them with their derivatives."""
    norms = jnp.sqrt(at.pulls[:, None] * at.stiff)
    return jnp.max(jnp.where(_free(at) & (norms > 0), jnp.abs(at.gradient) / jnp.maximum(norms, 1e-300), 0.0), axis=1)


def _descent(matrix: jax.Array, gradient: jax.Array) -> jax.Array:
    """[L, 5] the step -``matrix``**-1 ``gradient``, by elimination with a unit diagonal.

    The curvature that a negative pivot shows is taken as positive, so that the step goes down.
    """
    n = gradient.shape[1]
    scale = jax.lax.rsqrt(jnp.maximum(jnp.abs(jnp.diagonal(matrix, axis1=1, axis2=2)), 1e-300))
    rows = [[matrix[:, i, j] * scale[:, i] * scale[:, j] for j in range(i + 1)] for i in range(n)]
    right = [-gradient[:, i] * scale[:, i] for i in range(n)]
    for k in range(n):
        rows[k][k] = jnp.maximum(jnp.abs(rows[k][k]), _LEAST_PIVOT)
        for i in range(k + 1, n):
            share = rows[i][k] / rows[k][k]
            for j in range(k + 1, i + 1):
                rows[i][j] = rows[i][j] - share * rows[j][k]
            right[i] = right[i] - share * right[k]
    for k in reversed(range(n)):
        right[k] = (right[k] - sum(rows[i][k] * right[i] for i in range(k + 1, n))) / rows[k][k]
    return jnp.stack(right, axis=1) * scale


def _step(state: _State, points: _Points, start: jax.Array, scale: jax.Array, log: jax.Array) -> _State:
    """One evaluation of every lane; ``scale`` [] is the one asked for, ``start`` [L, 5]."""

    def of_stage(values: np.ndarray, stage: jax.Array) -> jax.Array:
        return jnp.asarray(values).at[stage].get(mode="clip")

    scales = scale * of_stage(_SCALES, state.stage)
    trial, old = _evaluate(state.trial, points, scales, log), state.at
    lower = trial.value < old.value * (1 - _ROUNDING)
    nearer = (trial.value <= old.value * (1 + _ROUNDING)) & (_cosine(trial) < _cosine(old))
    at = keep_where(lower | nearer, trial, old)
    cosine = _cosine(at)
    exact = at.value <= (_EXACT * jnp.max(jnp.where(log, 1.0, points.loss), axis=1)) ** 2 * jnp.sum(points.weight, 1)
    own = scales == scale
    settled = (cosine <= _STATIONARY) | exact | (state.gain <= jnp.where(own, _LITTLE, _SOME) * at.value)
    evaluations = state.evaluations + 1
    ended = settled | (evaluations >= of_stage(_MOST, state.stage))

    best, best_value, best_cosine, converged = keep_where(
        ended & own & (at.value < state.best_value),
        (at.theta, at.value, jnp.where(exact, 0.0, cosine), settled & (exact | (cosine <= _AT_REST))),
        (state.best, state.best_value, state.best_cosine, state.converged),
    )
    highest = jnp.where(ended & own, jnp.maximum(at.value, state.highest), state.highest)
    # A squared loss has one scale, and no second optimum to look for.
    ahead = jnp.where(
        jnp.isinf(scale), jnp.where(state.stage < _FROM_START, _FROM_START, len(_SCALES)), state.stage + 1
    )
    stage = jnp.where(ended, ahead, state.stage)

    share = (old.value - trial.value) / jnp.maximum(state.gain, 1e-300)
    damping = jnp.where(share > 0.75, jnp.maximum(state.damping / 10, _LEAST_DAMPING), state.damping)
    # No number where the trial's value was none.
    damping = jnp.where(share >= 0.25, damping, jnp.maximum(state.damping * 5, _RAISED_DAMPING))
    damping = jnp.where(ended, _DAMPING, jnp.where(jnp.isinf(old.value), state.damping, damping))
    free = _free(at)
    size = jnp.maximum(at.stiff, jnp.abs(jnp.diagonal(at.hessian, axis1=1, axis2=2)))
    ridge = jnp.where(free, damping[:, None] * size, 1.0)
    matrix = jnp.where(free[:, :, None] & free[:, None], at.hessian, 0.0) + jnp.eye(5) * ridge[:, :, None]
    move = jnp.where(free, _descent(matrix, jnp.where(free, at.gradient, 0.0)), 0.0)
    following = jnp.clip(at.theta + move, _LOWER, _UPPER)

    # The Huber loss is nearly linear, and so tells the mean absolute residual.
    residual = best_value / (scale * jnp.sum(points.weight, axis=1)) * jnp.where(log, jnp.max(points.loss, axis=1), 1.0)
    kick = of_stage(_KICKS, stage)
    kicked = jnp.concatenate([jnp.maximum(best[:, :1] + (kick * residual)[:, None], 0.0), best[:, 1:]], axis=1)
    set_out = jnp.where((kick != 0)[:, None], kicked, jnp.where((stage == _FROM_START)[:, None], start, at.theta))
    return _State(
        at=at._replace(value=jnp.where(ended, jnp.inf, at.value)),
        trial=jnp.where(ended[:, None], set_out, following),
        gain=jnp.where(ended, jnp.inf, -jnp.sum(at.gradient * move, axis=1) / 2),
        damping=damping,
        evaluations=jnp.where(ended, 0, evaluations),
        stage=stage,
        best=best,
        best_value=best_value,
        best_cosine=best_cosine,
        highest=highest,
        converged=converged,
    )


class _Moments(NamedTuple):
    """Weighted sums over the points, of shapes that broadcast."""

    one: jax.Array
    x: jax.Array
    z: jax.Array
    y: jax.Array
    xx: jax.Array
    xz: jax.Array
    zz: jax.Array
    xy: jax.Array
    zy: jax.Array
    yy: jax.Array


def _two(xx: jax.Array, xz: jax.Array, zz: jax.Array, xy: jax.Array, zy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The A, B >= 0 that minimise A**2 xx + 2 A B xz + B**2 zz - 2 A xy - 2 B zy."""
    det = xx * zz - xz**2
    apart = det > _LEAST_PIVOT * xx * zz
    over = 1.0 / jnp.where(apart, det, 1.0)
    A, B = (xy * zz - zy * xz) * over, (zy * xx - xy * xz) * over
    only_A, only_B = (
        jnp.where(s > 0, jnp.maximum(c, 0.0) / jnp.where(s > 0, s, 1.0), 0.0) for c, s in ((xy, xx), (zy, zz))
    )
    first = only_A * xy >= only_B * zy
    both = apart & (A >= 0) & (B >= 0)
    return jnp.where(both, A, jnp.where(first, only_A, 0.0)), jnp.where(both, B, jnp.where(first, 0.0, only_B))


def _linear(sums: _Moments) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The E, A, B >= 0 of the least sum of squares of y - (E + A x + B z), and that sum.

    Convex: where the best E of free sign is negative, it is 0. Where the best A and B of free signs are not both
    positive, one of them is 0.
    """
    one, x, z, y, xx, xz, zz, xy, zy, yy = sums
    over = 1.0 / jnp.maximum(one, 1e-300)
    A, B = _two(xx - x * x * over, xz - x * z * over, zz - z * z * over, xy - x * y * over, zy - z * y * over)
    E = (y - A * x - B * z) * over
    A_through, B_through = _two(xx, xz, zz, xy, zy)
    above = E >= 0
    E, A, B = jnp.where(above, E, 0.0), jnp.where(above, A, A_through), jnp.where(above, B, B_through)
    fitted = E * (E * one + 2 * (A * x + B * z)) + A * (A * xx + 2 * B * xz) + B * B * zz
    return E, A, B, yy - 2 * (E * y + A * xy + B * zy) + fitted


@jit64()
def linear_coefficients(x: jax.Array, z: jax.Array, y: jax.Array, weight: jax.Array) -> jax.Array:
    """E, A, B >= 0 [..., 3] of the weighted least squares of y on E + A x + B z, all [..., P]."""
    powers = (jnp.ones_like(x), x, z, y, x * x, x * z, z * z, x * y, z * y, y * y)
    return jnp.stack(_linear(_Moments(*(jnp.sum(weight * power, axis=-1) for power in powers)))[:3], axis=-1)


def _grid_start(points: _Points, log: jax.Array) -> jax.Array:
    """[L, 5] the least weighted sum of squares on the grid of exponents."""
    p, q, y, weight = points
    # Residuals of the logarithms are about those of the loss, as shares of it.
    weight = weight / jnp.where(log, y, 1.0) ** 2
    x, z = (jnp.exp(-_GRID[:, None] * u[:, None]) for u in (p, q))
    plain = jnp.stack([weight, weight * y], axis=1)
    (sx, xy), (sz, zy) = (jnp.moveaxis(jnp.einsum("lkp,lgp->lkg", plain, u), 1, 0) for u in (x, z))
    xx, zz = (jnp.einsum("lp,lgp->lg", weight, u * u) for u in (x, z))
    xz = jnp.einsum("lgp,lhp->lgh", x * weight[:, None], z)
    one, sy, yy = (jnp.sum(weight * u, axis=1)[:, None, None] for u in (1.0, y, y * y))
    rows, columns = (lambda u: u[:, :, None]), (lambda u: u[:, None])
    E, A, B, sse = _linear(
        _Moments(one, rows(sx), columns(sz), sy, rows(xx), xz, columns(zz), rows(xy), columns(zy), yy)
    )
    n = len(_GRID)
    best = jnp.argmin(sse.reshape(-1, n * n), axis=1)
    linear = [jnp.take_along_axis(u.reshape(-1, n * n), best[:, None], axis=1)[:, 0] for u in (E, A, B)]
    grid = jnp.asarray(_GRID)
    return jnp.stack([*linear, grid[best // n], grid[best % n]], axis=1)


class _Queue(NamedTuple):
    """Problems on their way through L lanes."""

    problem: jax.Array
    """[L] which one each lane has; at least the number of problems where there is none left."""
    state: _State
    following: jax.Array
    """[] the first problem that no lane has had."""
    found: jax.Array
    """[B, 9] theta, value, cosine, whether there are rivals, and convergence."""


def _search_all(points: _Points, start: jax.Array, scale: jax.Array, log: jax.Array, from_grid: jax.Array) -> jax.Array:
    """What :attr:`_Queue.found` holds in the end: a lane whose search has ended takes the next problem."""
    size, stages = points.loss.shape[0], len(_SCALES)
    n = jnp.sum(jnp.any(points.weight > 0, axis=1))
    n_lanes = min(LANES, size) if jax.default_backend() == "cpu" else size

    def some_from_grid(i: jax.Array, first: jax.Array) -> jax.Array:
        rows = jnp.minimum(i * n_lanes, size - n_lanes)
        own = jax.tree.map(lambda field: jax.lax.dynamic_slice_in_dim(field, rows, n_lanes), points)
        return jax.lax.dynamic_update_slice_in_dim(first, _grid_start(own, log), rows, 0)

    def grid() -> jax.Array:
        # Problems without weight, which fill up a call, need no start.
        return jax.lax.fori_loop(0, -(-n // n_lanes), some_from_grid, start)

    first = jax.lax.cond(from_grid, grid, lambda: start)

    def fresh(problem: jax.Array) -> _State:
        vectors, squares = jnp.zeros((n_lanes, 5)), jnp.zeros((n_lanes, 5, 5))
        none, zeros = jnp.full(n_lanes, jnp.inf), jnp.zeros(n_lanes, int)
        theta = first.at[problem].get(mode="clip")
        at = _Place(theta, none, vectors, squares, vectors, none)
        stage = zeros + jnp.where(from_grid, 0, _FROM_START)
        return _State(at, theta, none, jnp.full(n_lanes, _DAMPING), zeros, stage, theta, none, none, -none, zeros > 0)

    def turn(queue: _Queue) -> _Queue:
        own, own_start = jax.tree.map(lambda field: field.at[queue.problem].get(mode="clip"), (points, start))
        state = jax.lax.fori_loop(0, _TURN, lambda _, state: _step(state, own, own_start, scale, log), queue.state)
        done = (state.stage >= stages) & (queue.problem < n)
        problem = jnp.where(done, queue.following + jnp.cumsum(done) - 1, queue.problem)
        rivals = state.highest > state.best_value * (1 + _APART)
        numbers = (state.best_value, state.best_cosine, rivals, state.converged)
        return _Queue(
            problem,
            keep_where(done, fresh(problem), state),
            queue.following + jnp.sum(done),
            queue.found.at[jnp.where(done, queue.problem, size)].set(
                jnp.concatenate([state.best, jnp.stack(numbers, axis=1)], axis=1), mode="drop"
            ),
        )

    lanes = jnp.arange(n_lanes)
    queue = _Queue(lanes, fresh(lanes), jnp.asarray(n_lanes), jnp.full((size, 9), jnp.inf))
    return jax.lax.while_loop(lambda queue: jnp.any(queue.problem < n), turn, queue).found


@jit64(cpu_options=OLD_EMITTERS)
def fit_surfaces(
    log_params: jax.Array,
    log_tokens: jax.Array,
    loss: jax.Array,
    weight: jax.Array,
    start: jax.Array,
    scale: jax.Array,
    log: jax.Array,
    from_grid: jax.Array,
) -> Surface:
    """Fit B surfaces: logarithms about their mean, loss and weight (0 = padding) [B, P].

    ``scale`` [] is Huber's delta, inf for squared loss; ``log`` [] whether residuals are those of the log loss.
    ``start`` [B, 5]: theta from which one descent sets out; others come from the grid if ``from_grid`` [].
    Problems without weight stand behind all others; their surfaces mean nothing.
    """
    # Padding may hold anything.
    real = weight > 0
    p, q = (jnp.where(real, u, 0.0) for u in (log_params, log_tokens))
    points = _Points(p, q, jnp.where(real, loss, 1.0), jnp.where(real, weight, 0.0))
    found = _search_all(points, start, scale, log, from_grid)
    theta, (value, cosine, rivals, converged) = found[:, :5], found[:, 5:].T
    on_bound = ((theta <= _LOWER) | (theta >= _UPPER)) & ~_idle(theta)
    status = jnp.where(jnp.any(on_bound, axis=1), Status.BOUND_HIT, Status.FITTED)
    return Surface(
        theta=theta,
        value=value / jnp.maximum(jnp.sum(points.weight, axis=1), 1e-300),
        gradient=cosine,
        on_bound=on_bound,
        rivals=rivals > 0,
        status=jnp.where(converged > 0, status, Status.NOT_CONVERGED),
    )
