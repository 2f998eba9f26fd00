"""The law under other objectives against SciPy from many starts, closed forms and one another."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.optimize import least_squares

from delphi_jax.fit.law import fit_law, fit_laws, fit_shared_laws
from delphi_jax.kernels.law_objectives import CHUNK, fit_objective_laws
from delphi_jax.kernels.optimum import OptimalLaw, fit_optimal_laws
from delphi_jax.results.law import Objective
from delphi_jax.status import Status
from tests.tolerances import REFERENCE, ROUNDING, SUM_OF_SQUARES, TRUTH

Points = tuple[np.ndarray, np.ndarray]

OBJECTIVES = [Objective(function, residual) for function in ("squared", "huber") for residual in ("log", "loss")]
NAMES = [objective.label for objective in OBJECTIVES]
WIDTH = 12
BATCH = CHUNK + 4


def series(seed: int, L_inf: float | None = None) -> Points:
    """(compute FLOPs, loss) of a law with noise of heavy tails, 4 to 10 points."""
    rng = np.random.default_rng(seed)
    n = rng.integers(4, 11)
    C = np.geomspace(1e18, 1e21, n) if seed % 2 else np.sort(10 ** rng.uniform(18, 21, n))
    asymptote = rng.uniform(0, 2) if L_inf is None else L_inf
    fall = rng.uniform(0.3, 3) * (C / 1e20) ** -rng.uniform(0.03, 0.4)
    return C, (asymptote + fall) * np.exp(10 ** rng.uniform(-3.5, -1.5) * rng.standard_t(3, size=n))


def fit(
    groups: list[list[Points]], objective: Objective, pinned: float | np.ndarray = np.nan, fill: float = np.nan
) -> OptimalLaw:
    """Fields [B, S]; filled up with the first group, so that one compiled program serves most tests."""
    n_groups = len(groups)
    pinned = np.resize(pinned, n_groups)
    if n_groups > 1:
        pinned = np.append(pinned, np.full(BATCH - n_groups, pinned[0]))
        groups = groups + [groups[0]] * (BATCH - n_groups)
    columns = np.full((3, len(groups), max(map(len, groups)), WIDTH), fill)
    columns[2] = 0.0
    for i, group in enumerate(groups):
        for j, (C, L) in enumerate(group):
            columns[:, i, j, : len(C)] = np.log(C), L, np.ones(len(C))
    settings = {"huber": objective.huber, "of_loss": objective.of_loss}
    laws = fit_objective_laws(*columns, pinned.astype(float), objective.delta, **settings)
    return OptimalLaw(*(field[:n_groups] for field in jax.device_get(laws)))


def residuals(group: list[Points], parameters: np.ndarray, objective: Objective) -> list[np.ndarray]:
    """Of every series, at (L_inf, then log of the fall at the mean log C and alpha for each)."""
    found = []
    for (C, L), height, alpha in zip(group, parameters[1::2], parameters[2::2], strict=True):
        log_fall = np.clip(height - alpha * (np.log(C) - np.log(C).mean()), -300, 300)
        with np.errstate(invalid="ignore"):
            found.append(
                L - parameters[0] - np.exp(log_fall) if objective.of_loss else np.log(L - parameters[0]) - log_fall
            )
    return found


def value(group: list[Points], parameters: np.ndarray, objective: Objective) -> float:
    """The mean loss function of all points, times the number of series."""
    r = np.concatenate(residuals(group, parameters, objective))
    size, delta = np.abs(r), objective.delta
    function = np.where(size <= delta, r**2 / 2, delta * (size - delta / 2)) if objective.huber else r**2
    return len(group) * float(np.mean(function))


def many_starts(group: list[Points], objective: Objective, n_starts: int, seed: int = 0) -> float:
    """The least value that SciPy's least_squares reaches."""
    rng = np.random.default_rng(seed)
    smallest = min(L.min() for _, L in group)
    highest = np.inf if objective.of_loss else smallest * (1 - 1e-9)
    bounds = [0.0, *[-np.inf, 0.0] * len(group)], [highest, *[np.inf] * 2 * len(group)]
    best = np.inf
    for _ in range(n_starts):
        start = [smallest * (1 - 10 ** rng.uniform(-2.5, 0))]
        for C, L in group:
            alpha = 10 ** rng.uniform(-2, 0)
            start += [float(np.median(np.log(L - start[0]) + alpha * (np.log(C) - np.log(C).mean()))), alpha]
        found = least_squares(
            lambda p: np.concatenate(residuals(group, p, objective)),
            start,
            bounds=bounds,
            loss="huber" if objective.huber else "linear",
            f_scale=objective.delta,
            **dict.fromkeys(("xtol", "ftol", "gtol"), 1e-15),
            max_nfev=200,
        )
        best = min(best, value(group, found.x, objective))
    return best


