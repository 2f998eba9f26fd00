"""Bootstrap of the loss surface against what one would otherwise reach for. Nothing is asserted of times.

The runs are the 88 of the Marin project's nemotron sweep, outliers kept, where they are beside the repository, else 88
simulated ones of the same shape; the size of each benchmark says which.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import curve_fit, least_squares

from benchmarks.measure import worse
from delphi_jax.fit.surface import bootstrap_surface, fit_surface
from delphi_jax.results.surface import SurfaceFit, SurfaceObjective

# curve_fit warns where no covariance can be estimated.
pytestmark = pytest.mark.filterwarnings("ignore")

Compare = Callable[..., tuple[Any, Any]]
Floats = np.ndarray

REAL = Path(__file__).resolve().parents[2] / "shared" / "real" / "isoflops.csv"
NEMOTRON = "marin_202603__nemotron__llama_2"
DRAWS = 1000
SQUARED, HUBER = SurfaceObjective("squared"), SurfaceObjective("huber")


class Problem(NamedTuple):
    """One series, its resamples, and what a peer starts from: N and D in units of their geometric means."""

    source: str
    runs: tuple[Floats, Floats, Floats]
    indices: Floats
    """[DRAWS, n]"""

    def scaled(self) -> tuple[Floats, Floats]:
        return tuple(np.log(column) - np.mean(np.log(column)) for column in self.runs[:2])

    def start(self, fit: SurfaceFit) -> Floats:
        """The estimate's coefficients for the scaled N and D."""
        centers = [np.mean(np.log(column)) for column in self.runs[:2]]
        return np.array([fit.E, fit.A * np.exp(-fit.a * centers[0]), fit.B * np.exp(-fit.b * centers[1]), fit.a, fit.b])


@pytest.fixture(scope="module")
def problem() -> Problem:
    if REAL.is_file():
        with REAL.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["experiment"] == NEMOTRON]
        runs = tuple(np.array([float(row[column]) for row in rows]) for column in ("params", "tokens", "loss"))
        source = "Marin nemotron runs"
    else:
        rng = np.random.default_rng(0)
        params = np.tile(np.geomspace(1.6e8, 1.2e10, 22), 4)
        tokens = np.repeat(np.geomspace(3e18, 3e20, 4), 22) / (6 * params) * rng.lognormal(0, 0.05, 88)
        loss = 2.5 + 2.5e5 / params**0.67 + 3700 / tokens**0.4 + rng.normal(0, 0.025, 88)
        runs, source = (params, tokens, loss), "simulated runs"
    n = len(runs[2])
    return Problem(source, runs, np.random.default_rng(0).integers(0, n, (DRAWS, n)))


def predict(logs: tuple[Floats, Floats], theta: Any) -> Any:
    xp = jnp if isinstance(theta, jax.Array) else np
    E, A, B, a, b = theta
    return E + A * xp.exp(-a * logs[0]) + B * xp.exp(-b * logs[1])


def mean_loss(problem: Problem, theta: Floats, objective: SurfaceObjective, n: int) -> Floats:
    """The objective [n] of the first draws at coefficients [n, 5] for the scaled N and D."""
    logs, loss = problem.scaled(), problem.runs[2]
    size = np.abs(loss - np.array([predict(logs, row) for row in theta]))
    linear = objective.delta * (size - objective.delta / 2)
    values = size**2 if objective is SQUARED else np.where(size <= objective.delta, size**2 / 2, linear)
    return np.array([np.mean(row[rows]) for row, rows in zip(values, problem.indices[:n], strict=True)])


def by_curve_fit(problem: Problem, start: Floats, n: int) -> Floats:
    logs, loss = problem.scaled(), problem.runs[2]

    def of_draw(rows: Floats) -> Floats:
        drawn = tuple(log[rows] for log in logs)
        try:
            return curve_fit(lambda logs, *theta: predict(logs, theta), drawn, loss[rows], start, maxfev=5000)[0]
        except RuntimeError:
            return np.full(5, np.nan)

    return np.array([of_draw(rows) for rows in problem.indices[:n]])


def by_least_squares(problem: Problem, start: Floats, n: int) -> Floats:
    logs, loss = problem.scaled(), problem.runs[2]

    def of_draw(rows: Floats) -> Floats:
        drawn, target = tuple(log[rows] for log in logs), loss[rows]
        settings = {"loss": "huber", "f_scale": HUBER.delta, "max_nfev": 2000, "ftol": 1e-12, "xtol": 1e-12}
        return least_squares(lambda theta: target - predict(drawn, theta), start, gtol=1e-12, **settings).x

    return np.array([of_draw(rows) for rows in problem.indices[:n]])


