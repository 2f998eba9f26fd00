"""Gaussian processes with a level, an amplitude and one length scale per feature, of all sweep cells at once.

The loss of a trial is a constant mean, plus a process of variance s with a Matern-5/2 kernel of one length scale per
feature (automatic relevance determination: Rasmussen & Williams 2006, section 5.1), plus white noise of variance g*s:

    y ~ N(mean, s*V),   V = R + g*I,   R_ab = matern52(sqrt(5*sum_f (x_af - x_bf)^2 / l_f^2))

At given length scales l and noise ratio g the likeliest mean is that of generalised least squares and the likeliest s
is y'Py/n, P = V^-1 - V^-1 1 1'V^-1 / 1'V^-1 1 (Rasmussen & Williams, section 2.7; Santner, Williams & Notz 2003,
section 3.3), so that only theta = (log l, log g) is searched. The likelihood is the full one, not the restricted one:
mean, amplitude, length scales and noise maximise it together, within the bounds below, which are the only
regularisation. Its derivatives are written out; the ascent is a damped Newton one.

A mode of this likelihood is a set of features that matter, with a smooth process or one that runs through nearly every
trial. The starts are all of these: every subset of the features, smooth and close. All of them take a few steps, the
best go on until they converge.

Axes: B cells, C of them at a time, N trials (padded, masked: identity on the padded diagonal), F features,
P = F + 1 parameters, S starts, K of them at a time, L = C*K lanes, D dampings.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from delphi_jax.formulas import matern52
from delphi_jax.kernels.chunks import in_chunks
from delphi_jax.kernels.linalg import inverse_factor, invert
from delphi_jax.kernels.loops import keep_where, loop_lanes
from delphi_jax.kernels.precision import OLD_EMITTERS, jit64
from delphi_jax.status import Status

__all__ = ["CHUNK", "LENGTH_BOUNDS", "NOISE_BOUNDS", "ArdProcess", "fit_ard_processes"]

LENGTH_BOUNDS = (0.1, 1e3)
"""Bounds of the length scales, in standard deviations of the feature.