def parameters_of(law: OptimalLaw, i: int, group: list[Points]) -> np.ndarray:
    means = [np.log(C).mean() for C, _ in group]
    lines = [(law.log_A[i, j] - law.alpha[i, j] * mean, law.alpha[i, j]) for j, mean in enumerate(means)]
    return np.array([law.L_inf[i, 0], *np.ravel(lines)])


# Against independent optima


@pytest.mark.parametrize("objective", OBJECTIVES, ids=NAMES)
def test_never_above_the_best_of_many_starts(objective: Objective) -> None:
    groups = [[series(seed)] for seed in range(6)]
    laws = fit(groups, objective)
    for i, group in enumerate(groups):
        assert laws.status[i, 0] in (Status.FITTED, Status.BOUND_HIT)
        assert laws.score[i, 0] == pytest.approx(value(group, parameters_of(laws, i, group), objective), rel=TRUTH)
        assert laws.score[i, 0] <= many_starts(group, objective, 8) * (1 + SUM_OF_SQUARES)
        assert laws.status[i, 0] == Status.BOUND_HIT or abs(laws.gradient[i, 0]) < 1e-9


@pytest.mark.parametrize("objective", OBJECTIVES, ids=NAMES)
def test_a_shared_asymptote_is_never_above_the_best_of_many_starts(objective: Objective) -> None:
    group = [(C, L) for C, L in (series(seed, L_inf=1.2) for seed in (1, 3, 21)) if len(C) > 4][:2]
    group[0] = tuple(column[:4] for column in group[0])
    n = np.array([len(C) for C, _ in group])
    laws = fit([group], objective)
    assert laws.L_inf[0, 0] == laws.L_inf[0, 1]
    reached = value(group, parameters_of(laws, 0, group), objective)
    assert 2 * n @ laws.score[0] / n.sum() == pytest.approx(reached, rel=TRUTH)
    assert n[0] < n[1]
    if laws.status[0, 0] == Status.FITTED:
        assert abs(laws.gradient[0, 0]) < 1e-6
    assert reached <= many_starts(group, objective, 5) * (1 + SUM_OF_SQUARES)


def test_squared_log_residuals_are_those_of_the_other_kernel() -> None:
    groups = [[series(seed)] for seed in range(BATCH)]
    columns = np.zeros((3, BATCH, WIDTH))
    for i, ((C, L),) in enumerate(groups):
        columns[:, i, : len(C)] = np.log(C), L, np.ones(len(C))
    laws, expected = fit(groups, Objective()), jax.device_get(fit_optimal_laws(*columns, np.full(BATCH, np.nan)))
    np.testing.assert_array_equal(laws.status[:, 0], expected.status)
    np.testing.assert_allclose(laws.score[:, 0], expected.score, rtol=REFERENCE, atol=1e-24)
    np.testing.assert_allclose(laws.L_inf[:, 0], expected.L_inf, rtol=TRUTH, atol=1e-9)