def bfgs(problem: Problem, unit: float) -> Callable[[Floats], Floats]:
    """All draws at once by Optimistix' BFGS under vmap; its caller has switched 64 bits on.

    The objective is 1e6 times the mean Huber loss, formed from residuals in units of ``unit``. As it is written (1) the
    last draws never meet the stopping rule, for rounding; in units of delta all do.
    """
    optimistix = pytest.importorskip("optimistix", reason="optimistix is not installed")
    logs, loss = (jnp.asarray(values) for values in (problem.scaled(), problem.runs[2]))
    n, delta = len(problem.runs[2]), HUBER.delta / unit
    counts = jnp.asarray(np.array([np.bincount(rows, minlength=n) for rows in problem.indices]) / n)

    def value(theta: jax.Array, weight: jax.Array) -> jax.Array:
        size = jnp.abs(loss - predict(logs, theta)) / unit
        losses = jnp.where(size <= delta, size**2 / 2, delta * (size - delta / 2))
        return 1e6 * unit**2 * jnp.sum(weight * losses)

    def solve(weight: jax.Array, start: jax.Array) -> jax.Array:
        solver = optimistix.BFGS(rtol=1e-10, atol=1e-10)
        return optimistix.minimise(value, solver, start, args=weight, max_steps=2000, throw=False).value

    solve_all = jax.jit(jax.vmap(solve, in_axes=(0, None)))
    return lambda start: np.asarray(solve_all(counts, jnp.asarray(start)))


def measure(
    compare: Compare,
    benchmark: Any,
    problem: Problem,
    objective: SurfaceObjective,
    name: str,
    peer: Callable[[Floats], Floats],
    target: float,
    n: int,
) -> None:
    """Time the bootstrap against ``peer``, which maps a start to coefficients [n, 5] of the first ``n`` draws."""
    start = problem.start(fit_surface(*problem.runs, objective=objective))
    found, plain = compare(
        name,
        lambda: bootstrap_surface(*problem.runs, objective=objective, indices=problem.indices),
        lambda: peer(start),
        size=f"{DRAWS} draws of {len(problem.runs[2])} {problem.source}, {objective.label}",
        share=n / DRAWS,
        target=target,
        kind="peer",
    )
    ours, theirs = found.value[:n], mean_loss(problem, plain, objective, n)
    both = np.isfinite(ours) & np.isfinite(theirs)
    benchmark.extra_info.update(
        worse=worse(ours[both], theirs[both]),
        largest_excess=float(np.max(ours[both] / theirs[both] - 1, initial=0.0)),
        peer_worse=worse(theirs[both], ours[both]),
        peer_largest_excess=float(np.max(theirs[both] / ours[both] - 1, initial=0.0)),
        objective=float(np.mean(found.value[found.used])),
        compared=int(both.sum()),
        failures=int(np.sum(~found.used)),
        peer_failures=int(np.sum(~np.isfinite(theirs))),
    )


def test_squared(compare: Compare, benchmark: Any, problem: Problem) -> None:
    n = 100
    name = "surface bootstrap against curve_fit from the point estimate"
    measure(compare, benchmark, problem, SQUARED, name, lambda start: by_curve_fit(problem, start, n), 8, n)


def test_huber(compare: Compare, benchmark: Any, problem: Problem) -> None:
    n = 4
    name = "surface bootstrap against least_squares from the point estimate"
    measure(compare, benchmark, problem, HUBER, name, lambda start: by_least_squares(problem, start, n), 100, n)


@pytest.mark.parametrize("unit", [1.0, HUBER.delta], ids=["as written", "in units of delta"])
def test_huber_vmapped(
    compare: Compare, benchmark: Any, problem: Problem, unit: float, request: pytest.FixtureRequest
) -> None:
    name = f"surface bootstrap against Optimistix' BFGS under vmap, objective {request.node.callspec.id}"
    with jax.enable_x64(True):
        peer = bfgs(problem, unit)
        peer(problem.start(fit_surface(*problem.runs, objective=HUBER)))
        measure(compare, benchmark, problem, HUBER, name, peer, 3, DRAWS)
