"""Richards curves against the reference, SciPy's bounded least squares and the conditions of an optimum."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import baseline
from delphi_jax.fit import downstream
from delphi_jax.fit.downstream import RichardsProblem, fit_richards, fit_richards_curves
from delphi_jax.formulas import richards_inverse
from delphi_jax.kernels import richards as kernel
from delphi_jax.results import RichardsFit, StudyFit
from delphi_jax.status import Status
from tests.tolerances import REFERENCE, STATIONARY, SUM_OF_SQUARES, TRUTH

BATCH = 32
WIDTH = 24
LIMITS = {"k": (0.1, 50.0), "v": (0.1, 20.0)}


def random_problem(seed: int) -> RichardsProblem:
    """Noisy, partly saturated, partly far from any Richards curve; ceilings free or pinned."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(5, WIDTH + 1))
    floor = float(rng.choice([0.0, 0.25]))
    x = np.sort(rng.uniform(-1.4, -0.2, n))
    truth = (10 ** rng.uniform(0, 1.5), rng.uniform(-1.2, -0.2), 10 ** rng.uniform(-0.7, 1), rng.uniform(0.5, 1.0))
    y = baseline.richards(x, *truth, floor) + 10 ** rng.uniform(-4, -1) * rng.normal(size=n)
    return RichardsProblem(f"seed {seed}", x, y, floor, None if seed % 4 else float(rng.uniform(0.6, 1.0)))


def fit(problems: list[RichardsProblem]) -> list[RichardsFit]:
    """The fits, in batches of one shape."""
    filler = [random_problem(1)] * (-len(problems) % BATCH)
    widest = RichardsProblem("widest", np.linspace(-1, 0, WIDTH), np.linspace(0, 1, WIDTH), 0.0)
    queue, fits = [*problems, *filler], []
    for i in range(0, len(queue), BATCH):
        fits += fit_richards_curves([*queue[i : i + BATCH], widest])[:-1]
    return fits[: len(problems)]


def box(problem: RichardsProblem) -> dict[str, tuple[float, float]]:
    x = np.asarray(problem.x)
    return {
        "k": LIMITS["k"],
        "x0": (x.min() - 2, x.max() + 2),
        "v": LIMITS["v"],
        "ceiling": (problem.floor + 0.05, 1.0) if problem.ceiling is None else (problem.ceiling,) * 2,
    }


def numbers(curve: RichardsFit) -> list[float]:
    return [curve.k, curve.x0, curve.v, curve.ceiling]


@pytest.fixture(scope="module")
def random_fits() -> list[tuple[RichardsProblem, RichardsFit]]:
    problems = [random_problem(seed) for seed in range(5 * BATCH)]
    fits = list(zip(problems, fit(problems), strict=True))
    converged = [(problem, curve) for problem, curve in fits if curve.status is not Status.NOT_CONVERGED]
    assert len(converged) >= 0.99 * len(fits)
    return converged


# Against the reference


def test_reaches_the_reference(golden_fit: StudyFit, golden_numbers: dict[str, Any]) -> None:
    views = {view.task.name: view for view in golden_fit.downstream}
    assert sorted(views) == sorted(golden_numbers["richards"])
    for task, expected in golden_numbers["richards"].items():
        curve = views[task].richards
        np.testing.assert_allclose(curve.x, expected["x"], rtol=REFERENCE)
        np.testing.assert_allclose(curve.y, expected["y"], rtol=REFERENCE)
        assert curve.floor == expected["floor"]
        assert curve.sse <= expected["sse"] * (1 + SUM_OF_SQUARES)
        assert curve.sse <= expected["multistart_best_sse"] * (1 + SUM_OF_SQUARES)
        theirs = baseline.richards(expected["x"], *expected["multistart_best_params_k_x0_v_C"], curve.floor)
        np.testing.assert_allclose(curve.predict(curve.x), theirs, rtol=1e-5, atol=1e-6)
        assert curve.status is Status.FITTED