@pytest.mark.parametrize("residual", ["log", "loss"])
def test_a_large_delta_makes_half_the_square(residual: str) -> None:
    groups = [[series(seed)] for seed in range(20)]
    squared, huber = fit(groups, Objective("squared", residual)), fit(groups, Objective("huber", residual, 1e3))
    np.testing.assert_allclose(2 * huber.score, squared.score, rtol=TRUTH, atol=1e-24)
    np.testing.assert_allclose(huber.L_inf, squared.L_inf, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("residual", ["log", "loss"])
def test_a_small_delta_passes_through_three_points(residual: str) -> None:
    """Least absolute deviations of three parameters, which Huber's function comes to (Koenker & Bassett 1978)."""
    groups = [[series(seed)] for seed in range(11, 19)]
    objective = Objective("huber", residual, 1e-9)
    laws = fit(groups, objective)
    for i in np.flatnonzero(laws.status[:, 0] == Status.FITTED):
        r = np.abs(np.concatenate(residuals(groups[i], parameters_of(laws, i, groups[i]), objective)))
        assert np.sum(r < 1e-8) >= 3


# Truth


@pytest.mark.parametrize("objective", OBJECTIVES, ids=NAMES)
def test_recovers_noiseless_laws(objective: Objective) -> None:
    C = np.geomspace(1e18, 1e21, 8)
    truths = [(L_inf, alpha) for L_inf in (0.3, 1.7) for alpha in (0.05, 0.15, 0.5)]
    laws = fit([[(C, L_inf + 2.0 * (C / 1e20) ** -alpha)] for L_inf, alpha in truths], objective)
    L_inf, alpha = np.array(truths).T
    np.testing.assert_allclose(laws.L_inf[:, 0], L_inf, rtol=TRUTH)
    np.testing.assert_allclose(laws.alpha[:, 0], alpha, rtol=TRUTH)
    np.testing.assert_allclose(laws.log_A[:, 0], np.log(2.0) + alpha * np.log(1e20), rtol=TRUTH)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=NAMES)
def test_recovers_noiseless_laws_that_share_their_asymptote(objective: Objective) -> None:
    C = np.geomspace(1e18, 1e21, 8)
    laws = fit([[(C, 1.4 + 2.0 * (C / 1e20) ** -0.1), (C, 1.4 + 3.0 * (C / 1e20) ** -0.2)]], objective)
    np.testing.assert_allclose(laws.L_inf, [[1.4, 1.4]], rtol=TRUTH)
    np.testing.assert_allclose(laws.alpha, [[0.1, 0.2]], rtol=TRUTH)


def test_one_outlier_moves_huber_little() -> None:
    C = np.geomspace(1e18, 1e21, 8)
    L = 1.5 + 2.0 * (C / 1e20) ** -0.15
    L[4] += 0.2
    for residual in ("log", "loss"):
        huber, squared = (
            fit_law(C, L, method="optimum", objective=Objective(f, residual, 1e-5)) for f in ("huber", "squared")
        )
        assert huber.L_inf == pytest.approx(1.5, rel=1e-3)
        assert abs(squared.L_inf - 1.5) > 100 * abs(huber.L_inf - 1.5)


# Properties


@pytest.mark.parametrize("objective", OBJECTIVES, ids=NAMES)
def test_pinned_to_its_own_optimum_a_law_stays(objective: Objective) -> None:
    groups = [[series(seed)] for seed in range(20)]
    free = fit(groups, objective)
    inside = [i for i, ((_, L),) in enumerate(groups) if free.L_inf[i, 0] < L.min()]
    pinned = fit([groups[i] for i in inside], objective, free.L_inf[inside, 0])
    np.testing.assert_allclose(pinned.score[:, 0], free.score[inside, 0], rtol=1e-6, atol=1e-20)
    np.testing.assert_array_equal(pinned.L_inf[:, 0], free.L_inf[inside, 0])
    above = fit([groups[i] for i in inside], objective, 0.9 * free.L_inf[inside, 0])
    assert np.all(above.score[:, 0] >= free.score[inside, 0] * (1 - REFERENCE))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=NAMES)
