"""Smoothing splines of IsoFLOP valleys against SciPy and dense linear algebra, and tests of what a parabola misses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.interpolate import BSpline, make_smoothing_spline
from scipy.optimize import minimize_scalar

from delphi_jax.kernels.lack_of_fit import Terms, explain_terms, f_tail
from delphi_jax.kernels.valley import INFLATION, LEAST_POINTS, Valley, fit_valleys
from delphi_jax.status import Status
from tests.tolerances import REFERENCE, ROUNDING, TRUTH

WIDTH = 16
GROUPS = 24
Group = tuple[np.ndarray, np.ndarray, np.ndarray]

SMOOTHING = 1e-5
"""Relative, of a smoothing spline of SciPy at this smoothing: its system has the square of the condition number."""


def noisy_group(seed: int, least: int = 5, weighted: bool = True) -> Group:
    """log10 tokens, loss and weight of a lopsided valley with its minimum inside."""
    rng = np.random.default_rng(seed)
    x = rng.permutation(np.sort(rng.uniform(9.0, 10.4, rng.integers(least, WIDTH + 1))))
    d = x - rng.uniform(9.5, 9.9)
    loss = 3 + 0.2 * d**2 + 0.1 * d**3 + 0.004 * rng.normal(size=x.size)
    return x, loss, rng.uniform(0.5, 2.0, x.size) if weighted else np.ones(x.size)


def padded(groups: list[Group], fill: float = 0.0, width: int = WIDTH) -> list[np.ndarray]:
    """x, loss, log params and weight [GROUPS, P], padded values set to ``fill``, weights to 0; one shape for all."""
    arrays = [np.full((GROUPS, width), fill) for _ in range(3)] + [np.zeros((GROUPS, width))]
    for i, (x, loss, weight) in enumerate(groups):
        for array, column in zip(arrays, (x, loss, 17.9 - 1.02 * x, weight), strict=True):
            array[i, : len(x)] = column
    return arrays


def fit(groups: list[Group], inflation: float = INFLATION, fill: float = 0.0, width: int = WIDTH) -> Valley:
    """The batched kernel within the observed ranges, fields cut to the given groups."""
    found = fit_valleys(*padded(groups, fill, width), *ends(groups), np.full(GROUPS, inflation))
    return Valley(*(np.asarray(field)[: len(groups)] for field in found))


def ends(groups: list[Group]) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest x [GROUPS] of every group; 0 and 1 where there is none."""
    low, high = np.zeros(GROUPS), np.ones(GROUPS)
    for i, (x, _, _) in enumerate(groups):
        if x.size:
            low[i], high[i] = x.min(), x.max()
    return low, high


def pick(found: Valley, i: int) -> Valley:
    return Valley(*(field[i] for field in found))


class Dense:
    """The spline of one group by eigenvalues of a dense kernel matrix (Wahba 1990, chapter 1): another way there.

    f = polynomial of degree 2 + sum c_i |x - x_i|^3/12 with c orthogonal to the polynomials.
    """

    def __init__(self, x: np.ndarray, loss: np.ndarray, weight: np.ndarray) -> None:
        self.x, place = np.unique(x, return_inverse=True)
        self.weight = np.bincount(place, weight)
        self.loss = np.bincount(place, weight * loss) / self.weight
        self.middle = self.x.mean()
        self.powers = np.vander(self.x - self.middle, 3)
        root = np.sqrt(self.weight)
        left = np.linalg.svd(root[:, None] * self.powers)[0][:, 3:]
        self.values, vectors = np.linalg.eigh(left.T @ (root[:, None] * self._kernel(self.x) * root) @ left)
        self.basis = left @ vectors
        self.z = self.basis.T @ (root * self.loss)
        self.root = root

    def _kernel(self, x: np.ndarray) -> np.ndarray:
        return np.abs(x[:, None] - self.x) ** 3 / 12

    def freedom(self, smoothing: float) -> float:
        return 3 + float(np.sum(self.values / (self.values + smoothing)))

    def score(self, smoothing: float, inflation: float) -> float:
        """As the kernel's: weights of mean 1."""
        squares = np.sum((smoothing * self.z / (self.values + smoothing)) ** 2) / self.weight.mean()
        spare = len(self.x) - inflation * self.freedom(smoothing)
        return len(self.x) * squares / spare**2 if spare > 0 else np.inf

    def at(self, x: np.ndarray, smoothing: float) -> np.ndarray:
        c = self.root * (self.basis @ (self.z / (self.values + smoothing)))
        smooth = self.loss - smoothing * c / self.weight
        polynomial = np.linalg.lstsq(self.powers, smooth - self._kernel(self.x) @ c, rcond=None)[0]
        x = np.atleast_1d(x)
        return self._kernel(x) @ c + np.vander(x - self.middle, 3) @ polynomial