def test_downstream_follows_the_reference(golden_fit: StudyFit, golden_numbers: dict[str, Any]) -> None:
    """Asymptotes and forecasts rest on the curve: as loose as the reference's own optimum."""
    sources = {"inverted": "inverted", "clamped_to_pool_min": "clamped"}
    checked = 0
    for view in golden_fit.downstream:
        expected = golden_numbers["richards"][view.task.name]
        assert view.asymptote_source == sources[expected["L_inf_branch"]]
        assert view.saturation == pytest.approx(expected["L_inf_candidate"], rel=1e-3)
        assert view.law.L_inf == pytest.approx(expected["L_inf_used"], rel=1e-3)
        law = expected["power_fits"][expected.get("shots", [view.shot]).index(view.shot)]
        np.testing.assert_allclose(view.law.compute, law["C"], rtol=REFERENCE)
        np.testing.assert_allclose(view.law.loss, law["y"], rtol=REFERENCE)
        assert view.forecast_soft == pytest.approx(law["pred"]["1e+25"], rel=1e-3)
        assert view.forecast_hard == pytest.approx(law["acc_1e25"], rel=1e-3)
        checked += 1
    assert checked == 4


# Against SciPy, and the conditions of an optimum


def test_never_ends_above_scipy() -> None:
    """The kernel's own sums, whatever the status: a search that ran out of steps is not behind either."""
    compared = better = 0
    problems = [random_problem(seed) for seed in range(5 * BATCH)]
    arguments = [kernel_arguments(problem, WIDTH, 0.0) for problem in problems]
    sums = kernel.fit_richards(*jax.tree.map(lambda *leaves: np.concatenate(leaves), *arguments)).sse
    for problem, sse in zip(problems, np.asarray(sums), strict=True):
        try:
            expected = baseline.fit_richards(problem.x, problem.y, problem.floor, problem.ceiling)
        except RuntimeError:  # SciPy ran out of evaluations
            continue
        compared += 1
        better += sse < expected["sse"] * (1 - 1e-6)
        assert sse <= expected["sse"] * (1 + SUM_OF_SQUARES), problem.series
    assert compared > 0.95 * len(problems)
    assert better > 0


def test_sum_of_squares_is_that_of_the_returned_parameters(
    random_fits: list[tuple[RichardsProblem, RichardsFit]],
) -> None:
    for problem, curve in random_fits:
        y = baseline.richards(problem.x, *numbers(curve), problem.floor)
        assert curve.sse == pytest.approx(np.sum((problem.y - y) ** 2), rel=REFERENCE)
        np.testing.assert_allclose(curve.predict(problem.x), y, rtol=REFERENCE)
        for name, (low, high) in box(problem).items():
            margin = 1e-12 * (1 + abs(low) + abs(high))
            assert low - margin <= getattr(curve, name) <= high + margin, name


def test_gradient_vanishes_or_a_bound_is_active(random_fits: list[tuple[RichardsProblem, RichardsFit]]) -> None:
    """Derivatives by differences of the slow twin's formula; bounds are named if and only if they are met."""
    names = ("k", "x0", "v", "ceiling")
    hit = set()
    for problem, curve in random_fits:
        assert curve.status is (Status.BOUND_HIT if curve.bounds_hit else Status.FITTED), problem.series
        residual = problem.y - curve.predict(problem.x)
        limits = box(problem)
        for j, name in enumerate(names):
            if name == "ceiling" and problem.ceiling is not None:
                assert name not in curve.bounds_hit
                continue
            value, step = getattr(curve, name), 1e-6 * max(1.0, abs(getattr(curve, name)))
            up, down = numbers(curve), numbers(curve)
            up[j], down[j] = value + step, value - step
            column = (
                baseline.richards(problem.x, *up, problem.floor) - baseline.richards(problem.x, *down, problem.floor)
            ) / (2 * step)
            if not np.linalg.norm(column):
                continue
            cosine = residual @ column / (np.linalg.norm(residual) * np.linalg.norm(column))
            near = [abs(value - end) <= 1e-6 * abs(end) for end in limits[name]]
            assert any(near) == (name in curve.bounds_hit), (problem.series, name)
            if name in curve.bounds_hit:
                hit.add(name)
                # A positive cosine asks for a larger value: allowed on the upper bound only.
                assert (cosine < STATIONARY) if near[0] else (cosine > -STATIONARY), (problem.series, name)
            else:
                assert abs(cosine) < STATIONARY, (problem.series, name, cosine)
    assert hit == set(names)


# Properties


@pytest.mark.parametrize(
    ("truth", "floor"), [((9.0, -0.6, 1.4, 0.82), 0.25), ((14.0, -0.8, 0.4, 0.95), 0.0), ((4.0, -0.5, 5.0, 0.7), 0.0)]
)
def test_recovers_a_known_curve(truth: tuple[float, ...], floor: float) -> None:
    x = np.linspace(-1.6, 0.4, WIDTH)
    y = baseline.richards(x, *truth, floor)
    free, pinned = fit([RichardsProblem("free", x, y, floor), RichardsProblem("pinned", x, y, floor, truth[3])])
    np.testing.assert_allclose(numbers(free), truth, rtol=1e-5)
    np.testing.assert_allclose(numbers(pinned), truth, rtol=1e-5)
    assert max(free.sse, pinned.sse) < 1e-20
    assert free.status is pinned.status is Status.FITTED
    assert pinned.ceiling == truth[3]
    assert (free.ceiling_pinned, pinned.ceiling_pinned) == (False, True)


