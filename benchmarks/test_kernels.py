"""Every hot loop against the baseline, with the error beside the time. Nothing is asserted of times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from benchmarks import baseline, floors
from benchmarks.baseline_command import NOMINAL_TOKENS, load_tables
from benchmarks.measure import largest_difference, worse
from benchmarks.problems import budgets, noisy_laws, richards_curves
from delphi_jax.batch import asymptote_grid, pad
from delphi_jax.fit.downstream import RichardsProblem, fit_richards_curves
from delphi_jax.fit.law import bootstrap_law, fit_laws, resampling_indices
from delphi_jax.kernels import process as process_kernel
from delphi_jax.kernels import richards as richards_kernel
from delphi_jax.kernels.ard import CHUNK as ARD_CHUNK
from delphi_jax.kernels.ard import LENGTH_BOUNDS, NOISE_BOUNDS, fit_ard_processes
from delphi_jax.kernels.bootstrap import bootstrap_laws
from delphi_jax.kernels.chunks import on_all_devices
from delphi_jax.kernels.dependence import partial_dependence
from delphi_jax.kernels.parabola import fit_parabolas
from delphi_jax.kernels.power_law import fit_free_laws
from delphi_jax.kernels.process import fit_processes
from delphi_jax.status import Status
from tests.delphi import FEATURES, SWEEP

# SciPy and scikit-learn warn where an estimate lies on its bound, as some of these do.
pytestmark = pytest.mark.filterwarnings("ignore")

DATA = Path(__file__).resolve().parents[1] / "data"
COMPUTE = budgets()

Compare = Callable[..., tuple[Any, Any]]


def test_grid_search(compare: Compare, benchmark: Any) -> None:
    n, n_plain, n_grid = 1000, 20, 400
    losses = noisy_laws(np.random.default_rng(1), n)
    padded, mask = pad(list(losses))
    log_compute = pad([np.log(COMPUTE)] * n)[0]
    series = {str(i): (COMPUTE, loss) for i, loss in enumerate(losses)}
    laws, plain = compare(
        "grid search",
        lambda: fit_free_laws(log_compute, padded, mask, asymptote_grid(losses.min(axis=1), n_grid)),
        lambda: [baseline.fit_free(COMPUTE, loss, n_grid) for loss in losses[:n_plain]],
        size=f"{n} series of {len(COMPUTE)}, {n_grid} asymptotes",
        target=1000,
        share=n_plain / n,
        public=lambda: fit_laws(series, n_grid=n_grid),
        work=floors.free_laws(n, len(COMPUTE), n_grid),
    )
    scores = [law["score"] for law in plain]
    benchmark.extra_info.update(
        difference=largest_difference(
            [laws.L_inf[:n_plain], laws.alpha[:n_plain]],
            np.array([(law["L_inf"], law["alpha"]) for law in plain]).T,
        ),
        worse=worse(laws.score[:n_plain], scores),
        objective=float(np.sum(laws.score[:n_plain])),
        compared=n_plain,
        failures=int(np.sum(~np.isfinite(laws.score))),
    )


def test_bootstrap(compare: Compare, benchmark: Any) -> None:
    draws, n_plain, n_grid, target = 1000, 100, 100, 1e23
    loss = noisy_laws(np.random.default_rng(2), 1)[0]
    log_compute, mask = (rows[0] for rows in pad([np.log(COMPUTE)]))
    padded = pad([loss])[0][0]
    indices = resampling_indices(len(loss), draws, seed=0)

    def ours() -> Any:
        counts = np.sum(indices[:, :, None] == np.arange(len(mask)), axis=1, dtype=np.float64)
        return bootstrap_laws(log_compute, padded, mask, counts, asymptote_grid(padded, n_grid))

    fits, plain = compare(
        "bootstrap",
        ours,
        lambda: baseline.bootstrap(COMPUTE, loss, [target], indices[:n_plain], n_grid),
        size=f"{draws} draws of {len(loss)}, {n_grid} asymptotes",
        target=500,
        share=n_plain / draws,
        public=lambda: bootstrap_law(COMPUTE, loss, [target], indices=indices, n_grid=n_grid),
        work=floors.bootstrap(draws, len(loss), n_grid),
    )
    fitted = np.array([draw["status"] == "ok" for draw in plain])
    expected = np.array(
        [(draw["L_inf"], draw["alpha"], draw["score"], *draw["forecast"]) for draw in plain if "A" in draw]
    )
    first = jax.tree.map(lambda field: field[:n_plain][fitted], fits)
    forecast = first.L_inf + first.A * target**-first.alpha
    benchmark.extra_info.update(
        difference=largest_difference(forecast, expected[:, 3]),
        worse=worse(first.score, expected[:, 2]),
        objective=float(np.sum(first.score)),
        compared=int(fitted.sum()),
        failures=int(np.sum(fits.status != Status.FITTED)),
    )


def test_richards(compare: Compare, benchmark: Any) -> None:
    n, n_plain = 1000, 40
    curves = richards_curves(np.random.default_rng(3), n)
    x, y, floor = curves.x, curves.y, curves.floor
    problems = [RichardsProblem(str(i), *problem) for i, problem in enumerate(zip(x, y, floor, strict=True))]
    evaluations = _richards_evaluations(x[:n_plain], y[:n_plain], floor[:n_plain])
    fits, plain = compare(
        "Richards",
        # The public function: it spreads a large batch over the processors, and gives slow problems more time.
        lambda: fit_richards_curves(problems),
        lambda: [_fit_richards(*problem) for problem in zip(x[:n_plain], y[:n_plain], floor, strict=False)],
        size=f"{n} problems of {x.shape[1]}",
        target=20,
        share=n_plain / n,
        work=floors.richards(n, x.shape[1], evaluations),
    )
    sse, found = np.array([fit.sse for fit in fits[:n_plain]]), np.isfinite(plain)
    benchmark.extra_info.update(
        difference=float(np.max((np.sort(sse[found] / np.array(plain)[found]) - 1), initial=0.0)),
        worse=worse(sse[found], np.array(plain)[found]),
        better=worse(np.array(plain)[found], sse[found]),
        evaluations=evaluations,
        objective=float(sse.sum()),
        compared=int(found.sum()),
        failures=sum(not fit.fitted for fit in fits),
        baseline_failures=int(np.sum(~found)),
    )


def _fit_richards(x: np.ndarray, y: np.ndarray, floor: float) -> float:
    """The baseline's sum of squares, NaN where it does not converge."""
    try:
        return baseline.fit_richards(x, y, floor)["sse"]
    except RuntimeError:
        return float("nan")