def lowest(f: object, low: float, high: float) -> tuple[float, float]:
    """The lowest point of ``f`` in [low, high], by a fine grid and Brent's method."""
    grid = np.linspace(low, high, 4001)
    values = f(grid)
    k = int(np.argmin(values))
    ends = grid[max(k - 1, 0)], grid[min(k + 1, len(grid) - 1)]
    best = minimize_scalar(lambda x: float(f(np.array([x]))[0]), bounds=ends, options={"xatol": 1e-12})
    candidates = [(values[k], grid[k]), (best.fun, best.x)]
    return min(candidates)[::-1]


def test_equals_dense_linear_algebra() -> None:
    groups = [noisy_group(seed) for seed in range(GROUPS)]
    found = fit(groups)
    free = 0
    for i, group in enumerate(groups):
        here, dense = pick(found, i), Dense(*group)
        assert here.status == Status.FITTED
        assert here.freedom == pytest.approx(dense.freedom(here.smoothing), rel=1e-6)
        assert here.score == pytest.approx(dense.score(here.smoothing, INFLATION), rel=1e-6)
        x_star, loss_star = lowest(lambda x, d=dense, s=here.smoothing: d.at(x, s), group[0].min(), group[0].max())
        assert here.loss_star == pytest.approx(loss_star, rel=TRUTH)
        assert here.x_star == pytest.approx(x_star, abs=1e-5)
        assert here.log_params_star == pytest.approx(17.9 - 1.02 * here.x_star, rel=ROUNDING)
        free += here.freedom > 3.01
    assert 5 < free < GROUPS


@pytest.mark.parametrize("inflation", [1.0, INFLATION])
def test_the_score_is_the_lowest_of_all_smoothings(inflation: float) -> None:
    groups = [noisy_group(seed) for seed in range(GROUPS)]
    found = fit(groups, inflation)
    for i, group in enumerate(groups):
        dense = Dense(*group)
        # The same range, in the units of x.
        unit = np.ptp(group[0]) ** 3 / 8 * dense.weight.mean()
        least = min(dense.score(smoothing * unit, inflation) for smoothing in np.geomspace(1e-8, 1e4, 2000))
        assert found.score[i] <= least * (1 + 1e-5)


def test_equals_scipy_around_the_parabola_inside() -> None:
    """What is left of the losses beside a*x^2 has SciPy's weighted smoothing spline, and a is the best there is."""
    groups = [noisy_group(seed) for seed in range(GROUPS)]
    found = fit(groups)
    compared = 0
    for i, group in enumerate(groups):
        here, order = pick(found, i), np.argsort(group[0])
        # SciPy's system loses its digits where the smoothing is large.
        if here.freedom < 3.01:
            continue
        around = Around(*(column[order] for column in group), float(here.smoothing))
        x_star, loss_star = lowest(lambda x, f=around, a=here.a: f.at(x, a), group[0].min(), group[0].max())
        assert here.x_star == pytest.approx(x_star, abs=SMOOTHING)
        assert here.loss_star == pytest.approx(loss_star, rel=REFERENCE)
        assert around.objective(here.a) < min(around.objective(here.a * 1.02), around.objective(here.a * 0.98))
        compared += 1
    assert compared > 5