def test_inverse_undoes_the_curve(random_fits: list[tuple[RichardsProblem, RichardsFit]]) -> None:
    for problem, curve in random_fits:
        y = curve.floor + (curve.ceiling - curve.floor) * np.array([0.2, 0.5, 0.8])
        x = richards_inverse(y, curve.k, curve.x0, curve.v, curve.ceiling, curve.floor)
        np.testing.assert_allclose(curve.predict(x), y, rtol=TRUTH)
        np.testing.assert_allclose(x, baseline.richards_inverse(y, *numbers(curve), problem.floor), rtol=TRUTH)


def test_order_and_neighbours_do_not_matter(random_fits: list[tuple[RichardsProblem, RichardsFit]]) -> None:
    rng = np.random.default_rng(0)
    shuffled = []
    for problem, _ in random_fits[:BATCH]:
        order = rng.permutation(len(problem.x))
        shuffled.append(
            RichardsProblem(problem.series, problem.x[order], problem.y[order], problem.floor, problem.ceiling)
        )
    for (problem, before), after in zip(random_fits[:BATCH], fit(shuffled[::-1])[::-1], strict=True):
        assert after.sse == pytest.approx(before.sse, rel=SUM_OF_SQUARES)
        np.testing.assert_allclose(after.predict(problem.x), before.predict(problem.x), rtol=1e-5, atol=1e-6)
        assert after.bounds_hit == before.bounds_hit


def kernel_arguments(problem: RichardsProblem, width: int, fill: float) -> tuple[Any, ...]:
    n = len(problem.x)
    columns = np.full((2, 1, width), fill)
    columns[:, 0, :n] = problem.x, problem.y
    limits = box(problem)
    ends = {name: tuple(np.array([end]) for end in limits[name]) for name in ("k", "x0", "v")}
    amplitude = tuple(np.array([end - problem.floor]) for end in limits["ceiling"])
    return (
        columns[0],
        columns[1],
        np.arange(width)[None] < n,
        np.array([problem.floor]),
        kernel.RichardsBounds(**ends, amplitude=amplitude),
    )


def test_padding_and_batching_are_invisible_in_value_and_derivative(
    random_fits: list[tuple[RichardsProblem, RichardsFit]],
) -> None:
    problem, batched = next((p, f) for p, f in random_fits if f.status is Status.FITTED and len(p.x) < 16)
    width, n = 16, len(problem.x)
    curves = [kernel.fit_richards(*kernel_arguments(problem, width, fill)) for fill in (np.nan, 0.0, 1e200)]
    for curve in curves:
        for name, left, right in zip(kernel.RichardsCurve._fields, curve, curves[0], strict=True):
            np.testing.assert_array_equal(left, right, err_msg=name)
    assert curves[0].sse[0] == pytest.approx(batched.sse, rel=SUM_OF_SQUARES)
    np.testing.assert_allclose(
        [curves[0].k[0], curves[0].x0[0], curves[0].v[0]], [batched.k, batched.x0, batched.v], rtol=1e-5
    )

    # At a free optimum the sum of squares moves with y as 2*(y - curve): the parameters' own moves do not count.
    x, y, mask, floor, bounds = kernel_arguments(problem, width, np.nan)

    def slope(direction: np.ndarray) -> jax.Array:
        def sse(y: jax.Array) -> jax.Array:
            return kernel.fit_richards.__wrapped__(x, y, mask, floor, bounds).sse[0]

        return jax.jvp(sse, (y,), (direction,))[1]

    expected = np.zeros((1, width))
    expected[0, :n] = 2 * (problem.y - batched.predict(problem.x))
    with jax.enable_x64(True):
        slope = jax.jit(slope)
        assert slope(np.where(mask, 0.0, 1.0)) == 0.0
        for seed in range(3):
            direction = np.random.default_rng(seed).normal(size=(1, width))
            change = np.sum(expected * direction)
            assert slope(direction) == pytest.approx(change, abs=1e-4 * np.abs(expected * direction).sum())


# What the data cannot support


