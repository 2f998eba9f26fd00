"""Power laws with a free, shared or pinned asymptote against the reference and a loop over the grid."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import baseline
from delphi_jax.fit.law import bootstrap_law, fit_law, fit_laws, fit_shared_laws
from delphi_jax.kernels.power_law import PowerLaw, fit_free_laws, fit_pinned_laws, fit_shared_law
from delphi_jax.results import LawFit, StudyFit
from delphi_jax.status import Status
from tests.tolerances import REFERENCE, ROUNDING, TRUTH, assert_scores_match

Points = tuple[np.ndarray, np.ndarray]

N_GRID = 100
N_SERIES = 40
WIDTH = 16


def noisy_series(seed: int, noise: float = 0.003) -> Points:
    """(compute FLOPs, loss) of a law with noise; 2 to WIDTH points."""
    rng = np.random.default_rng(seed)
    C = np.sort(10 ** rng.uniform(18, 21, rng.integers(2, WIDTH + 1)))
    L = rng.uniform(0, 2) + rng.uniform(1, 3) * (C / 1e20) ** -rng.uniform(0.05, 0.3)
    return C, L * np.exp(noise * rng.normal(size=C.size))


def named(series: list[Points]) -> dict[str, Points]:
    return {f"series {i}": points for i, points in enumerate(series)}


def optima(golden_numbers: dict[str, Any]) -> dict[str, Points]:
    """The reference's own optima per suite, to the last bit."""
    rows = golden_numbers["optima"]
    return {
        suite: tuple(
            np.array([row[key] for row in rows if row["quantizer"] == suite]) for key in ("C_flops", "loss_star")
        )
        for suite in golden_numbers["quantizers"]
    }


def assert_law(law: LawFit, expected: dict[str, Any], score: str = "score") -> None:
    on_edge = law.grid_index in (0, law.n_grid - 1) and law.asymptote != "pinned"
    assert law.status is (Status.BOUND_HIT if on_edge else Status.FITTED)
    assert law.L_inf == expected["L_inf"]
    np.testing.assert_allclose(law.A, expected["A"], rtol=REFERENCE)
    assert law.alpha == pytest.approx(expected["alpha"], rel=REFERENCE)
    assert_scores_match(law.score, expected[score])


# Against the reference


def test_free_laws_match_the_reference(golden_numbers: dict[str, Any]) -> None:
    laws = fit_laws(optima(golden_numbers))
    assert list(laws) == golden_numbers["quantizers"]
    for suite, law in laws.items():
        expected = golden_numbers["asymptotic_per_suite_ngrid400"][suite]
        assert_law(law, expected, "sse_log")
        assert (law.asymptote, law.n_grid) == ("free", 400)
        for budget, loss in expected["forecast"].items():
            assert law.loss_at(float(budget)) == pytest.approx(loss, rel=REFERENCE)


def test_whole_score_profiles_match_the_reference(golden_numbers: dict[str, Any]) -> None:
    for suite, law in fit_laws(optima(golden_numbers)).items():
        profile = np.array(golden_numbers["profile_sse_per_suite_ngrid400"][suite], dtype=float)
        assert_scores_match(law.profile, profile[:, 3])
        assert law.L_inf == profile[law.grid_index, 0]


def test_shared_law_matches_the_reference(golden_numbers: dict[str, Any]) -> None:
    expected = golden_numbers["asymptotic_shared_linf_ngrid400"]
    laws = fit_shared_laws(optima(golden_numbers))
    for suite, law in laws.items():
        assert_law(law, expected["fits"][suite], "sse_log")
        assert law.asymptote == "shared"
        assert_scores_match(law.profile[law.grid_index], expected["total_sse_log"])


def test_pinned_laws_match_the_reference(golden_numbers: dict[str, Any]) -> None:
    for task, curve in golden_numbers["richards"].items():
        for expected in curve["power_fits"]:
            law = fit_law(expected["C"], expected["y"], L_inf=expected["L_inf"])
            assert_law(law, expected["fit"], "sse_log")
            assert law.asymptote == "pinned"
            for budget, value in expected["pred"].items():
                assert law.loss_at(float(budget)) == pytest.approx(value, rel=REFERENCE), task