class Around:
    """SciPy's smoothing spline around a given parabola."""

    def __init__(self, x: np.ndarray, loss: np.ndarray, weight: np.ndarray, smoothing: float) -> None:
        self.x, self.loss, self.weight, self.smoothing = x, loss, weight, smoothing

    def spline(self, a: float) -> BSpline:
        return make_smoothing_spline(self.x, self.loss - a * (self.x - 9.7) ** 2, self.weight, lam=self.smoothing)

    def at(self, x: np.ndarray, a: float) -> np.ndarray:
        return self.spline(a)(x) + a * (x - 9.7) ** 2

    def objective(self, a: float) -> float:
        """The penalised sum of squares."""
        fine = np.linspace(self.x[0], self.x[-1], 4001)
        bend = np.trapezoid(self.spline(a).derivative(2)(fine) ** 2, fine)
        return float(np.sum(self.weight * (self.loss - self.at(self.x, a)) ** 2) + self.smoothing * bend)


def test_noiseless_parabolas_are_recovered() -> None:
    x = np.linspace(9.0, 10.3, 9)
    vertices = np.array([9.2, 9.65, 10.1])
    found = fit([(x, 2.9 + 0.31 * (x - vertex) ** 2, np.ones(9)) for vertex in vertices])
    np.testing.assert_allclose(found.x_star, vertices, rtol=TRUTH)
    np.testing.assert_allclose(found.loss_star, 2.9, rtol=TRUTH)
    np.testing.assert_allclose(found.a, 0.31, rtol=1e-6)
    assert (found.status == Status.FITTED).all()


def test_is_nearer_to_a_lopsided_valleys_optimum_than_the_parabola() -> None:
    """L = E + P exp(p d) + Q exp(-q d) with p != q has its minimum where P p exp(p d) = Q q exp(-q d)."""
    p, q = 0.68 * np.log(10), 0.44 * np.log(10)
    x = np.linspace(9.0, 11.0, 15)
    loss = 2.5 + 0.3 * np.exp(p * (x - 10)) / p + 0.3 * np.exp(-q * (x - 10)) / q
    found = pick(fit([(x, loss, np.ones(15))]), 0)
    parabola = np.polynomial.Polynomial.fit(x, loss, 2).convert().coef
    missed = -parabola[1] / (2 * parabola[2]) - 10
    assert missed < -0.05
    assert abs(found.x_star - 10) < 0.05 * abs(missed)


def test_runs_of_the_same_tokens_are_one_point_with_their_weights() -> None:
    x, loss, weight = (column[:12] for column in noisy_group(3, least=13))
    doubled = np.concatenate([x, x[:3]]), np.concatenate([loss, loss[:3] + 0.01]), np.concatenate([weight, weight[:3]])
    merged = loss.copy()
    merged[:3] += 0.005
    factor = np.ones(x.size)
    factor[:3] = 2.0
    one, other = (pick(fit([group]), 0) for group in (doubled, (x, merged, weight * factor)))
    for name in ("x_star", "loss_star", "smoothing", "freedom", "score"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=TRUTH), name


@pytest.mark.parametrize("fill", [np.nan, np.inf, -1e300])
def test_padding_is_invisible(fill: float) -> None:
    groups = [noisy_group(seed) for seed in range(8)]
    plain = fit(groups)
    width = WIDTH if np.isnan(fill) else WIDTH + 8
    for other in (fit(groups, fill=fill), fit(groups, fill=fill, width=width)):
        for name, left, right in zip(Valley._fields, other, plain, strict=True):
            np.testing.assert_allclose(left, right, rtol=TRUTH, err_msg=name)