At the upper one the feature has no effect to be seen. Below the lower one lie spikes about single trials, which some
forty trials cannot tell from noise.
"""
NOISE_BOUNDS = (1e-6, 1e3)
"""Bounds of the noise over the amplitude, both variances. The lower one also keeps V well conditioned."""

_MATTERS = ((3.0, 1e-2), (1.0, 1e-4))
"""Length scale of the features that matter, and noise, of a smooth and of a close start."""
_DOES_NOT_MATTER = 300.0
_TOGETHER = 4
"""Ascents that go on side by side."""
_STAGES = ((0, 4), (24, 10), (8, 20), (4, 100))
"""How many of the best ascents go on, all at first, and to how many Newton evaluations."""
_LONGEST_STEP = 1.0
"""In units of theta."""
_GAIN = 1e-12
"""Converged where a full Newton step promises less log likelihood than this, and has been taken."""
_ROUNDING = 1e-7
"""Promised gain below which a step is taken unseen: rounding hides whether the likelihood rose."""
_SHIFTS = np.array([0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1e3, 1e4])
"""[D] What is added to the diagonal of the negative Hessian, in units of that diagonal, until it is positive."""
_LEAST_PIVOT = 1e-2
_FLAT = 1e-8
"""Curvature that counts as none."""
CHUNK = 1


class ArdProcess(NamedTuple):
    """Processes of B cells; fields [B] unless said."""

    length_scales: jax.Array
    """[B, F]"""
    amplitude: jax.Array
    """Variance of the process, loss squared."""
    noise: jax.Array
    """Variance of the white noise, loss squared."""
    mean: jax.Array
    log_likelihood: jax.Array
    bound: jax.Array
    """[B, F + 1] of every length scale and the noise: -1 on the lower bound, 1 on the upper one, else 0."""
    status: jax.Array


class _Point(NamedTuple):
    """L places on the likelihood; fields [L, ...]."""

    theta: jax.Array
    value: jax.Array
    gradient: jax.Array
    hessian: jax.Array
    mean: jax.Array
    amplitude: jax.Array


class _State(NamedTuple):
    at: _Point
    """The best points so far."""
    trial: jax.Array
    """[L, P] theta to evaluate next."""
    promised: jax.Array
    """Gain in log likelihood that an undamped step from ``at`` promises."""
    damping: jax.Array
    """Place in _SHIFTS of the step to ``trial``."""
    evaluations: jax.Array
    converged: jax.Array


def _bounds(n_features: int) -> np.ndarray:
    """[2, P] bounds of theta."""
    return np.log(np.array([LENGTH_BOUNDS] * n_features + [NOISE_BOUNDS])).T


def _starts(n_features: int) -> np.ndarray:
    """[S, P] theta of every subset of features, smooth and close."""
    subsets = np.array(list(product([False, True], repeat=n_features)))
    lengths = [np.where(subsets, length, _DOES_NOT_MATTER) for length, _ in _MATTERS]
    noise = [np.full((len(subsets), 1), noise) for _, noise in _MATTERS]
    return np.log(np.concatenate([np.concatenate(lengths), np.concatenate(noise)], axis=1))


def _times(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    return jnp.sum(matrix * vector[..., None, :], axis=-1)


def _flat(matrices: jax.Array) -> jax.Array:
    """[..., N, N] as [..., N*N]."""
    return matrices.reshape(*matrices.shape[:-2], -1)


def _evaluate(theta: jax.Array, squares: jax.Array, y: jax.Array, mask: jax.Array) -> _Point:
    """Log likelihood at ``theta`` [L, P], mean and amplitude profiled out, with its derivatives.

    ``squares`` [C, F, N, N] squared distances by feature, ``y`` and ``mask`` [C, N].
    """
    lanes = theta
    theta = theta.reshape(len(mask), -1, theta.shape[-1])
    n = jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None]
    mask, y = mask[:, None], y[:, None]
    pair = mask[..., :, None] & mask[..., None, :]
    identity = jnp.eye(mask.shape[-1])
    ratio = jnp.exp(theta[..., -1])[..., None, None]

    shares = squares[:, None] * jnp.exp(-2.0 * theta[..., :-1])[..., None, None]
    r = jnp.sqrt(5.0 * jnp.sum(shares, axis=2))
    noise = identity * jnp.where(pair, ratio, 0.0)
    padding = identity * jnp.where(pair, 0.0, 1.0)
    inverse, log_det = invert(jnp.where(pair, matern52(r), 0.0) + noise + padding)
    inverse = jnp.where(pair, inverse, 0.0)
    ones = jnp.sum(inverse, axis=-1)
    precision = jnp.maximum(jnp.sum(ones, axis=-1), jnp.finfo(y.dtype).tiny)
    mean = jnp.sum(ones * y, axis=-1) / precision
    weights = _times(inverse, y) - mean[..., None] * ones
    amplitude = jnp.maximum(jnp.sum(y * weights, axis=-1) / n, jnp.finfo(y.dtype).tiny)
    value = -0.5 * (n * (jnp.log(2 * jnp.pi * amplitude) + 1.0) + log_det)

    # With dr/d log l_f = -5*share_f/r: dR/d log l_f = 5/3*(1 + r)e^-r*share_f, and its derivative to another log l_g
    # is 25/3*e^-r*share_f*share_g, to its own less 2*dR/d log l_f besides.
    decay = jnp.where(pair, jnp.exp(-r), 0.0)
    slopes = jnp.concatenate([shares * (5.0 / 3.0 * (1.0 + r) * decay)[:, :, None], noise[:, :, None]], axis=2)
    pull = weights[..., :, None] * weights[..., None, :] / amplitude[..., None, None] - inverse
    gradient = 0.5 * jnp.sum(_flat(slopes) * _flat(pull)[:, :, None], axis=-1)
    pushed = _times(slopes, weights[:, :, None])
    push = jnp.sum(pushed * weights[:, :, None], axis=-1) / amplitude[..., None]
    along_ones = jnp.sum(pushed * ones[:, :, None], axis=-1)
    information = pushed @ inverse @ jnp.swapaxes(pushed, -1, -2)
    information = information - _outer(along_ones) / precision[..., None, None]
    whitened = inverse[:, :, None] @ slopes
    traces = _flat(whitened) @ jnp.swapaxes(_flat(jnp.swapaxes(whitened, -1, -2)), -1, -2)
    bent = _flat(shares * (25.0 / 3.0 * decay * pull)[:, :, None]) @ jnp.swapaxes(_flat(shares), -1, -2)
    own = jnp.concatenate([-2.0 * gradient[..., :-1], gradient[..., -1:]], axis=-1)
    hessian = (
        0.5 * (traces + _outer(push) / n[..., None, None] + jnp.pad(bent, [(0, 0), (0, 0), (0, 1), (0, 1)]))
        - information / amplitude[..., None, None]
        + own[..., None, :] * jnp.eye(own.shape[-1])
    )
    point = (value, gradient, hessian, mean, amplitude)
    return _Point(lanes, *(field.reshape(len(lanes), *field.shape[2:]) for field in point))


def _outer(vector: jax.Array) -> jax.Array:
    return vector[..., :, None] * vector[..., None, :]


def _newton(at: _Point, free: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Newton steps [L, D, P] under every damping, and the first damping [L] under which the Hessian is definite."""
    unit = jnp.where(free, jnp.sqrt(jnp.abs(jnp.diagonal(at.hessian, axis1=1, axis2=2)) + _FLAT), 1.0)
    both = free[:, :, None] & free[:, None, :]
    identity = jnp.eye(free.shape[1])
    scaled = jnp.where(both, -at.hessian / _outer(unit), identity)
    # The factor of a matrix that is not positive has rows that are not numbers.
    factor = inverse_factor(scaled[:, None] + _SHIFTS[:, None, None] * identity)
    definite = jnp.all(jnp.diagonal(factor, axis1=-2, axis2=-1) < _LEAST_PIVOT**-0.5, axis=-1)
    slope = jnp.where(free, at.gradient, 0.0) / unit
    steps = _times(jnp.swapaxes(factor, -1, -2), _times(factor, slope[:, None])) / unit[:, None]
    last = len(_SHIFTS) - 1
    return steps, jnp.where(jnp.any(definite, axis=1), jnp.argmax(definite, axis=1), last)