def test_a_whole_study_keeps_the_reference_laws(golden_fit: StudyFit, golden_numbers: dict[str, Any]) -> None:
    """Our own optima differ from the reference's in the last bits, the laws over them hardly more."""
    for laws, expected in (
        (golden_fit.laws, golden_numbers["asymptotic_per_suite_ngrid400"]),
        (golden_fit.shared_laws, golden_numbers["asymptotic_shared_linf_ngrid400"]["fits"]),
    ):
        assert sorted(laws) == sorted(expected)
        for suite, law in laws.items():
            for name in ("L_inf", "A", "alpha"):
                assert getattr(law, name) == pytest.approx(expected[suite][name], rel=REFERENCE)


# Against the slow twin


def test_free_laws_match_a_loop_over_the_grid() -> None:
    series = [noisy_series(seed, noise=10.0 ** -(2 + seed % 4)) for seed in range(N_SERIES)]
    laws = fit_laws(named(series), n_grid=N_GRID)
    chosen = set()
    for points, law in zip(series, laws.values(), strict=True):
        expected = baseline.fit_free(*points, n_grid=N_GRID)
        if len(points[0]) > 2:  # two points lie on every curve: rounding chooses among the grid values
            assert_law(law, expected)
            assert law.grid_index == expected["index"]
            chosen.add(law.grid_index)
    assert min(chosen) == 0
    assert len(chosen) > 10


def test_free_laws_that_fail_fail_in_the_loop_too() -> None:
    rng = np.random.default_rng(0)
    series = [(10 ** rng.uniform(18, 20, 5), rng.uniform(1, 3, 5)) for _ in range(N_SERIES)]
    laws = fit_laws(named(series), n_grid=N_GRID)
    for points, law in zip(series, laws.values(), strict=True):
        expected = baseline.fit_free(*points, n_grid=N_GRID)
        if expected is None:
            assert law.status is Status.NO_GRID_VALUE_FITS
            assert np.isnan([law.L_inf, law.A, law.alpha, law.score]).all()
            assert not np.isfinite(law.profile).any()
        else:
            assert_law(law, expected)
    assert {law.status for law in laws.values()} >= {Status.BOUND_HIT, Status.NO_GRID_VALUE_FITS}


@pytest.mark.parametrize("seed", range(4))
def test_shared_law_matches_a_loop_over_the_grid(seed: int) -> None:
    series = [noisy_series(100 + 3 * seed + i) for i in range(3)]
    laws = fit_shared_laws(named(series), n_grid=N_GRID)
    expected = baseline.fit_shared(series, n_grid=N_GRID)
    for law, fit in zip(laws.values(), expected["fits"], strict=True):
        assert_law(law, fit)
        assert law.grid_index == expected["index"]


def test_pinned_laws_match_one_regression() -> None:
    series = named([noisy_series(seed) for seed in range(N_SERIES)])
    pinned = {
        name: share * min(points[1])
        for share, (name, points) in zip(np.linspace(0, 0.99, N_SERIES), series.items(), strict=True)
    }
    laws = fit_laws(series, L_inf=pinned)
    for name, law in laws.items():
        expected = baseline.fit_pinned(*series[name], pinned[name])
        assert_law(law, expected)
        assert law.profile.size == law.n_grid == 0
        assert law.grid_index == -1


# Properties


def free(points: Points) -> LawFit:
    """One law, from the shape that the other tests have compiled."""
    filler = noisy_series(0)
    return fit_laws(named([points] + [filler] * (N_SERIES - 1)), n_grid=N_GRID)["series 0"]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10))
def test_scaled_losses_scale_asymptote_and_amplitude(seed: int, scale: float) -> None:
    C, L = noisy_series(seed)
    before, after = free((C, L)), free((C, scale * L))
    if len(C) == 2:
        return
    assert after.grid_index == before.grid_index
    assert after.L_inf == pytest.approx(scale * before.L_inf, rel=REFERENCE)
    np.testing.assert_allclose(after.A, scale * before.A, rtol=REFERENCE)
    assert after.alpha == pytest.approx(before.alpha, rel=REFERENCE)
    np.testing.assert_allclose(after.profile, before.profile, rtol=TRUTH, atol=1e-25)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-3, 3))
