"""Gaussian processes of all sweep cells at once (methods, section 8).

Zero mean, Matern-5/2 kernel of unit variance with one length scale, plus white noise and a fixed jitter
(Rasmussen & Williams 2006, sections 2.3, 4.2 and 5.4.1). The two hyper-parameters maximise the log marginal
likelihood by a damped Newton ascent with analytic derivatives from every start, all cells and starts in one
loop.

Axes: B cells, C of them at a time, N trials (padded, masked: identity on the padded diagonal), F features,
S starts, L = C*S lanes. Parameters are theta = (log length scale, log noise).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from delphi_jax import formulas
from delphi_jax.kernels.chunks import in_chunks
from delphi_jax.kernels.linalg import invert
from delphi_jax.kernels.loops import keep_where, loop_lanes
from delphi_jax.kernels.precision import OLD_EMITTERS, jit64
from delphi_jax.status import Status

__all__ = ["BOUNDS", "JITTER", "Process", "fit_processes", "matern52", "squared_distances"]

BOUNDS = (1e-5, 1e5)
"""Bounds of the length scale and of the noise."""
JITTER = 1e-6
"""Added to the training diagonal."""

_LOG_BOUNDS = (float(np.log(BOUNDS[0])), float(np.log(BOUNDS[1])))
_STARTS = np.array([[5.0, np.nan], [_LOG_BOUNDS[1], np.nan], [3.0, -10.5]])
"""[S, 2] parameters of the starts; NaN stands for the variance of the loss.