def _begin(starts: jax.Array) -> _State:
    """[C, S] ascents from ``starts`` [C, S, P], before their first evaluation."""
    lanes, size = starts.shape[:2], starts.shape[2]
    none = jnp.zeros(lanes)
    nowhere = _Point(
        starts, jnp.full(lanes, -jnp.inf), jnp.zeros(starts.shape), jnp.zeros((*starts.shape, size)), none, none
    )
    count = jnp.zeros(lanes, jnp.int64)
    return _State(nowhere, starts, jnp.full(lanes, jnp.inf), count, count, jnp.zeros(lanes, bool))


def _ascend(
    state: _State, limit: jax.Array, movable: jax.Array, squares: jax.Array, y: jax.Array, mask: jax.Array
) -> _State:
    """Damped Newton ascents [L] within the bounds, over the ``movable`` [L, P] parameters, to ``limit`` evaluations."""
    low, high = _bounds(movable.shape[1] - 1)

    def unfinished(state: _State) -> jax.Array:
        return (state.evaluations < limit) & ~state.converged

    def step(state: _State) -> _State:
        trial = _evaluate(state.trial, squares, y, mask)
        better = (trial.value > state.at.value) | (state.promised < _ROUNDING)
        at = keep_where(better, trial, state.at)
        converged = better & (state.promised < _GAIN)
        held = ((at.theta <= low) & (at.gradient < 0)) | ((at.theta >= high) & (at.gradient > 0))
        free = movable & ~held
        steps, needed = _newton(at, free)
        last = len(_SHIFTS) - 1
        damped = jnp.where(better, jnp.maximum(state.damping - 2, 0), jnp.minimum(state.damping + 2, last))
        damping = jnp.maximum(needed, damped)
        full, move = (jnp.take_along_axis(steps, place[:, None, None], axis=1)[:, 0] for place in (needed, damping))
        promised = 0.5 * jnp.sum(jnp.where(free, at.gradient, 0.0) * full, axis=1)
        following = jnp.clip(at.theta + jnp.clip(move, -_LONGEST_STEP, _LONGEST_STEP), low, high)
        return _State(at, following, promised, damping, state.evaluations + 1, converged)

    return loop_lanes(unfinished, step, state)


def _rounds(n_starts: int) -> np.ndarray:
    """[R, 3] of every round: whether the ascents are ranked anew, the first rank that goes on, and its limit."""
    stages = [(n_starts, _STAGES[0][1]), *_STAGES[1:]]
    return np.array([(rank == 0, rank, limit) for n, limit in stages for rank in range(0, min(n, n_starts), _TOGETHER)])