def test_moved_budgets_move_the_amplitude_alone(seed: int, shift: float) -> None:
    C, L = noisy_series(seed)
    before, after = free((C, L)), free((C * 10**shift, L))
    if len(C) == 2:
        return
    assert after.L_inf == before.L_inf
    assert after.alpha == pytest.approx(before.alpha, rel=REFERENCE)
    assert np.log(after.A) == pytest.approx(np.log(before.A) + before.alpha * shift * np.log(10), rel=REFERENCE)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_order_of_points_does_not_matter(seed: int) -> None:
    C, L = noisy_series(seed)
    order = np.random.default_rng(seed).permutation(C.size)
    before, after = free((C, L)), free((C[order], L[order]))
    if len(C) == 2:
        return
    assert after.L_inf == before.L_inf
    np.testing.assert_allclose([after.A, after.alpha], [before.A, before.alpha], rtol=ROUNDING * 10)


@pytest.mark.parametrize("place", [0, 1, 37, 98])
def test_recovers_a_known_law(place: int) -> None:
    """Noiseless: the grid value nearest to the true asymptote wins, and the law there is the truth."""
    C = np.geomspace(1e18, 1e21, 8)
    alpha, A = 0.12, 400.0
    fall = A * C**-alpha
    # L_inf = share*0.95*(L_inf + fall[-1]) puts the truth on the grid.
    share = 0.95 * place / (N_GRID - 1)
    L_inf = share / (1 - share) * fall[-1]
    law = free((C, L_inf + fall))
    assert law.grid_index == place
    assert law.alpha == pytest.approx(alpha, rel=TRUTH)
    np.testing.assert_allclose(law.A, A, rtol=10 * TRUTH)
    assert law.loss_at(1e23) == pytest.approx(L_inf + A * 1e23**-alpha, rel=TRUTH)


@pytest.mark.parametrize("offset", [-0.3, 0.3])
def test_takes_the_grid_value_nearest_to_the_truth(offset: float) -> None:
    C = np.geomspace(1e18, 1e21, 8)
    fall = 400 * C**-0.12
    share = 0.95 * (50 + offset) / (N_GRID - 1)
    assert free((C, share / (1 - share) * fall[-1] + fall)).grid_index == 50


def test_first_of_equal_grid_values_wins() -> None:
    C, L = noisy_series(3)
    grid = np.repeat(np.linspace(0, 0.95 * L.min(), 20), 2)
    mask = np.ones((1, C.size), dtype=bool)
    law = fit_free_laws(np.log(C)[None], L[None], mask, grid[None])
    shared = fit_shared_law(np.log(C)[None], L[None], mask, grid)
    scores = np.asarray(law.profile)[0]
    assert np.sum(scores == scores.min()) == 2
    assert int(law.index[0]) % 2 == int(shared.index[0]) % 2 == 0