A zero-mean process can carry the level of the loss only with a length far beyond the unit spread of the features.
The second length is held, so long that the process is a plane; the third start is short and almost free of noise, so
that the process runs through nearly every trial."""
_MOVABLE = np.array([[True, True], [False, True], [True, True]])
"""[S, 2] which parameters of a start move."""

_BUDGET = 60
"""Newton evaluations per start."""
_LONGEST_STEP = 1.0
"""In units of theta: longer steps leave the basin that a start was chosen for."""
_GAIN = 1e-13
"""Converged where a full Newton step promises less log likelihood than this."""
_LEVEL = 1e-2
"""Promised gain below which the likelihood may be levelling off."""
_ROUNDING = 1e-7
"""Promised gain below which a full step is taken unseen: rounding hides whether the likelihood rose."""
CHUNK = 4
_FLAT = 1e-12
"""Curvature that counts as none."""
_MIN_TRIALS = 3


class Process(NamedTuple):
    """Processes of B cells; fields [B] unless said."""

    length_scale: jax.Array
    noise: jax.Array
    log_likelihood: jax.Array
    on_bound: jax.Array
    """[B, 2] whether length scale and noise lie on a bound."""
    interpolating: jax.Array
    """[B, 2] length scale and noise of the mode reached from the interpolating start."""
    interpolating_log_likelihood: jax.Array
    status: jax.Array


class _Point(NamedTuple):
    """L places on the likelihood; fields [L, ...]."""

    theta: jax.Array
    value: jax.Array
    gradient: jax.Array
    """[L, 2]"""
    hessian: jax.Array
    """[L, 3]: length scale, noise, and both."""


class _State(NamedTuple):
    at: _Point
    """The best points so far."""
    trial: jax.Array
    """[L, 2] theta to evaluate next."""
    promised: jax.Array
    """Gain in log likelihood that a full Newton step from ``at`` promises."""
    damping: jax.Array
    evaluations: jax.Array
    converged: jax.Array


def squared_distances(features: jax.Array) -> jax.Array:
    """Squared distances between the rows of ``features`` [..., N, F], [..., N, N]."""
    return jnp.sum((features[..., :, None, :] - features[..., None, :, :]) ** 2, axis=-1)


def matern52(distance2: jax.Array, length_scale: jax.Array) -> jax.Array:
    """Matern-5/2 correlation at squared distance ``distance2``, unit variance."""
    # Guarded: the slope of the square root at distance 0 is infinite, that of the correlation 0.
    apart = distance2 > 0
    return formulas.matern52(jnp.where(apart, jnp.sqrt(5.0 * jnp.where(apart, distance2, 1.0)), 0.0) / length_scale)


def _times(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    return jnp.sum(matrix * vector[..., None, :], axis=-1)


def _evaluate(theta: jax.Array, distance2: jax.Array, y: jax.Array, mask: jax.Array) -> _Point:
    """Log marginal likelihood at ``theta`` [L, 2] with its derivatives; ``distance2`` [L, N, N], the others [L, N]."""
    pair = mask[:, :, None] & mask[:, None, :]
    noise = jnp.exp(theta[:, 1])
    r = jnp.sqrt(5.0 * distance2) * jnp.exp(-theta[:, 0])[:, None, None]
    decay = jnp.where(pair, jnp.exp(-r), 0.0)
    # With dr/d log l = -r: k' = r^2(1 + r)e^-r/3 and k'' = r^2(r^2 - 2r - 2)e^-r/3.
    covariance = (1.0 + r + r * r / 3.0) * decay
    first = r * r * (1.0 + r) / 3.0 * decay
    second = r * r * (r * r - 2.0 * r - 2.0) / 3.0 * decay
    diagonal = jnp.where(mask, noise[:, None] + JITTER, 1.0)
    inverse, log_det = invert(covariance + jnp.eye(mask.shape[-1]) * diagonal[:, :, None])
    inverse = jnp.where(pair, inverse, 0.0)
    weights = _times(inverse, y)
    whitened = inverse @ first

    value = -0.5 * (jnp.sum(y * weights, -1) + log_det + jnp.sum(mask, -1) * jnp.log(2 * jnp.pi))
    first_weights = _times(first, weights)
    inverse_weights = _times(inverse, weights)
    g_length = 0.5 * (jnp.sum(weights * first_weights, -1) - jnp.trace(whitened, axis1=1, axis2=2))
    g_noise = 0.5 * noise * (jnp.sum(weights * weights, -1) - jnp.trace(inverse, axis1=1, axis2=2))
    h_length = 0.5 * jnp.sum(
        weights * _times(second, weights)
        - 2 * first_weights * _times(inverse, first_weights)
        + jnp.sum(whitened * jnp.swapaxes(whitened, 1, 2) - inverse * second, axis=-1),
        axis=-1,
    )
    h_cross = 0.5 * noise * jnp.sum(jnp.sum(whitened * inverse, axis=-1) - 2 * first_weights * inverse_weights, axis=-1)
    h_noise = g_noise + 0.5 * noise**2 * jnp.sum(
        jnp.sum(inverse * inverse, axis=-1) - 2 * weights * inverse_weights, axis=-1
    )
    return _Point(theta, value, jnp.stack([g_length, g_noise], -1), jnp.stack([h_length, h_noise, h_cross], -1))


def _free(point: _Point, movable: jax.Array) -> jax.Array:
    """[L, 2] parameters that are neither fixed nor held by an active bound."""
    low, high = _LOG_BOUNDS
    held = ((point.theta <= low) & (point.gradient < 0)) | ((point.theta >= high) & (point.gradient > 0))
    return movable & ~held


def _ascend(start: jax.Array, movable: jax.Array, distance2: jax.Array, y: jax.Array, mask: jax.Array) -> _State:
    """Damped Newton ascents within the bounds from ``start`` [L, 2], over the ``movable`` [L, 2] parameters."""

    def unfinished(state: _State) -> jax.Array:
        return (state.evaluations < _BUDGET) & ~state.converged

    def step(state: _State) -> _State:
        trial = _evaluate(state.trial, distance2, y, mask)
        better = (trial.value > state.at.value) | (state.promised < _ROUNDING)
        at = keep_where(better, trial, state.at)
        damping = jnp.where(better, state.damping / 10, jnp.maximum(state.damping * 10, 1e-3))

        free = _free(at, movable)
        curvature = jnp.where(free, -at.hessian[:, :2], 1.0)
        q = jnp.where(free[:, 0] & free[:, 1], -at.hessian[:, 2], 0.0)
        # Shift the negative Hessian, in units of its own diagonal, to be positive definite; then damp. A length
        # scale that drifts to its bound is far flatter than the noise: a shift in common units would stall it.
        unit = jnp.abs(curvature) + _FLAT
        p, r = (curvature / unit).T
        tilt = ((p - r) / 2) ** 2 + q**2 / (unit[:, 0] * unit[:, 1])
        convex = jnp.maximum(0.0, 1e-3 - (p + r) / 2 + jnp.sqrt(tilt))
        g = jnp.where(free, at.gradient, 0.0)

        def newton(shift: jax.Array) -> jax.Array:
            shifted = curvature + shift[:, None] * unit
            determinant = shifted[:, 0] * shifted[:, 1] - q * q
            return (shifted[:, ::-1] * g - q[:, None] * g[:, ::-1]) / determinant[:, None]

        promised = 0.5 * jnp.sum(g * newton(convex), axis=1)
        # Each by itself: along a flat length scale a long step must not shorten that of the noise.
        move = jnp.clip(newton(convex + damping), -_LONGEST_STEP, _LONGEST_STEP)
        # The likelihood often levels off towards a plane, where Newton in log l takes even steps for ever. Newton in
        # 1/l^2 would go beyond its end, so the bound is tried, once.
        level = (g[:, 0] > 0) & (curvature[:, 0] <= 4 * g[:, 0]) & (promised < _LEVEL) & (damping == 0)
        move = jnp.where(level[:, None] & np.array([True, False]), jnp.inf, move)
        following = jnp.clip(at.theta + move, *_LOG_BOUNDS)
        return _State(at, following, promised, damping, state.evaluations + 1, promised < _GAIN)

    n = start.shape[0]
    nowhere = _Point(start, jnp.full(n, -jnp.inf), jnp.zeros((n, 2)), jnp.zeros((n, 3)))
    zeros = jnp.zeros(n)
    begin = _State(nowhere, start, jnp.full(n, jnp.inf), zeros, zeros, jnp.zeros(n, bool))
    return loop_lanes(unfinished, step, begin)


def _level_only(y: jax.Array, n: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mode at a vanishing length scale: independent trials, whose noise [C] has a closed form."""
    power = jnp.sum(y**2, axis=1) / jnp.maximum(n, 1)
    noise = jnp.clip(power - 1.0 - JITTER, *BOUNDS)
    variance = 1.0 + JITTER + noise
    return noise, -0.5 * n * (power / variance + jnp.log(2 * jnp.pi * variance))