def test_order_batch_and_units_do_not_matter() -> None:
    groups = [noisy_group(seed) for seed in range(GROUPS)]
    batched = fit(groups)
    # More groups than are computed at once.
    tiled = [np.tile(column, (3, 1)) for column in padded(groups)] + [np.tile(end, 3) for end in ends(groups)]
    many = fit_valleys(*tiled, np.full(3 * GROUPS, INFLATION))
    for left, right in zip(many, batched, strict=True):
        np.testing.assert_allclose(left, np.tile(right, 3), rtol=TRUTH)
    for i in (0, GROUPS - 1):
        alone = pick(fit([groups[i]]), 0)
        x, loss, weight = (column[::-1] for column in groups[i])
        turned = pick(fit([(x, loss, weight)]), 0)
        heavier = pick(fit([(x + 1.0, 3 * loss - 2, 5 * weight)]), 0)
        for name in ("x_star", "loss_star", "smoothing", "freedom"):
            assert getattr(alone, name) == pytest.approx(getattr(batched, name)[i], rel=TRUTH), name
            assert getattr(turned, name) == pytest.approx(getattr(alone, name), rel=TRUTH), name
        assert heavier.x_star == pytest.approx(alone.x_star + 1.0, rel=TRUTH)
        assert heavier.loss_star == pytest.approx(3 * alone.loss_star - 2, rel=TRUTH)
        assert heavier.freedom == pytest.approx(alone.freedom, rel=1e-6)
        assert heavier.smoothing == pytest.approx(5 * alone.smoothing, rel=1e-6)


def test_statuses() -> None:
    x = np.linspace(9.0, 10.0, 8)
    ones = np.ones(8)
    falling, hill = 3 - 0.3 * (x - 9), 3 - 0.3 * (x - 9.6) ** 2
    bowl = 3 + 0.3 * (x - 9.4) ** 2
    two, empty = (x[:2], bowl[:2], ones[:2]), (np.empty(0),) * 3
    doubled = tuple(np.tile(column, 2) for column in two)
    found = fit([(x, falling, ones), (x, hill, ones), two, doubled, empty, (x, bowl, ones)])
    edge, short = Status.CLIPPED_TO_EDGE, Status.TOO_FEW_POINTS
    assert found.status.tolist() == [edge, edge, short, short, short, Status.FITTED]
    assert found.x_star[:2].tolist() == [10.0, 9.0]
    np.testing.assert_allclose(found.loss_star[:2], [2.7, 3 - 0.3 * 0.36], rtol=TRUTH)


@pytest.mark.parametrize("n", [3, 4])
def test_too_few_points_to_choose_from_have_the_parabola(n: int) -> None:
    x = np.array([9.0, 9.3, 9.9, 10.1])[:n]
    loss = 3 + 0.2 * (x - 9.6) ** 2 + np.array([0.01, -0.01, 0.005, 0.0])[:n]
    found = pick(fit([(x, loss, np.ones(n))]), 0)
    a, b, _ = np.polyfit(x, loss, 2)
    assert found.status == Status.FITTED
    assert found.freedom == pytest.approx(3.0, abs=1e-5)
    assert found.x_star == pytest.approx(-b / (2 * a), rel=1e-6)


def test_a_resample_may_turn_beyond_its_points() -> None:
    """Points on one side of the minimum alone: beyond them the spline goes on as a parabola, as far as it is asked."""
    groups = [noisy_group(seed, least=9, weighted=False) for seed in range(GROUPS)]
    whole, columns = fit(groups), padded(groups)
    columns[3][:] = np.where(columns[0] < whole.x_star[:, None] - 0.05, columns[3], 0.0)
    wide = np.full(GROUPS, 8.5), np.full(GROUPS, 10.9)
    half = Valley(*map(np.asarray, fit_valleys(*columns, *wide, np.full(GROUPS, INFLATION))))
    turned = 0
    for i in range(GROUPS):
        kept = columns[3][i] > 0
        if len(np.unique(columns[0][i, kept])) < LEAST_POINTS:
            assert half.status[i] == Status.TOO_FEW_POINTS
            continue
        dense = Dense(columns[0][i, kept], columns[1][i, kept], columns[3][i, kept])
        _, loss_star = lowest(lambda x, d=dense, s=half.smoothing[i]: d.at(x, s), 8.5, 10.9)
        assert half.loss_star[i] == pytest.approx(loss_star, rel=1e-6)
        turned += half.status[i] == Status.FITTED and half.x_star[i] > columns[0][i, kept].max()
    assert turned > 3