def test_moved_budgets_and_scaled_losses(objective: Objective) -> None:
    groups = [[series(seed)] for seed in range(10)]
    before = fit(groups, objective)
    moved = fit([[(C * 1e3, L)] for ((C, L),) in groups], objective)
    np.testing.assert_allclose(moved.L_inf, before.L_inf, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(moved.score, before.score, rtol=TRUTH, atol=1e-20)
    scale = 1.0 if objective.huber and not objective.of_loss else 3.0
    delta = scale * objective.delta if objective.of_loss else objective.delta
    scaled = fit(
        [[(C, 3.0 * L)] for ((C, L),) in groups], Objective(objective.loss_function, objective.residual, delta)
    )
    np.testing.assert_allclose(scaled.L_inf, 3.0 * before.L_inf, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(scaled.alpha, before.alpha, rtol=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES[1:], ids=NAMES[1:])
def test_batch_padding_and_order_do_not_matter(objective: Objective) -> None:
    groups = [[series(seed)] for seed in range(BATCH)]
    together = fit(groups, objective)
    reversed_points = fit([[(C[::-1], L[::-1])] for ((C, L),) in groups], objective, fill=-3.0)
    for name, left, right in zip(OptimalLaw._fields[:-2], together, reversed_points, strict=False):
        np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-9, err_msg=name)
    for i in (0, BATCH - 1):
        alone = fit([groups[i]], objective)
        np.testing.assert_allclose(alone.score[0], together.score[i], rtol=10 * ROUNDING)
        np.testing.assert_allclose(alone.L_inf[0], together.L_inf[i], rtol=REFERENCE, atol=1e-12)


# What the data cannot support


@pytest.mark.parametrize("objective", OBJECTIVES, ids=NAMES)
def test_statuses(objective: Objective) -> None:
    C = np.array([1e18, 1e19, 1e20, 1e21])
    falling = np.array([3.0, 2.5, 2.2, 2.05])
    laws = fit_laws(
        {
            "fitted": (C, falling),
            "no asymptote": (C, np.array([4.0, 2.0, 1.0, 0.4])),
            "rising": (C, falling[::-1]),
            "flat": (C, np.full(4, 2.5)),
            "two budgets": (C[[0, 0, 1, 1]], falling),
            "empty": ([], []),
        },
        method="optimum",
        objective=objective,
    )
    assert {name: law.status for name, law in laws.items()} == {
        "fitted": Status.FITTED,
        "no asymptote": Status.BOUND_HIT,
        "rising": Status.LOSS_DOES_NOT_FALL,
        "flat": Status.LOSS_DOES_NOT_FALL,
        "two budgets": Status.TOO_FEW_POINTS,
        "empty": Status.NO_DATA,
    }
    for law in laws.values():
        numbers = [law.L_inf, law.A, law.alpha, law.score, law.loss_at(1e22)]
        assert np.isfinite(numbers).all() if law.fitted else np.isnan(numbers).all()
    assert laws["no asymptote"].L_inf == 0.0
    pinned = fit_law(C, falling, L_inf=2.05, method="optimum", objective=objective)
    assert (pinned.status, pinned.L_inf) == (Status.ASYMPTOTE_ABOVE_LOSS, 2.05)
    short = fit_law(C[:2], falling[:2], L_inf=1.0, method="optimum", objective=objective)
    assert short.status is Status.FITTED and short.loss_at(C[1]) == pytest.approx(2.5, rel=TRUTH)


@pytest.mark.parametrize("objective", OBJECTIVES[:2], ids=NAMES[:2])
def test_shared_statuses(objective: Objective) -> None:
    C = np.array([1e18, 1e19, 1e20, 1e21])
    falling = np.array([3.0, 2.5, 2.2, 2.05])
    settings = {"method": "optimum", "objective": objective}
    both = fit_shared_laws({"one": (C, falling), "empty": ([], []), "other": (C[:3], falling[:3] + 0.1)}, **settings)
    assert [law.status for law in both.values()] == [Status.FITTED, Status.NO_DATA, Status.FITTED]
    assert both["one"].L_inf == both["other"].L_inf
    none = {"empty": ([], [])}
    rising = fit_shared_laws(none | {"one": (C, falling), "rising": (C, falling[::-1])}, **settings)
    assert {law.status for law in rising.values()} == {Status.NO_DATA, Status.LOSS_DOES_NOT_FALL}
    few = fit_shared_laws(none | {"one": (C[:2], falling[:2]), "other": (C[:2], falling[1:3])}, **settings)
    assert {law.status for law in few.values()} == {Status.NO_DATA, Status.TOO_FEW_POINTS}