def _fit(features: jax.Array, y: jax.Array, mask: jax.Array, likeliest: jax.Array) -> Process:
    """C cells: ``features`` [C, N, F], ``y`` and ``mask`` [C, N]."""
    features = jnp.where(mask[:, :, None], features, 0.0)
    y = jnp.where(mask, y, 0.0)
    n = jnp.sum(mask, axis=1)
    mean = jnp.sum(y, axis=1) / jnp.maximum(n, 1)
    variance = jnp.sum(jnp.where(mask, (y - mean[:, None]) ** 2, 0.0), axis=1) / jnp.maximum(n, 1)
    log_variance = jnp.clip(jnp.log(jnp.maximum(variance, BOUNDS[0])), *_LOG_BOUNDS)
    # [C, S, 2]; the variance of the loss is the noise of the first two starts.
    starts = jnp.where(np.isnan(_STARTS), log_variance[:, None, None], _STARTS)
    ends = _ascend(
        starts.reshape(-1, 2),
        jnp.tile(_MOVABLE, (len(n), 1)),
        *(jnp.repeat(field, len(_STARTS), axis=0) for field in (squared_distances(features), y, mask)),
    )
    ends = jax.tree.map(lambda lanes: lanes.reshape(starts.shape[:2] + lanes.shape[1:]), ends)
    # Where an ascent has converged, its next step gains no likelihood, but makes theta right to rounding.
    reached = jnp.where(ends.converged[:, :, None], ends.trial, ends.at.theta)
    level_noise, level_value = _level_only(y, n)
    level_theta = jnp.stack([jnp.full_like(level_noise, _LOG_BOUNDS[0]), jnp.log(level_noise)], axis=1)
    theta = jnp.concatenate([reached, level_theta[:, None]], axis=1)
    # The third start's mode is reported, but followed only where the caller wants the likeliest of all.
    value = jnp.concatenate([ends.at.value, level_value[:, None]], axis=1)
    value = jnp.where(np.array([True, True, False, True]) | likeliest, value, -jnp.inf)
    inward = np.array([False, True, False]) & (ends.at.gradient[:, :, 0] < 0)
    converged = jnp.concatenate([ends.converged & ~inward, jnp.ones((len(n), 1), bool)], axis=1)
    best = jnp.argmax(value, axis=1)[:, None]
    theta = jnp.take_along_axis(theta, best[:, :, None], axis=1)[:, 0]
    on_bound = (theta <= _LOG_BOUNDS[0]) | (theta >= _LOG_BOUNDS[1])
    status = jnp.where(
        n < _MIN_TRIALS,
        Status.TOO_FEW_POINTS,
        jnp.where(
            ~jnp.take_along_axis(converged, best, axis=1)[:, 0],
            Status.NOT_CONVERGED,
            jnp.where(jnp.any(on_bound, axis=1), Status.BOUND_HIT, Status.FITTED),
        ),
    )
    return Process(
        length_scale=jnp.exp(theta[:, 0]),
        noise=jnp.exp(theta[:, 1]),
        log_likelihood=jnp.take_along_axis(value, best, axis=1)[:, 0],
        on_bound=on_bound,
        interpolating=jnp.exp(reached[:, 2]),
        interpolating_log_likelihood=ends.at.value[:, 2],
        status=status,
    )


@jit64(cpu_options=OLD_EMITTERS)
def fit_processes(features: jax.Array, y: jax.Array, mask: jax.Array, likeliest: jax.Array | bool = False) -> Process:
    """All cells at once: standardised ``features`` [B, N, F], raw loss ``y`` [B, N], ``mask`` [B, N].

    ``likeliest`` [] follows the mode that nearly interpolates the trials where it is the likelier one; otherwise the
    broad mode is followed and the other one reported.
    """
    likeliest = jnp.asarray(likeliest)
    return in_chunks(lambda *cells: _fit(*cells, likeliest), CHUNK, features, y, mask)
