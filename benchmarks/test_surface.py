"""Bootstrap refits of the loss surface against SciPy and Optimistix. Nothing is asserted of times.

On the public Marin nemotron runs where they lie beside the repository, else on the bundled, simulated study's. Every
refit by others starts at the fit of all runs, as one would do it; N and D are in units of 1e6 and 1e9.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from scipy.optimize import curve_fit, least_squares

from benchmarks.measure import worse
from delphi_jax.fit.law import resampling_indices
from delphi_jax.fit.surface import bootstrap_surface, fit_surface
from delphi_jax.io import load_study
from delphi_jax.labels import ADAMH_SUITE
from delphi_jax.results.surface import SurfaceFit, SurfaceObjective
from delphi_jax.tables import fit_runs

# SciPy warns where no covariance can be estimated.
pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).resolve().parents[1]
NEMOTRON = ROOT.parent / "shared" / "real" / "isoflops.csv", "marin_202603__nemotron__llama_2"
DELTA = 1e-3
DRAWS = 1000
UNITS = np.array([1e6, 1e9])

Compare = Callable[..., tuple[Any, Any]]
Floats = np.ndarray


def _runs() -> tuple[str, Floats]:
    """(name, [n, 3] params, tokens, loss), outliers included."""
    path, experiment = NEMOTRON
    if path.is_file():
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["experiment"] == experiment]
        return "Marin nemotron", np.array([[float(row[key]) for key in ("params", "tokens", "loss")] for row in rows])
    used, _ = fit_runs(load_study(ROOT / "data", tables={"runs"}).runs)
    group = used.where(used.suite == ADAMH_SUITE)
    return "simulated", np.stack([group.params, group.tokens, group.loss], axis=1)


def _start(point: SurfaceFit) -> Floats:
    """E, log A, log B, a, b in the benchmark's units."""
    scaled = np.log([point.A, point.B]) - np.array([point.a, point.b]) * np.log(UNITS)
    return np.array([point.E, *scaled, point.a, point.b])


def _model(x: Floats, E: float, log_A: float, log_B: float, a: float, b: float) -> Floats:
    return E + np.exp(log_A - a * x[0]) + np.exp(log_B - b * x[1])


def _huber(residual: Floats) -> Floats:
    size = np.abs(residual)
    return np.where(size <= DELTA, size**2 / 2, DELTA * (size - DELTA / 2))


def _curve_fit(x: Floats, loss: Floats, start: Floats) -> float:
    """Mean squared error, NaN where it fails."""
    try:
        theta, _ = curve_fit(_model, x, loss, p0=start)
    except RuntimeError:
        return float("nan")
    return float(np.mean((loss - _model(x, *theta)) ** 2))


def _least_squares(x: Floats, loss: Floats, start: Floats) -> float:
    """Mean Huber function, NaN where it fails."""
    found = least_squares(
        lambda theta: _model(x, *theta) - loss,
        start,
        loss="huber",
        f_scale=DELTA,
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
        max_nfev=1000,
    )
    return float(np.mean(_huber(found.fun))) if found.status >= 0 else float("nan")


@pytest.mark.parametrize(
    ("function", "refit", "n_plain", "target"),
    [("squared", _curve_fit, DRAWS, 8), ("huber", _least_squares, 5, 100)],
    ids=["squared", "huber"],
)
def test_surface_bootstrap(
    compare: Compare,
    benchmark: Any,
    function: str,
    refit: Callable[[Floats, Floats, Floats], float],
    n_plain: int,
    target: float,
) -> None:
    name, runs = _runs()
    params, tokens, loss = runs.T
    objective = SurfaceObjective(function, "loss", DELTA)
    indices = resampling_indices(len(loss), DRAWS, seed=0)
    x = np.log(runs[:, :2] / UNITS).T
    start = _start(fit_surface(params, tokens, loss, objective=objective))
    found, plain = compare(
        f"surface bootstrap, {function}, against {'curve_fit' if function == 'squared' else 'least_squares'}",
        lambda: bootstrap_surface(params, tokens, loss, objective=objective, indices=indices).value,
        lambda: [refit(x[:, draw], loss[draw], start) for draw in indices[:n_plain]],
        size=f"{DRAWS} resamples of {len(loss)} runs ({name})",
        target=target,
        share=n_plain / DRAWS,
        kind="peer",
    )
    _record(benchmark, np.asarray(found), np.array(plain))


def test_surface_bootstrap_by_optimistix(compare: Compare, benchmark: Any) -> None:
    optimistix = pytest.importorskip("optimistix", reason="optimistix is not installed")
    name, runs = _runs()
    params, tokens, loss = runs.T
    objective = SurfaceObjective("huber", "loss", DELTA)
    indices = resampling_indices(len(loss), DRAWS, seed=0)
    x = np.log(runs[:, :2] / UNITS).T
    start = _start(fit_surface(params, tokens, loss, objective=objective))
    solver = optimistix.BFGS(rtol=1e-10, atol=1e-10)

    def mean_huber(theta: jax.Array, counts: jax.Array) -> jax.Array:
        E, log_A, log_B, a, b = theta
        residual = loss - E - jax.numpy.exp(log_A - a * x[0]) - jax.numpy.exp(log_B - b * x[1])
        size = jax.numpy.abs(residual)
        value = jax.numpy.where(size <= DELTA, size**2 / 2, DELTA * (size - DELTA / 2))
        # In units in which the solver's tolerances mean something.
        return jax.numpy.sum(counts * value) / (len(loss) * DELTA**2)

    @jax.jit
    @jax.vmap
    def solve(counts: jax.Array) -> jax.Array:
        found = optimistix.minimise(mean_huber, solver, start, args=counts, max_steps=1000, throw=False)
        return mean_huber(found.value, counts) * DELTA**2

    counts = np.array([np.bincount(draw, minlength=len(loss)) for draw in indices], dtype=float)

    def plain() -> Floats:
        with jax.enable_x64(True):
            return np.asarray(solve(counts))

    found, values = compare(
        "surface bootstrap, huber, against Optimistix BFGS under vmap",
        lambda: bootstrap_surface(params, tokens, loss, objective=objective, indices=indices).value,
        plain,
        size=f"{DRAWS} resamples of {len(loss)} runs ({name})",
        target=3,
        kind="peer",
    )
    _record(benchmark, np.asarray(found), np.asarray(values))


def _record(benchmark: Any, found: Floats, plain: Floats) -> None:
    ours = found[: len(plain)]
    both = np.isfinite(ours) & np.isfinite(plain)
    ours, peer = ours[both], plain[both]
    benchmark.extra_info.update(
        worse=worse(ours, peer),
        largest_excess=float(np.max(ours / peer - 1, initial=0.0)),
        peer_worse=worse(peer, ours),
        peer_largest_excess=float(np.max(peer / ours - 1, initial=0.0)),
        objective=float(ours.sum()),
        peer_objective=float(peer.sum()),
        compared=int(both.sum()),
        failures=int(np.sum(~np.isfinite(found))),
        peer_failures=int(np.sum(~np.isfinite(plain))),
    )