def _richards_evaluations(x: np.ndarray, y: np.ndarray, floor: np.ndarray) -> float:
    """Mean evaluations per problem, all starts together."""
    full = np.ones(len(x))
    bounds = richards_kernel.RichardsBounds(
        k=(0.1 * full, 50.0 * full),
        x0=(x.min(axis=1) - 2, x.max(axis=1) + 2),
        v=(0.1 * full, 20.0 * full),
        amplitude=(0.05 * full, 1.0 - floor),
    )
    kernel = richards_kernel.fit_richards.__wrapped__
    mask = np.ones(x.shape, dtype=bool)
    return floors.evaluations(richards_kernel, "_refine", lambda: kernel(x, y, mask, floor, bounds), len(x))


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    """The bundled study's sweep cells that hold trials: standardised X, y and values [5, 80] of dependence."""
    sweep = load_tables(DATA)["hparam_sweep"]
    found = []
    for batch_size, hidden_dim, horizon in SWEEP.cells:
        keep = sweep[["batch_size", "hidden_dim", "horizon"]] == (batch_size, hidden_dim, horizon)
        trials = sweep[keep.all(axis=1)]
        if len(trials):
            cell = baseline.sweep_features(*(trials[column].to_numpy() for column in (*FEATURES, "loss")))
            point = baseline.heuristic_features(batch_size, NOMINAL_TOKENS[horizon])
            standard = (point - cell["mean"]) / cell["scale"]
            columns = zip(cell["X"].T, standard, strict=True)
            cell["values"] = np.array([baseline.dependence_values(*column) for column in columns])
            found.append(cell)
    return found


