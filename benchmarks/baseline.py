"""The study's fits as one would first write them with NumPy, SciPy and scikit-learn.

This is the independent twin of the batched kernels: tests compare the kernels with it and benchmarks take
ratios against it. It is written for reading: one regression per grid value, one refit per bootstrap draw,
one prediction per value of a partial dependence. It shares no code with the package and takes plain arrays
only. Units: compute C in FLOPs, tokens T, loss in nats per token; ``log`` is natural.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import curve_fit
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

__all__ = [
    "bootstrap",
    "bootstrap_indices",
    "dependence_values",
    "downstream_asymptote",
    "fit_at",
    "fit_free",
    "fit_parabola",
    "fit_pinned",
    "fit_process",
    "fit_richards",
    "fit_shared",
    "heuristic_features",
    "overtraining",
    "partial_dependence",
    "percentiles",
    "predict_law",
    "richards",
    "richards_inverse",
    "sweep_features",
]

Array = NDArray[np.float64]


# IsoFLOP parabola


def fit_parabola(tokens: ArrayLike, loss: ArrayLike, params: ArrayLike) -> dict[str, float | bool]:
    """Least-squares parabola of the loss in x = log10 tokens over the runs of one budget, and its optimum.

    Args:
        tokens, loss, params: shape (P,), P >= 3 runs.

    Returns:
        The coefficients a, b, c; ``vertex_logT`` = -b/(2a), and ``logT_star``, the same clipped to the
        observed range (``clipped`` says whether that moved it); the optimum's ``T_star``, ``loss_star``,
        ``P_star``; the one-sided curvatures ``a_under`` (x below the optimum) and ``a_over``. A parabola
        with a <= 0 has no minimum; its vertex is clipped all the same, so look at ``a``.

    Raises:
        ValueError: fewer than 3 runs.
    """
    x = np.log10(tokens)
    loss = np.asarray(loss, dtype=float)
    if len(x) < 3:
        raise ValueError(f"a parabola needs at least 3 runs, got {len(x)}")
    a, b, c = np.polyfit(x, loss, 2)
    vertex = -b / (2 * a)
    optimum = np.clip(vertex, x.min(), x.max())
    loss_star = np.polyval([a, b, c], optimum)

    def curvature(side: NDArray[np.bool_]) -> float:
        squares = (x[side] - optimum) ** 2
        rises = loss[side] - loss_star
        if not side.any():
            return float(a)
        one_sided = np.sum(squares * rises) / np.sum(squares**2)
        return float(one_sided) if one_sided > 0 else float(a)

    return {
        "a": float(a),
        "b": float(b),
        "c": float(c),
        "vertex_logT": float(vertex),
        "logT_star": float(optimum),
        "clipped": bool(optimum != vertex),
        "T_star": float(10**optimum),
        "loss_star": float(loss_star),
        "P_star": float(10 ** np.polyval(np.polyfit(x, np.log10(params), 1), optimum)),
        "a_under": curvature(x < optimum),
        "a_over": curvature(x > optimum),
    }


# Asymptotic power law L(C) = L_inf + A*C**-alpha


def fit_at(C: ArrayLike, L: ArrayLike, L_inf: float) -> tuple[float, float, float] | None:
    """Regress log(L - L_inf) on log C at a fixed asymptote: (log A, alpha, mean squared log residual).

    None where that is no law: fewer than 2 distinct budgets, a loss at or below the asymptote, or an
    exponent that is not finite and positive.
    """
    C, L = np.asarray(C, dtype=float), np.asarray(L, dtype=float)
    if len(np.unique(C)) < 2 or np.any(L_inf >= L):
        return None
    log_C, log_excess = np.log(C), np.log(L - L_inf)
    slope, log_A = np.polyfit(log_C, log_excess, 1)
    alpha = -slope
    if not np.isfinite(alpha) or alpha <= 0:
        return None
    score = np.mean((log_excess - (log_A + slope * log_C)) ** 2)
    return float(log_A), float(alpha), float(score)


def fit_pinned(C: ArrayLike, L: ArrayLike, L_inf: float) -> dict[str, float] | None:
    """The law at a given asymptote: L_inf, A, alpha, score; None where :func:`fit_at` finds none."""
    fit = fit_at(C, L, L_inf)
    if fit is None:
        return None
    log_A, alpha, score = fit
    return {"L_inf": float(L_inf), "A": float(np.exp(log_A)), "alpha": alpha, "score": score}


def fit_free(C: ArrayLike, L: ArrayLike, n_grid: int = 400) -> dict[str, Any] | None:
    """The law with the best asymptote on a grid of ``n_grid`` values from 0 to 0.95*min(L), ends included.

    The lowest score wins, the first on a tie; ``index`` is its place on the grid. None where no grid value
    gives a law.
    """
    best = None
    for index, L_inf in enumerate(np.linspace(0, 0.95 * np.min(L), n_grid)):
        fit = fit_pinned(C, L, L_inf)
        if fit is not None and (best is None or fit["score"] < best["score"]):
            best = {**fit, "index": index}
    return best


def fit_shared(series: Sequence[tuple[ArrayLike, ArrayLike]], n_grid: int = 400) -> dict[str, Any] | None:
    """One asymptote for several (C, L) series, each with its own A and alpha.

    A grid value counts only where every series has a law; the sum of their scores is minimised. Returns
    L_inf, its grid ``index``, the summed ``score`` and ``fits``, one as from :func:`fit_pinned` per series.
    """
    highest = 0.95 * min(np.min(L) for _, L in series)
    best = None
    for index, L_inf in enumerate(np.linspace(0, highest, n_grid)):
        fits = [fit_pinned(C, L, L_inf) for C, L in series]
        if any(fit is None for fit in fits):
            continue
        score = sum(fit["score"] for fit in fits)
        if best is None or score < best["score"]:
            best = {"L_inf": float(L_inf), "index": index, "score": score, "fits": fits}
    return best


def predict_law(C: ArrayLike, law: dict[str, Any]) -> Array:
    """Loss of a fitted law at compute C."""
    return law["L_inf"] + law["A"] * np.asarray(C, dtype=float) ** -law["alpha"]


# Bootstrap of the forecast


def bootstrap_indices(n: int, draws: int, seed: int) -> NDArray[np.int64]:
    """Indices of resampling n points with replacement, shape (draws, n), drawn one draw after the other."""
    rng = np.random.default_rng(seed)
    return np.array([rng.integers(0, n, size=n) for _ in range(draws)])


def bootstrap(
    C: ArrayLike, L: ArrayLike, targets: ArrayLike, indices: NDArray[np.int64], n_grid: int = 100
) -> list[dict[str, Any]]:
    """Refit the free-asymptote law on each resample and forecast the loss at the target budgets.

    Args:
        C, L: the optima, shape (n,).
        targets: compute budgets to forecast, shape (Q,).
        indices: resamples, shape (draws, n).

    Returns:
        Per draw its ``status``: "ok", "lt3_unique" (fewer than 3 distinct budgets) or "fit_failed". Where
        it is "ok" also L_inf, index, A, alpha, score and ``forecast``, shape (Q,).
    """
    C, L = np.asarray(C, dtype=float), np.asarray(L, dtype=float)
    draws = []
    for picked in indices:
        if len(np.unique(C[picked])) < 3:
            draws.append({"status": "lt3_unique"})
            continue
        law = fit_free(C[picked], L[picked], n_grid)
        if law is None:
            draws.append({"status": "fit_failed"})
            continue
        draws.append({"status": "ok", **law, "forecast": predict_law(targets, law)})
    return draws


def percentiles(draws: Sequence[dict[str, Any]], q: ArrayLike = (2.5, 50, 97.5)) -> Array:
    """Percentiles (linear interpolation) of the forecasts of the draws that fitted, shape (Q, len(q))."""
    forecasts = np.array([draw["forecast"] for draw in draws if draw["status"] == "ok"])
    return np.percentile(forecasts, q, axis=0).T


# Richards curve


def richards(x: ArrayLike, k: float, x0: float, v: float, K: float, floor: float) -> Array:
    """Generalised logistic curve floor + (K - floor) / (1 + exp(-k*(x - x0)))**v (Richards 1959)."""
    with np.errstate(over="ignore"):  # far below x0 the exponential is inf and the curve is at its floor
        return floor + (K - floor) / (1 + np.exp(-k * (np.asarray(x, dtype=float) - x0))) ** v


def richards_inverse(y: ArrayLike, k: float, x0: float, v: float, K: float, floor: float) -> Array:
    """The x at which :func:`richards` equals y, for floor < y < K."""
    return x0 - np.log(((np.asarray(y, dtype=float) - floor) / (K - floor)) ** (-1 / v) - 1) / k


def fit_richards(x: ArrayLike, y: ArrayLike, floor: float, ceiling: float | None = None) -> dict[str, float]:
    """Bounded least squares of the Richards curve from the reference's single start.

    Args:
        x, y: soft and hard metric, shape (P,).
        floor: the hard metric's value at chance.
        ceiling: K where it is pinned; None fits it.

    Returns:
        k, x0, v, K, floor and the sum of squares ``sse``.

    Raises:
        RuntimeError: SciPy does not converge.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    start = [5.0, np.median(x), 1.0, 0.95]
    lower = [0.1, x.min() - 2, 0.1, floor + 0.05]
    upper = [50.0, x.max() + 2, 20.0, 1.0]
    free = 4 if ceiling is None else 3

    def curve(x: Array, k: float, x0: float, v: float, K: float | None = ceiling) -> Array:
        return richards(x, k, x0, v, K, floor)

    fitted, _ = curve_fit(curve, x, y, p0=start[:free], bounds=(lower[:free], upper[:free]), maxfev=20000)
    k, x0, v, K = fitted if ceiling is None else (*fitted, ceiling)
    sse = np.sum((y - richards(x, k, x0, v, K, floor)) ** 2)
    return {
        "k": float(k),
        "x0": float(x0),
        "v": float(v),
        "K": float(K),
        "floor": float(floor),
        "sse": float(sse),
    }