def _likeliest(squares: jax.Array, y: jax.Array, mask: jax.Array) -> _State:
    """[C] The best of all ascents in every cell."""
    n_cells, n_features = squares.shape[:2]
    # A feature without spread has no length scale: it is held at the bound that says so.
    movable = jnp.concatenate([jnp.any(squares > 0, axis=(2, 3)), jnp.ones((n_cells, 1), bool)], axis=1)
    starts = jnp.where(movable[:, None], _starts(n_features), _bounds(n_features)[1])
    movable = jnp.repeat(movable, _TOGETHER, axis=0)
    rounds = jnp.asarray(_rounds(starts.shape[1]))
    rows = jnp.arange(n_cells)[:, None]

    def go_on(k: jax.Array, carry: tuple[_State, jax.Array]) -> tuple[_State, jax.Array]:
        ascents, order = carry
        ranked_anew, rank, limit = rounds[k]
        order = jnp.where(ranked_anew, jnp.argsort(-ascents.at.value, axis=1), order)
        places = jax.lax.dynamic_slice_in_dim(order, rank, _TOGETHER, axis=1)
        lanes = jax.tree.map(lambda leaf: leaf[rows, places].reshape(-1, *leaf.shape[2:]), ascents)
        lanes = _ascend(lanes, limit, movable, squares, y, mask)
        ascents = jax.tree.map(
            lambda leaf, new: leaf.at[rows, places].set(new.reshape(n_cells, -1, *new.shape[1:])), ascents, lanes
        )
        return ascents, order

    order = jnp.zeros(starts.shape[:2], jnp.int64)
    ascents, _ = jax.lax.fori_loop(0, len(rounds), go_on, (_begin(starts), order))
    best = jnp.argmax(ascents.at.value, axis=1)[:, None]
    return jax.tree.map(lambda leaf: leaf[rows, best][:, 0], ascents)


def _fit(features: jax.Array, y: jax.Array, mask: jax.Array) -> ArdProcess:
    """C cells: ``features`` [C, N, F], ``y`` and ``mask`` [C, N]."""
    columns = jnp.swapaxes(jnp.where(mask[:, :, None], features, 0.0), 1, 2)
    squares = (columns[..., :, None] - columns[..., None, :]) ** 2
    squares = jnp.where(mask[:, None, :, None] & mask[:, None, None, :], squares, 0.0)
    y = jnp.where(mask, y, 0.0)
    n = jnp.sum(mask, axis=1)
    center = jnp.sum(y, axis=1) / jnp.maximum(n, 1)
    off = jnp.where(mask, y - center[:, None], 0.0)
    scale = jnp.max(jnp.abs(off), axis=1)
    # Rounding of the mean alone is no spread.
    flat = scale <= 8 * jnp.finfo(y.dtype).eps * jnp.abs(center)
    unit = jnp.where(flat, 1.0, scale)
    best = _likeliest(squares, off / unit[:, None], mask)
    low, high = _bounds(features.shape[2])
    theta = best.at.theta
    bound = jnp.where(theta <= low, -1, jnp.where(theta >= high, 1, 0))
    amplitude = best.at.amplitude * unit**2
    status = jnp.where(
        n < features.shape[2] + 4,
        Status.TOO_FEW_POINTS,
        jnp.where(
            flat,
            Status.NO_SPREAD,
            jnp.where(
                ~best.converged,
                Status.NOT_CONVERGED,
                jnp.where(jnp.any(bound != 0, axis=1), Status.BOUND_HIT, Status.FITTED),
            ),
        ),
    )
    return ArdProcess(
        length_scales=jnp.exp(theta[:, :-1]),
        amplitude=amplitude,
        noise=jnp.exp(theta[:, -1]) * amplitude,
        mean=center + best.at.mean * unit,
        log_likelihood=best.at.value - n * jnp.log(unit),
        bound=bound,
        status=status,
    )


@jit64(cpu_options=OLD_EMITTERS)
def fit_ard_processes(features: jax.Array, y: jax.Array, mask: jax.Array) -> ArdProcess:
    """All cells at once: standardised ``features`` [B, N, F], loss ``y`` and ``mask`` [B, N].

    F is small: there are 2^(F + 1) starts. A cell of fewer than F + 4 trials (one more than parameters) has status
    TOO_FEW_POINTS, one of equal losses NO_SPREAD.
    """
    return in_chunks(_fit, CHUNK, features, y, mask)
