"""Gaussian processes of all sweep cells at once (methods, section 8).

Zero mean, Matern-5/2 kernel of unit variance with one length scale, plus white noise and a fixed jitter
(Rasmussen & Williams 2006, sections 2.3, 4.2 and 5.4.1). The two hyper-parameters maximise the log marginal
likelihood by a damped Newton ascent with analytic derivatives from every start, all cells and starts in one
loop.

Axes: B cells, N trials (padded, masked: identity on the padded diagonal), F features, S starts.
Parameters are theta = (log length scale, log noise).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from delphi_jax.kernels.chunks import in_chunks
from delphi_jax.kernels.linalg import invert
from delphi_jax.kernels.precision import OLD_EMITTERS, jit64
from delphi_jax.status import Status

__all__ = ["BOUNDS", "JITTER", "Process", "fit_processes", "matern52", "squared_distances"]

BOUNDS = (1e-5, 1e5)
"""Bounds of the length scale and of the noise."""
JITTER = 1e-6
"""Added to the training diagonal."""

_LOG_BOUNDS = (float(np.log(BOUNDS[0])), float(np.log(BOUNDS[1])))
_LONG = 5.0
"""Log length scale of the first start: a zero-mean process can carry the level of the loss only with a length
far beyond the unit spread of the features. The noise starts at the variance of the loss."""
_STRAIGHT = _LOG_BOUNDS[1]
"""Log length scale of the second start, held there: so long that the process is a plane."""
_INTERPOLATING = (3.0, -10.5)
"""The third start: short and almost free of noise, so that the process runs through nearly every trial."""

_BUDGET = 60
"""Newton evaluations per start."""
_LONGEST_STEP = 1.0
"""In units of theta: longer steps leave the basin that a start was chosen for."""
_GAIN = 1e-13
"""Converged where a full Newton step promises less log likelihood than this."""
_ROUNDING = 1e-7
"""Promised gain below which a full step is taken unseen: rounding hides whether the likelihood rose."""
_CHUNK = 4
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
    theta: jax.Array
    value: jax.Array
    gradient: jax.Array
    hessian: jax.Array


class _State(NamedTuple):
    at: _Point
    """The best point so far."""
    trial: jax.Array
    """[2] theta to evaluate next."""
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
    r = jnp.where(apart, jnp.sqrt(5.0 * jnp.where(apart, distance2, 1.0)), 0.0) / length_scale
    return (1.0 + r + r * r / 3.0) * jnp.exp(-r)


def _evaluate(theta: jax.Array, distance2: jax.Array, y: jax.Array, mask: jax.Array) -> _Point:
    """Log marginal likelihood at ``theta`` [2] with its gradient and Hessian."""
    pair = mask[:, None] & mask[None, :]
    eye = jnp.eye(mask.shape[0])
    noise = jnp.exp(theta[1])
    r = jnp.sqrt(5.0 * distance2) * jnp.exp(-theta[0])
    decay = jnp.where(pair, jnp.exp(-r), 0.0)
    # With dr/d log l = -r: k' = r^2(1 + r)e^-r/3 and k'' = r^2(r^2 - 2r - 2)e^-r/3.
    covariance = (1.0 + r + r * r / 3.0) * decay
    first = r * r * (1.0 + r) / 3.0 * decay
    second = r * r * (r * r - 2.0 * r - 2.0) / 3.0 * decay
    diagonal = jnp.where(mask, noise + JITTER, 1.0)
    inverse, log_det = invert(covariance + eye * diagonal)
    inverse = jnp.where(pair, inverse, 0.0)
    weights = inverse @ y
    whitened = inverse @ first

    value = -0.5 * (y @ weights + log_det + jnp.sum(mask) * jnp.log(2 * jnp.pi))
    first_weights = first @ weights
    inverse_weights = inverse @ weights
    g_length = 0.5 * (weights @ first_weights - jnp.trace(whitened))
    g_noise = 0.5 * noise * (weights @ weights - jnp.trace(inverse))
    h_length = 0.5 * (
        weights @ (second @ weights)
        - 2 * first_weights @ (inverse @ first_weights)
        - jnp.sum(inverse * second)
        + jnp.sum(whitened * whitened.T)
    )
    h_cross = 0.5 * noise * (-2 * first_weights @ inverse_weights + jnp.sum(whitened * inverse))
    h_noise = g_noise + 0.5 * noise**2 * (-2 * weights @ inverse_weights + jnp.sum(inverse * inverse))
    return _Point(
        theta,
        value,
        jnp.stack([g_length, g_noise]),
        jnp.stack([jnp.stack([h_length, h_cross]), jnp.stack([h_cross, h_noise])]),
    )


def _free(point: _Point, movable: jax.Array) -> jax.Array:
    """[2] parameters that are neither fixed nor held by an active bound."""
    low, high = _LOG_BOUNDS
    held = ((point.theta <= low) & (point.gradient < 0)) | ((point.theta >= high) & (point.gradient > 0))
    return movable & ~held


def _ascend(start: jax.Array, movable: jax.Array, distance2: jax.Array, y: jax.Array, mask: jax.Array) -> _State:
    """Damped Newton ascent within the bounds from ``start`` [2], over the ``movable`` [2] parameters."""

    def unfinished(state: _State) -> jax.Array:
        return (state.evaluations < _BUDGET) & ~state.converged

    def step(state: _State) -> _State:
        trial = _evaluate(state.trial, distance2, y, mask)
        better = (trial.value > state.at.value) | (state.promised < _ROUNDING)
        at = jax.tree.map(lambda new, old: jnp.where(better, new, old), trial, state.at)
        damping = jnp.where(better, state.damping / 10, jnp.maximum(state.damping * 10, 1e-3))

        free = _free(at, movable)
        p, r = (jnp.where(free[i], -at.hessian[i, i], 1.0) for i in (0, 1))
        q = jnp.where(free[0] & free[1], -at.hessian[0, 1], 0.0)
        # Shift the negative Hessian, in units of its own diagonal, to be positive definite; then damp. A length
        # scale that drifts to its bound is far flatter than the noise: a shift in common units would stall it.
        unit_p, unit_r = jnp.abs(p) + _FLAT, jnp.abs(r) + _FLAT
        tilt = ((p / unit_p - r / unit_r) / 2) ** 2 + q**2 / (unit_p * unit_r)
        convex = jnp.maximum(0.0, 1e-3 - (p / unit_p + r / unit_r) / 2 + jnp.sqrt(tilt))
        g = jnp.where(free, at.gradient, 0.0)

        def newton(shift: jax.Array) -> jax.Array:
            a, b = p + shift * unit_p, r + shift * unit_r
            return jnp.stack([b * g[0] - q * g[1], a * g[1] - q * g[0]]) / (a * b - q * q)

        promised = 0.5 * jnp.sum(g * newton(convex))
        move = newton(convex + damping)
        move = move * jnp.minimum(1.0, _LONGEST_STEP / jnp.maximum(jnp.max(jnp.abs(move)), 1e-300))
        following = jnp.clip(at.theta + move, *_LOG_BOUNDS)
        return _State(at, following, promised, damping, state.evaluations + 1, promised < _GAIN)

    nowhere = _Point(start, jnp.asarray(-jnp.inf), jnp.zeros(2), jnp.zeros((2, 2)))
    begin = _State(nowhere, start, jnp.asarray(jnp.inf), jnp.asarray(0.0), jnp.asarray(0), jnp.asarray(False))
    return jax.lax.while_loop(unfinished, step, begin)


def _level_only(y: jax.Array, n: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mode at a vanishing length scale: independent trials, whose noise has a closed form."""
    power = jnp.sum(y**2) / jnp.maximum(n, 1)
    noise = jnp.clip(power - 1.0 - JITTER, *BOUNDS)
    variance = 1.0 + JITTER + noise
    return noise, -0.5 * n * (power / variance + jnp.log(2 * jnp.pi * variance))