# Downstream two-step forecast


def downstream_asymptote(
    curve: dict[str, float] | None, n_problems: int, soft: ArrayLike | None
) -> dict[str, float | str]:
    """The soft metric's asymptote for the pinned law, from the saturation point of the Richards curve.

    Args:
        curve: a fit of :func:`fit_richards` of the hard metric on the negated soft metric, or None.
        n_problems: size of the benchmark; saturation is one problem's worth below the ceiling.
        soft: the soft metric (positive, lower is better) of the points that bound the asymptote; None
            where there are no external models to fit a curve with.

    Returns:
        ``L_inf``, and the ``branch`` that gave it: "inverted" (the negated saturation point, where it lies
        strictly between 0 and the smallest soft value), "clamped" (else that smallest value), "no_curve"
        (that smallest value too), "no_external" (0.2). With a curve also ``saturation``, the point's x.
    """
    if soft is None:
        return {"L_inf": 0.2, "branch": "no_external"}
    smallest = float(np.min(soft))
    if curve is None:
        return {"L_inf": smallest, "branch": "no_curve"}
    k, x0, v, K, floor = (curve[name] for name in ("k", "x0", "v", "K", "floor"))
    saturation = float(richards_inverse(K - 1 / n_problems, k, x0, v, K, floor))
    if 0 < -saturation < smallest:
        return {"L_inf": -saturation, "branch": "inverted", "saturation": saturation}
    return {"L_inf": smallest, "branch": "clamped", "saturation": saturation}