def polynomial_squares(x: np.ndarray, loss: np.ndarray, degree: int) -> float:
    fitted = np.polynomial.Polynomial.fit(x, loss, degree)
    return float(np.sum((loss - fitted(x)) ** 2))


def test_terms_beyond_the_parabola_are_f_tests() -> None:
    groups = [noisy_group(seed, least=3, weighted=False) for seed in range(GROUPS)]
    x, loss, _, weight = padded(groups, np.nan)
    terms = Terms(*map(np.asarray, explain_terms(x, loss, weight > 0)))
    p_value = np.asarray(f_tail(terms.explained, terms.left, np.ones((GROUPS, 2)), terms.freedom))
    tested = 0
    for i, (x, loss, _) in enumerate(groups):
        for place, degree in enumerate((3, 4)):
            freedom = x.size - degree - 1
            assert terms.freedom[i, place] == max(freedom, 0)
            if freedom < 1:
                assert np.isnan(p_value[i, place])
                continue
            lower, higher = (polynomial_squares(x, loss, d) for d in (degree - 1, degree))
            expected = stats.f.sf((lower - higher) / (higher / freedom), 1, freedom)
            assert p_value[i, place] == pytest.approx(expected, rel=1e-6)
            leading = np.polynomial.Polynomial.fit(x, loss, degree).convert().coef[degree]
            assert terms.sign[i, place] == np.sign(leading)
            tested += 1
    assert tested > GROUPS


def test_terms_of_several_groups_together() -> None:
    rng = np.random.default_rng(1)
    explained, left = rng.chisquare(4, 6), rng.chisquare(30, 6)
    found = f_tail(explained, left, np.full(6, 4.0), np.full(6, 30.0))
    np.testing.assert_allclose(found, stats.f.sf((explained / 4) / (left / 30), 4, 30), rtol=1e-10)


def test_terms_need_distinct_points() -> None:
    x = np.repeat([9.0, 9.3, 10.0], 4)[None, :8]
    terms = Terms(*map(np.asarray, explain_terms(x, np.arange(8.0)[None], np.ones((1, 8), dtype=bool))))
    assert (terms.freedom == 0).all()
    assert np.isnan(f_tail(terms.explained, terms.left, np.ones((1, 2)), terms.freedom)).all()


def test_residuals_of_rounding_size_are_no_evidence() -> None:
    rng = np.random.default_rng(4)
    x = rng.uniform(9.0, 10.5, (200, 12))
    bowls = 3 + 0.3 * (x - rng.uniform(9.0, 10.0, (200, 1))) ** 2
    terms = explain_terms(x, bowls, np.ones_like(x, dtype=bool))
    p_value = np.asarray(f_tail(terms.explained, terms.left, np.ones((200, 2)), np.asarray(terms.freedom)))
    assert (p_value > 0.5).all()


def test_the_tests_have_their_size() -> None:
    """On parabolas with even noise, one in twenty is below 0.05: within four standard errors."""
    rng = np.random.default_rng(2)
    n = 4000
    x = np.tile(np.linspace(9.0, 10.5, 9), (n, 1))
    loss = 3 + 0.2 * (x - 9.7) ** 2 + 0.01 * rng.normal(size=x.shape)
    terms = explain_terms(x, loss, np.ones_like(x, dtype=bool))
    p_value = np.asarray(f_tail(terms.explained, terms.left, np.ones((n, 2)), np.asarray(terms.freedom)))
    error = np.sqrt(0.05 * 0.95 / n)
    np.testing.assert_allclose(np.mean(p_value < 0.05, axis=0), 0.05, atol=4 * error)