def _batch(cells: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [24, N, 5], loss and mask [24, N], the last cells empty."""
    n_cells = len(SWEEP.cells)
    loss, mask = pad([cell["y"] for cell in cells] + [np.empty(0)] * (n_cells - len(cells)))
    features = np.zeros((*loss.shape, len(FEATURES)))
    for row, cell in zip(features, cells, strict=False):
        row[: len(cell["X"])] = cell["X"]
    return features, loss, mask


def test_processes(compare: Compare, benchmark: Any, cells: list[dict[str, Any]]) -> None:
    batch = _batch(cells)
    trials = batch[2].sum(axis=1)
    kernel = process_kernel.fit_processes.__wrapped__
    evaluations = floors.evaluations(process_kernel, "_ascend", lambda: kernel(*batch), len(trials))
    fits, plain = compare(
        "processes",
        lambda: fit_processes(*batch),
        lambda: [baseline.fit_process(cell["X"], cell["y"]).log_marginal_likelihood_value_ for cell in cells],
        size=f"24 cells ({len(cells)} with trials) of up to {int(trials.max())}",
        target=5,
        work=floors.total(floors.processes(1, int(n), len(FEATURES), evaluations) for n in trials),
    )
    broad, interpolating = (value[: len(cells)] for value in (fits.log_likelihood, fits.interpolating_log_likelihood))
    benchmark.extra_info.update(
        difference=float(np.max(np.array(plain) - np.maximum(broad, interpolating), initial=0.0)),
        worse=worse(-np.maximum(broad, interpolating), -np.array(plain)),
        worse_of_broad_mode=worse(-broad, -np.array(plain)),
        better=worse(-np.array(plain), -np.maximum(broad, interpolating)),
        evaluations=evaluations,
        objective=float(broad.sum()),
        compared=len(cells),
        failures=int(np.sum(~np.isin(fits.status[: len(cells)], (Status.FITTED, Status.BOUND_HIT)))),
    )


def test_ard_processes(compare: Compare, benchmark: Any, cells: list[dict[str, Any]]) -> None:
    batch, n_plain = _batch(cells), 4
    fits, plain = compare(
        "ARD processes",
        # In the parts of the public function, which spreads a batch over the processors.
        lambda: on_all_devices(fit_ard_processes, ARD_CHUNK, *batch),
        lambda: [_fit_ard(cell["X"], cell["y"]) for cell in cells[:n_plain]],
        size=f"24 cells ({len(cells)} with trials) of up to {int(batch[2].sum(axis=1).max())}",
        share=n_plain / len(cells),
    )
    found = fits.log_likelihood[:n_plain]
    benchmark.extra_info.update(
        difference=float(np.max(np.array(plain) - found, initial=0.0)),
        worse=worse(-found, -np.array(plain)),
        better=worse(-np.array(plain), -found),
        objective=float(fits.log_likelihood[: len(cells)].sum()),
        compared=n_plain,
        failures=int(np.sum(~np.isin(fits.status[: len(cells)], (Status.FITTED, Status.BOUND_HIT)))),
    )


def _fit_ard(X: np.ndarray, y: np.ndarray) -> float:
    """scikit-learn's highest likelihood of the same model, about the mean loss, from as many starts as the baseline's
    process has."""
    matern = Matern(np.ones(X.shape[1]), LENGTH_BOUNDS, nu=2.5)
    covariance = ConstantKernel(1.0, (1e-12, 1e12)) * (matern + WhiteKernel(0.01, NOISE_BOUNDS))
    process = GaussianProcessRegressor(covariance, alpha=0.0, n_restarts_optimizer=3, random_state=42)
    return process.fit(X, y - y.mean()).log_marginal_likelihood_value_


def test_partial_dependence(compare: Compare, benchmark: Any, cells: list[dict[str, Any]]) -> None:
    features, loss, mask = _batch(cells)
    processes = [baseline.fit_process(cell["X"], cell["y"]) for cell in cells]
    parameters = np.ones((2, len(mask)))
    parameters[:, : len(cells)] = np.exp([process.kernel_.theta for process in processes]).T
    grid = np.zeros((len(mask), len(FEATURES), 80))
    grid[: len(cells)] = [cell["values"] for cell in cells]
    n_plain = 6
    ours, plain = compare(
        "partial dependence",
        lambda: partial_dependence(features, loss, mask, *parameters, grid),
        lambda: [
            [baseline.partial_dependence(process, cell["X"], j, cell["values"][j]) for j in range(len(FEATURES))]
            for process, cell in zip(processes[:n_plain], cells, strict=False)
        ],
        size=f"24 cells ({len(cells)} with trials), {len(FEATURES)} features, 80 values",
        target=30,
        share=n_plain / len(cells),
        work=floors.total(floors.dependence(1, int(n), *grid.shape[1:]) for n in mask.sum(axis=1)),
    )
    expected = np.array(plain)
    benchmark.extra_info.update(
        difference=max(
            largest_difference(ours.mean[:n_plain], expected[:, :, 0]),
            largest_difference(ours.sd[:n_plain], expected[:, :, 1]),
        ),
        compared=int(expected[:, :, 0].size),
        failures=int(np.sum(~np.isfinite(ours.mean[: len(cells)]))),
    )


def test_parabolas(compare: Compare, benchmark: Any) -> None:
    n, n_plain, n_runs = 1000, 100, 8
    rng = np.random.default_rng(4)
    x = np.sort(rng.uniform(9, 10.5, (n, n_runs)))
    loss = 3 + rng.uniform(0.05, 0.2, (n, 1)) * (x - rng.uniform(9.4, 10.1, (n, 1))) ** 2 + rng.normal(0, 2e-3, x.shape)
    log_params = 18 - x + rng.normal(0, 1e-3, x.shape)
    mask = np.ones(x.shape, dtype=bool)
    fits, plain = compare(
        "parabolas",
        lambda: fit_parabolas(x, loss, log_params, mask),
        lambda: [baseline.fit_parabola(10 ** x[i], loss[i], 10 ** log_params[i]) for i in range(n_plain)],
        size=f"{n} groups of {n_runs} runs",
        share=n_plain / n,
        work=floors.parabolas(n, n_runs),
    )
    fields = {
        "loss_star": "loss_star",
        "x_star": "logT_star",
        "curvature_under": "a_under",
        "curvature_over": "a_over",
    }
    benchmark.extra_info.update(
        difference=max(
            largest_difference(getattr(fits, field)[:n_plain], [fit[name] for fit in plain])
            for field, name in fields.items()
        ),
        compared=n_plain,
        failures=int(np.sum(~np.isin(fits.status, (Status.FITTED, Status.CLIPPED_TO_EDGE)))),
    )