# Overtraining forecast


def overtraining(
    C: ArrayLike,
    T_star: ArrayLike,
    loss_star: ArrayLike,
    a_under: ArrayLike,
    a_over: ArrayLike,
    law: dict[str, Any],
    C_f: float,
    scale: float,
) -> dict[str, Any]:
    """What training on ``scale`` times the optimal tokens costs, and the compute that makes up for it.

    Args:
        C, T_star, loss_star, a_under, a_over: the bucket optima and one-sided curvatures, shape (B,).
        law: the free-asymptote law of (C, loss_star).
        C_f: forecast budget, FLOPs.
        scale: s = T/T_star.

    Returns:
        ``penalty`` and ``loss``, penalised, of each bucket; ``C``, the 800 budgets of the sub-optimal
        ``curve``, and its ``tokens``; ``C_equiv``, at which that curve falls to the law's value at C_f (the
        end of the grid where ``crossed`` is False) and ``overhead`` in percent of C_f.
    """
    C, loss_star = np.asarray(C, dtype=float), np.asarray(loss_star, dtype=float)
    curvature = np.asarray(a_over if scale > 1 else a_under, dtype=float)
    penalty = curvature * np.log10(scale) ** 2
    grid = np.logspace(np.log10(C.min()), np.log10(1000 * C_f), 800)
    if np.all(penalty > 1e-9):
        extrapolated = 10 ** np.polyval(np.polyfit(np.log10(C), np.log10(penalty), 1), np.log10(grid))
    else:
        extrapolated = np.zeros_like(grid)
    curve = predict_law(grid, law) + extrapolated
    optimal_tokens = 10 ** np.polyval(np.polyfit(np.log10(C), np.log10(T_star), 1), np.log10(grid))

    target = float(predict_law(C_f, law))
    log_C = np.log10(grid)
    C_equiv, crossed = float(grid[-1]), False
    # The penalty is never negative and the law falls, so no crossing lies before C_f.
    for i in range(len(grid) - 1):
        if curve[i] >= target >= curve[i + 1]:
            fraction = (curve[i] - target) / (curve[i] - curve[i + 1])
            C_equiv, crossed = float(10 ** (log_C[i] + fraction * (log_C[i + 1] - log_C[i]))), True
            break
    return {
        "penalty": penalty,
        "loss": loss_star + penalty,
        "C": grid,
        "tokens": scale * optimal_tokens,
        "curve": curve,
        "C_equiv": C_equiv,
        "crossed": crossed,
        "overhead": 100 * (C_equiv - C_f) / C_f,
    }