@pytest.mark.parametrize(
    ("x", "y", "ceiling", "hit"),
    [
        (np.r_[np.linspace(-1, -0.505, 6), np.linspace(-0.495, 0, 6)], np.repeat([0.0, 0.8], 6), None, {"k"}),
        (np.linspace(-1, 0, 12), 0.9 + 0.5 * np.linspace(-1, 0, 12), None, {"ceiling"}),
        (np.linspace(-1, 0, 12), np.full(12, 0.01), None, {"ceiling"}),
        (np.linspace(-1, 0, 12), 0.3 + 0.02 * np.linspace(-1, 0, 12), 0.9, {"k"}),
    ],
)
def test_names_the_bounds_that_were_hit(x: Any, y: Any, ceiling: float | None, hit: set[str]) -> None:
    curve = fit([RichardsProblem("bound", x, y, 0.0, ceiling)])[0]
    assert curve.status is Status.BOUND_HIT
    assert hit <= set(curve.bounds_hit)
    assert curve.rows()[0]["on a bound"] == ", ".join(curve.bounds_hit)
    limits = box(RichardsProblem("bound", x, y, 0.0, ceiling))
    for name in curve.bounds_hit:
        assert getattr(curve, name) in (pytest.approx(limits[name][0]), pytest.approx(limits[name][1]))


def test_too_few_points() -> None:
    x, y = np.linspace(-1, 0, 4), np.array([0.1, 0.3, 0.6, 0.8])
    curves = fit([RichardsProblem(str(n), x[:n], y[:n], 0.0) for n in range(5)])
    few = [Status.TOO_FEW_POINTS] * 3
    assert [curve.status for curve in curves[:4]] == [Status.NO_DATA, *few]
    assert curves[4].status in (Status.FITTED, Status.BOUND_HIT)
    for curve in curves[:4]:
        assert np.isnan([*numbers(curve), curve.sse, curve.predict(-0.5)]).all()
        assert not curve.fitted
        assert curve.bounds_hit == ()


def test_says_when_it_did_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_SHORT", 1)
    monkeypatch.setattr(kernel, "LONG", 2)
    monkeypatch.setattr(downstream, "_PATIENT", 3)
    monkeypatch.setattr(kernel, "_PATIENCE", 3)

    patient = kernel.fit_richards.__wrapped__

    @kernel.jit64()
    def hasty(*arguments: Any) -> kernel.RichardsCurve:
        return patient(*arguments)

    monkeypatch.setattr(downstream.kernel, "fit_richards", hasty)
    problem = random_problem(1)
    curve = fit_richards(problem.x, problem.y, floor=problem.floor)
    assert curve.status is Status.NOT_CONVERGED
    assert np.isnan([*numbers(curve), curve.sse]).all()


def test_a_problem_that_is_slow_gets_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [random_problem(seed) for seed in range(6)]
    usual = fit(problems)
    monkeypatch.setattr(kernel, "LONG", 5)
    patient = fit(problems)
    for before, after in zip(usual, patient, strict=True):
        assert after.status in (Status.FITTED, Status.BOUND_HIT)
        assert after.sse == pytest.approx(before.sse, rel=1e-9)


# Wrong arguments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": [0.1, 0.2]}, "one length"),
        ({"x": [[-1.0], [-0.5]], "y": [[0.1], [0.2]]}, "one length"),
        ({"x": [-1, np.nan, -0.5, 0, 1]}, "finite"),
        ({"y": [0.1, np.inf, 0.3, 0.4, 0.5]}, "finite"),
        ({"floor": -0.1}, r"floor must lie in \[0, 0.95\)"),
        ({"floor": 0.95}, r"floor must lie in \[0, 0.95\)"),
        ({"ceiling": 0.25}, r"ceiling must lie in \(0.25, 1\]"),
        ({"ceiling": 1.5}, r"ceiling must lie in \(0.25, 1\]"),
        ({"ceiling": np.nan}, r"ceiling must lie in \(0.25, 1\]"),
    ],
)
def test_refuses_wrong_arguments(change: dict[str, Any], message: str) -> None:
    arguments = {"x": [-1, -0.8, -0.5, 0, 1], "y": [0.1, 0.2, 0.3, 0.4, 0.5], "floor": 0.25} | change
    with pytest.raises(ValueError, match=f"mmlu: .*{message}"):
        fit_richards(arguments.pop("x"), arguments.pop("y"), series="mmlu", **arguments)


def test_nothing_to_fit() -> None:
    assert fit_richards_curves([]) == []
