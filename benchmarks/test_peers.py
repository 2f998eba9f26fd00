"""The same fits by what one would otherwise reach for, where it is installed. Nothing is asserted of times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import curve_fit

from benchmarks.measure import worse
from benchmarks.problems import budgets, noisy_laws
from delphi_jax.batch import GRID_TOP, asymptote_grid, pad
from delphi_jax.kernels.power_law import fit_free_laws

# curve_fit warns where no covariance can be estimated.
pytestmark = pytest.mark.filterwarnings("ignore")


def _curve_fit(compute: np.ndarray, loss: np.ndarray) -> float:
    """Mean squared log residual of the law by ``scipy.optimize.curve_fit``, NaN where it fails.

    The objective is ours, with L_inf as a third, continuous parameter within the ends of our grid: a "curve" that is
    to equal zero. It starts at half the smallest loss, with the line that fits there.
    """
    log_compute, top = np.log(compute / compute[0]), GRID_TOP * loss.min()

    def residual(x: np.ndarray, L_inf: float, log_A: float, alpha: float) -> np.ndarray:
        return np.log(loss - L_inf) - log_A + alpha * x

    slope, log_A = np.polyfit(log_compute, np.log(loss - loss.min() / 2), 1)
    bounds = ([0, -np.inf, 0], [top, np.inf, np.inf])
    try:
        start = (loss.min() / 2, log_A, max(-slope, 1e-3))
        fitted, _ = curve_fit(residual, log_compute, np.zeros(len(loss)), p0=start, bounds=bounds, maxfev=20000)
    except RuntimeError:
        return float("nan")
    return float(np.mean(residual(log_compute, *fitted) ** 2))


@pytest.mark.parametrize("n", [100, pytest.param(10_000, marks=pytest.mark.large)])
def test_curve_fit(compare: Callable[..., tuple[Any, Any]], benchmark: Any, n: int) -> None:
    n_grid, n_plain = 400, min(n, 1000)
    compute, losses = budgets(), noisy_laws(np.random.default_rng(6), n)
    padded, mask = pad(list(losses))
    log_compute = pad([np.log(compute)] * n)[0]
    grid = asymptote_grid(losses.min(axis=1), n_grid)
    laws, plain = compare(
        "grid search against curve_fit in a loop",
        lambda: fit_free_laws(log_compute, padded, mask, grid),
        lambda: [_curve_fit(compute, loss) for loss in losses[:n_plain]],
        size=f"{n} series of {len(compute)}, {n_grid} asymptotes",
        share=n_plain / n,
        kind="peer",
    )
    ours, peer = laws.score[:n_plain], np.array(plain)
    both = np.isfinite(peer) & np.isfinite(ours)
    ours, peer = ours[both], peer[both]
    benchmark.extra_info.update(
        worse=worse(ours, peer),
        largest_excess=float(np.max(ours / peer - 1, initial=0.0)),
        peer_worse=worse(peer, ours),
        peer_largest_excess=float(np.max(peer / ours - 1, initial=0.0)),
        objective=float(ours.sum()),
        peer_objective=float(peer.sum()),
        compared=int(both.sum()),
        failures=int(np.sum(~np.isfinite(laws.score))),
        peer_failures=int(np.sum(~np.isfinite(plain))),
    )