# Gaussian process and partial dependence


def sweep_features(
    lr: ArrayLike,
    adam_lr: ArrayLike,
    epsilon: ArrayLike,
    beta1: ArrayLike,
    beta2: ArrayLike,
    loss: ArrayLike,
) -> dict[str, Any]:
    """The process's inputs for one cell of the sweep, from the columns of its trials, each of shape (P,).

    Returns:
        ``X`` (the five standardised log features) and ``y`` (raw loss) of the trials at or below
        ``loss_cap``, the 95th percentile of the loss; ``mean`` and ``scale``, which standardised them.
    """
    loss = np.asarray(loss, dtype=float)
    raw = np.column_stack([lr, adam_lr, epsilon, 1 - np.asarray(beta1), 1 - np.asarray(beta2)])
    loss_cap = np.percentile(loss, 95)
    kept = loss <= loss_cap
    logs = np.log(np.maximum(raw[kept], 1e-20))
    mean, scale = logs.mean(axis=0), logs.std(axis=0)
    return {
        "X": (logs - mean) / scale,
        "y": loss[kept],
        "mean": mean,
        "scale": scale,
        "loss_cap": float(loss_cap),
    }


def heuristic_features(batch_size: int, tokens: float) -> Array:
    """The recipe's values (Complete(d) AdamH) as unstandardised log features, for nominal ``tokens``."""
    r = (batch_size * 2.5e9) / (64 * tokens)
    lr = 0.00630 * np.sqrt(batch_size / 64) * (2.5e9 / tokens) ** 0.3
    adam_lr = 0.000656 * np.sqrt(r)
    epsilon = 1.85e-8 * np.sqrt(1 / r)
    beta1 = 0.9
    beta2 = np.clip(0.9999 ** (batch_size / 64), 0.9, 0.9999)
    return np.log(np.maximum([lr, adam_lr, epsilon, 1 - beta1, 1 - beta2], 1e-20))


def dependence_values(column: ArrayLike, heuristic: float) -> Array:
    """80 equally spaced values over a standardised feature's range, widened to the heuristic's value."""
    return np.linspace(min(np.min(column), heuristic), max(np.max(column), heuristic), 80)


def fit_process(X: ArrayLike, y: ArrayLike) -> GaussianProcessRegressor:
    """Zero-mean process with a unit Matern-5/2 kernel plus white noise, by maximum marginal likelihood."""
    kernel = Matern(length_scale=1.0, length_scale_bounds=(1e-5, 1e5), nu=2.5) + WhiteKernel(
        noise_level=0.01, noise_level_bounds=(1e-5, 1e5)
    )
    # Seed 42 gives the restarts of the reference run; another seed can end in another mode.
    process = GaussianProcessRegressor(kernel, alpha=1e-6, n_restarts_optimizer=3, random_state=42)
    return process.fit(np.asarray(X), np.asarray(y))


def partial_dependence(gp: GaussianProcessRegressor, X: ArrayLike, j: int, values: ArrayLike) -> tuple[Array, Array]:
    """Partial dependence on feature j (Friedman 2001) with its band (Moosbauer et al. 2021).

    Returns:
        mean, sd: shape (G,), for each of the G values that column j of every trial is replaced by.
    """
    means, sds = [], []
    for value in np.asarray(values, dtype=float):
        replaced = np.array(X, dtype=float)
        replaced[:, j] = value
        mean, covariance = gp.predict(replaced, return_cov=True)
        means.append(mean.mean())
        sds.append(np.sqrt(covariance.mean()))
    return np.array(means), np.array(sds)