@pytest.mark.parametrize("fill", [np.nan, np.inf, -7.0])
def test_padding_is_invisible_in_value_and_gradient(fill: float) -> None:
    C, L = noisy_series(11)
    n, width = C.size, 24
    assert 3 <= n < width
    grid = np.linspace(0, 0.95 * L.min(), N_GRID)[None]

    def padded(width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mask = np.arange(width)[None] < n
        columns = np.full((2, 1, width), fill)
        columns[:, 0, :n] = np.log(C), L
        return columns[0], columns[1], mask

    for kernel, last in ((fit_free_laws, grid), (fit_shared_law, grid[0]), (fit_pinned_laws, grid[:, 40])):
        wide, tight = kernel(*padded(width), last), kernel(*padded(n), last)
        for name, left, right in zip(PowerLaw._fields, wide, tight, strict=True):
            np.testing.assert_allclose(left, right, rtol=REFERENCE, atol=1e-20, err_msg=name)

        def exponent(x: jax.Array, y: jax.Array, mask: Any, kernel: Any = kernel, last: Any = last) -> jax.Array:
            return kernel.__wrapped__(x, y, mask, last).alpha[0]

        with jax.enable_x64(True):
            gradients = jax.grad(exponent, argnums=(0, 1))(*padded(width))
        index = int(np.asarray(tight.index)[0])
        L_inf = grid[0, 40 if index < 0 else index]
        for gradient in gradients:
            np.testing.assert_array_equal(gradient[0, n:], 0.0)
        # alpha = -sum(dx*y)/sum(dx**2) with y = log(L - L_inf), so its derivative is -dx/(sum(dx**2)*(L - L_inf)).
        dx = np.log(C) - np.log(C).mean()
        np.testing.assert_allclose(gradients[1][0, :n], -dx / np.sum(dx**2) / (L - L_inf), rtol=TRUTH)


def test_batch_equals_one_by_one() -> None:
    series = [noisy_series(seed) for seed in range(5)]
    together = fit_laws(named(series), n_grid=N_GRID)
    for points, law in zip(series, together.values(), strict=True):
        alone = fit_law(*points, n_grid=N_GRID)
        if len(points[0]) > 2:
            assert (alone.L_inf, alone.grid_index) == (law.L_inf, law.grid_index)
            np.testing.assert_allclose([alone.A, alone.alpha], [law.A, law.alpha], rtol=10 * ROUNDING)


# What the data cannot support


def test_statuses() -> None:
    falling, rising = np.array([3.0, 2.5, 2.2]), np.array([2.2, 2.5, 3.0])
    straight, kinked = np.array([4.0, 2.0, 1.0]), np.array([2.72, 2.18, 2.0])
    C = np.array([1e18, 1e19, 1e20])
    laws = fit_laws(
        {
            "fitted": (C, falling),
            "rising": (C, rising),
            "without asymptote": (C, straight),
            "asymptote beyond the grid": (C, kinked),
            "one point": (C[:1], falling[:1]),
            "one budget": (np.full(3, 1e19), falling),
            "empty": ([], []),
        }
    )
    assert {name: law.status for name, law in laws.items()} == {
        "fitted": Status.FITTED,
        "rising": Status.NO_GRID_VALUE_FITS,
        "without asymptote": Status.BOUND_HIT,
        "asymptote beyond the grid": Status.BOUND_HIT,
        "one point": Status.TOO_FEW_POINTS,
        "one budget": Status.TOO_FEW_POINTS,
        "empty": Status.NO_DATA,
    }
    for law in laws.values():
        numbers = [law.L_inf, law.A, law.alpha, law.score, law.loss_at(1e22)]
        assert np.isfinite(numbers).all() if law.fitted else np.isnan(numbers).all()
    assert laws["without asymptote"].L_inf == 0.0
    assert laws["asymptote beyond the grid"].L_inf == pytest.approx(0.95 * 2.0, rel=ROUNDING)
    assert fit_laws({}) == fit_shared_laws({}) == {}


def test_pinned_asymptote_at_or_above_a_loss_is_no_fit() -> None:
    C, L = np.array([1e18, 1e19, 1e20]), np.array([9.0, 6.0, 2.2])
    for L_inf, status in ((2.2, Status.NO_GRID_VALUE_FITS), (2.19, Status.FITTED), (9.0, Status.NO_GRID_VALUE_FITS)):
        assert fit_law(C, L, L_inf=L_inf).status is status


def test_shared_law_counts_only_where_every_series_fits() -> None:
    C = np.array([1e18, 1e19, 1e20])
    falling, rising, high = np.array([3.0, 2.5, 2.2]), np.array([2.2, 2.5, 3.0]), np.array([9.0, 7.5, 6.6])
    both = fit_shared_laws({"low": (C, falling), "high": (C, high)})
    assert {law.status for law in both.values()} == {Status.FITTED}
    assert both["low"].L_inf == both["high"].L_inf < 2.2
    failed = fit_shared_laws({"low": (C, falling), "rising": (C, rising)})
    assert {law.status for law in failed.values()} == {Status.NO_GRID_VALUE_FITS}
    short = fit_shared_laws({"low": (C, falling), "short": (C[:1], falling[:1])})
    assert {law.status for law in short.values()} == {Status.TOO_FEW_POINTS}


def test_empty_series_takes_no_part_in_the_shared_law() -> None:
    C, L = noisy_series(11)
    laws = fit_shared_laws({"full": (C, L), "empty": ([], [])}, n_grid=N_GRID)
    assert laws["empty"].status is Status.NO_DATA
    assert_law(laws["full"], baseline.fit_free(C, L, n_grid=N_GRID))


# Wrong arguments


@pytest.mark.parametrize(
    ("compute", "loss", "message"),
    [
        ([1e18, 1e19], [3.0], "one length"),
        ([[1e18, 1e19]], [[3.0, 2.0]], "one-dimensional"),
        ([1e18, -1e19], [3.0, 2.0], r"compute\[1\] is -1e\+19"),
        ([1e18, 1e19], [0.0, 2.0], r"loss\[0\] is 0\.0"),
        ([1e18, 1e19], [3.0, np.nan], r"loss\[1\] is nan"),
        ([1e18, np.inf], [3.0, 2.0], r"compute\[1\] is inf"),
    ],
)
def test_refuses_wrong_arrays(compute: Any, loss: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_law(compute, loss)


def test_refuses_a_grid_of_one_value() -> None:
    with pytest.raises(ValueError, match="n_grid must be at least 2, got 1"):
        fit_law([1e18, 1e19, 1e20], [3.0, 2.5, 2.2], n_grid=1)


@pytest.mark.parametrize("rounding", [0, 1], ids=["equal", "equal but for rounding"])
def test_equal_losses_have_no_law(rounding: int) -> None:
    """Of the slope of logarithms that are equal there is rounding left, on either side of 0."""
    rng = np.random.default_rng(1)
    series = {}
    for i in range(64):
        loss = np.full(5, 10 ** rng.uniform(-3, 3))
        series[str(i)] = (
            np.sort(10 ** rng.uniform(18, 22, 5)),
            loss * (1 + rounding * rng.integers(-1, 2, 5) * np.finfo(float).eps),
        )
    pinned = {name: float(0.9 * loss.min()) for name, (_, loss) in series.items()}
    grid, optimum = (fit_laws(series, method=method) for method in ("grid", "optimum"))
    laws = [*grid.values(), *fit_laws(series, L_inf=pinned).values(), *fit_shared_laws(series).values()]
    assert {law.status for law in laws} == {Status.NO_GRID_VALUE_FITS}
    assert {law.status for law in optimum.values()} == {Status.LOSS_DOES_NOT_FALL}
    assert {bootstrap_law(*series[str(i)], draws=50).count(Status.FITTED) for i in range(4)} == {0}


def test_a_loss_that_falls_by_more_than_rounding_has_a_law() -> None:
    compute = np.geomspace(1e18, 1e21, 5)
    law = fit_law(compute, 2.0 - 1e-9 * np.log(compute / 1e18), n_grid=50)
    assert law.fitted and law.alpha > 0


@pytest.mark.parametrize("how", [{}, {"L_inf": 1.5}, {"method": "optimum"}, {"method": "optimum", "L_inf": 1.5}])
def test_a_law_too_steep_for_its_amplitude_still_forecasts(how: dict[str, Any]) -> None:
    """A = 2e18**20 cannot be written down; log A can."""
    compute = 1e18 * np.array([1.0, 1.01, 1.03, 1.04, 1.06])
    truth = 1.5 + np.exp(-20 * np.log(compute / 2e18)) / 1e6
    law = fit_law(compute, truth, **how)
    assert law.fitted and np.inf == law.A
    targets = np.array([1e18, 1.1e18, 1e19])
    expected = 1.5 + np.exp(-20 * np.log(targets / 2e18)) / 1e6
    # The grid's nearest asymptote is not the law's own.
    np.testing.assert_allclose(law.loss_at(targets), expected, rtol=1e-9 if how else 0.05)
    assert law.to_dict()["A"] is None
    assert law.log_A - law.alpha * np.log(1e18) == pytest.approx(np.log(law.loss_at(1e18) - law.L_inf), rel=REFERENCE)


def test_a_draw_too_steep_for_its_amplitude_is_skipped() -> None:
    compute = 1e18 * np.array([1.0, 1.01, 1.03, 1.04, 1.06])
    fit = bootstrap_law(compute, 1.5 + np.exp(-20 * np.log(compute / 2e18)) / 1e6, draws=100)
    assert fit.count(Status.FITTED) == 0
    assert np.isnan([fit.intervals[0].low, fit.intervals[0].high]).all()