def _fit(features: jax.Array, y: jax.Array, mask: jax.Array, likeliest: jax.Array) -> Process:
    features = jnp.where(mask[:, None], features, 0.0)
    y = jnp.where(mask, y, 0.0)
    n = jnp.sum(mask)
    mean = jnp.sum(y) / jnp.maximum(n, 1)
    variance = jnp.sum(jnp.where(mask, (y - mean) ** 2, 0.0)) / jnp.maximum(n, 1)
    log_variance = jnp.clip(jnp.log(jnp.maximum(variance, BOUNDS[0])), *_LOG_BOUNDS)
    starts = jnp.stack(
        [jnp.stack([jnp.asarray(length), log_variance]) for length in (_LONG, _STRAIGHT)] + [jnp.array(_INTERPOLATING)]
    )
    movable = jnp.array([[True, True], [False, True], [True, True]])
    ends = jax.vmap(_ascend, in_axes=(0, 0, None, None, None))(starts, movable, squared_distances(features), y, mask)
    level_noise, level_value = _level_only(y, n)
    level_theta = jnp.stack([jnp.asarray(_LOG_BOUNDS[0]), jnp.log(level_noise)])
    theta = jnp.concatenate([ends.at.theta, level_theta[None]])
    # The third start's mode is reported, but followed only where the caller wants the likeliest of all.
    followed = jnp.array([True, True, False, True]) | likeliest
    value = jnp.where(followed, jnp.append(ends.at.value, level_value), -jnp.inf)
    inward = jnp.array([False, True, False]) & (ends.at.gradient[:, 0] < 0)
    converged = jnp.append(ends.converged & ~inward, True)
    best = jnp.argmax(value)
    on_bound = (theta[best] <= _LOG_BOUNDS[0]) | (theta[best] >= _LOG_BOUNDS[1])
    status = jnp.where(
        n < _MIN_TRIALS,
        Status.TOO_FEW_POINTS,
        jnp.where(
            ~converged[best],
            Status.NOT_CONVERGED,
            jnp.where(jnp.any(on_bound), Status.BOUND_HIT, Status.FITTED),
        ),
    )
    length_scale, noise = jnp.exp(theta[best])
    return Process(
        length_scale=length_scale,
        noise=noise,
        log_likelihood=value[best],
        on_bound=on_bound,
        interpolating=jnp.exp(ends.at.theta[2]),
        interpolating_log_likelihood=ends.at.value[2],
        status=status,
    )


@jit64(cpu_options=OLD_EMITTERS)
def fit_processes(features: jax.Array, y: jax.Array, mask: jax.Array, likeliest: jax.Array | bool = False) -> Process:
    """All cells at once: standardised ``features`` [B, N, F], raw loss ``y`` [B, N], ``mask`` [B, N].

    ``likeliest`` [] follows the mode that nearly interpolates the trials where it is the likelier one; otherwise the
    broad mode is followed and the other one reported.
    """
    likeliest = jnp.asarray(likeliest)
    return in_chunks(lambda *cell: _fit(*cell, likeliest), _CHUNK, features, y, mask)
