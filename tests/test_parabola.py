"""IsoFLOP parabolas against the reference, polynomial least squares and closed forms."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import baseline
from delphi_jax.kernels.parabola import Parabola, fit_parabola, fit_parabolas
from delphi_jax.results import StudyFit
from delphi_jax.status import Status
from tests.tolerances import DIFFERENCE, REFERENCE, ROUNDING, TRUTH

WIDTH = 16
GROUPS = 40
REFERENCE_FIELDS = {
    "a": "a",
    "b": "b",
    "c": "c",
    "logT_star": "log_tokens_star",
    "T_star": "tokens_star",
    "loss_star": "loss_star",
    "P_star": "params_star",
    "a_under": "curvature_under",
    "a_over": "curvature_over",
}
Group = tuple[np.ndarray, np.ndarray, np.ndarray]


def noisy_group(seed: int) -> Group:
    """log10 tokens, loss and log10 params of one budget; optimum inside, at the edge or outside."""
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(8.8, 10.4, rng.integers(4, WIDTH + 1)))
    loss = 3 + rng.uniform(0.1, 0.4) * (x - rng.uniform(8.6, 10.6)) ** 2 + 0.01 * rng.normal(size=x.size)
    return x, loss, 17.7 - x + 0.02 * rng.normal(size=x.size)


def fit(groups: list[Group], fill: float = np.nan, width: int = WIDTH) -> Parabola:
    """The batched kernel with every padded value set to ``fill``, fields cut to the given groups."""
    padded = [np.full((GROUPS, width), fill) for _ in range(3)]
    mask = np.zeros((GROUPS, width), dtype=bool)
    for i, group in enumerate(groups):
        mask[i, : len(group[0])] = True
        for values, column in zip(padded, group, strict=True):
            values[i, : len(column)] = column
    return Parabola(*(np.asarray(field)[: len(groups)] for field in fit_parabolas(*padded, mask)))


def assert_same(actual: Parabola, expected: Parabola, rtol: float = ROUNDING) -> None:
    for name, left, right in zip(Parabola._fields, actual, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=rtol, atol=1e-15, err_msg=name)


def test_matches_the_reference(golden_fit: StudyFit, golden_numbers: dict[str, Any]) -> None:
    ours = {(fit.suite, fit.bucket): fit for fit in golden_fit.isoflop.parabolas}
    assert len(ours) == len(golden_numbers["parabolas"]) == 14
    for expected in golden_numbers["parabolas"]:
        parabola = ours[expected["suite"], expected["gflops_bucket"] * 1e9]
        assert len(parabola.loss) == expected["n_points"]
        assert parabola.status is (Status.CLIPPED_TO_EDGE if expected["clipped"] else Status.FITTED)
        assert parabola.vertex_log_tokens == pytest.approx(expected["vertex_unclipped_logT"], rel=REFERENCE)
        for theirs, name in REFERENCE_FIELDS.items():
            assert getattr(parabola, name) == pytest.approx(expected["fit"][theirs], rel=REFERENCE), name


def test_matches_the_slow_twin_on_noisy_groups() -> None:
    groups = [noisy_group(seed) for seed in range(GROUPS)]
    fits = fit(groups)
    seen = set()
    for i, (x, loss, log_params) in enumerate(groups):
        expected = baseline.fit_parabola(10**x, loss, 10**log_params)
        seen.add(Status(int(fits.status[i])))
        assert fits.status[i] == (Status.CLIPPED_TO_EDGE if expected["clipped"] else Status.FITTED)
        assert fits.vertex[i] == pytest.approx(expected["vertex_logT"], rel=REFERENCE)
        assert fits.x_star[i] == pytest.approx(expected["logT_star"], rel=REFERENCE)
        assert fits.loss_star[i] == pytest.approx(expected["loss_star"], rel=REFERENCE)
        assert fits.log_params_star[i] == pytest.approx(np.log10(expected["P_star"]), rel=REFERENCE)
        # The twin's polyfit works far from the origin, where the power basis has lost four digits.
        for name, theirs in (("a", "a"), ("b", "b"), ("c", "c"), ("curvature_under", "a_under")):
            assert getattr(fits, name)[i] == pytest.approx(expected[theirs], rel=TRUTH), name
        assert fits.curvature_over[i] == pytest.approx(expected["a_over"], rel=TRUTH)
        residual = loss - np.polyval([fits.a[i], fits.b[i], fits.c[i]], x)
        assert fits.score[i] == pytest.approx(np.mean(residual**2), rel=TRUTH)
    assert seen == {Status.FITTED, Status.CLIPPED_TO_EDGE}


def test_recovers_a_known_parabola() -> None:
    a, vertex, lowest = 0.31, 9.47, 2.9
    x = np.linspace(8.9, 10.2, 9)
    fits = fit([(x, a * (x - vertex) ** 2 + lowest, 20.1 - 1.1 * x)])
    truth = {
        "a": a,
        "b": -2 * a * vertex,
        "c": a * vertex**2 + lowest,
        "vertex": vertex,
        "x_star": vertex,
        "loss_star": lowest,
        "log_params_star": 20.1 - 1.1 * vertex,
        "curvature_under": a,
        "curvature_over": a,
    }
    for name, value in truth.items():
        assert getattr(fits, name)[0] == pytest.approx(value, rel=TRUTH), name
    assert fits.under_measured[0] and fits.over_measured[0]
    assert fits.score[0] < 1e-25
    assert fits.status[0] == Status.FITTED


def test_one_sided_curvatures_are_regressions_through_the_optimum() -> None:
    groups = [noisy_group(seed) for seed in range(GROUPS)]
    fits = fit(groups)
    measured = 0
    for i, (x, loss, _) in enumerate(groups):
        for name, side in (("under", x < fits.x_star[i]), ("over", x > fits.x_star[i])):
            squares, rises = (x[side] - fits.x_star[i]) ** 2, loss[side] - fits.loss_star[i]
            expected = np.linalg.lstsq(squares[:, None], rises, rcond=None)[0][0] if side.any() else -1.0
            assert getattr(fits, f"{name}_measured")[i] == (expected > 0)
            curvature = expected if expected > 0 else fits.a[i]
            assert getattr(fits, f"curvature_{name}")[i] == pytest.approx(curvature, rel=TRUTH)
            measured += expected > 0
    assert 0 < measured < 2 * GROUPS


@pytest.mark.parametrize("fill", [np.nan, np.inf, -1e300, 9.5])
def test_padding_is_invisible(fill: float) -> None:
    groups = [noisy_group(seed) for seed in range(12)]
    assert_same(fit(groups, fill), fit(groups, 0.0), rtol=0)
    assert_same(fit(groups, fill, width=WIDTH + 8), fit(groups, 0.0))


def test_batch_equals_one_by_one() -> None:
    groups = [noisy_group(seed) for seed in range(6)]
    batched = fit(groups)
    with jax.enable_x64(True):
        for i, (x, loss, log_params) in enumerate(groups):
            single = fit_parabola(x, loss, log_params, np.ones(x.size, dtype=bool))
            assert_same(single, Parabola(*(field[i] for field in batched)), rtol=TRUTH)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_order_of_runs_does_not_matter(seed: int) -> None:
    group = noisy_group(seed)
    order = np.random.default_rng(seed).permutation(len(group[0]))
    assert_same(fit([tuple(column[order] for column in group)]), fit([group]), rtol=REFERENCE)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100), shift=st.floats(-2, 2), move=st.floats(-1, 1))
def test_follows_changes_of_unit(seed: int, scale: float, shift: float, move: float) -> None:
    """Scaled and shifted losses scale the curvatures and the loss; moved tokens move the optimum alone."""
    x, loss, log_params = noisy_group(seed)
    before, after = (
        Parabola(*(field[0] for field in fit([group])))
        for group in ((x, loss, log_params), (x + move, scale * loss + shift, log_params))
    )
    for name in ("a", "curvature_under", "curvature_over"):
        assert getattr(after, name) == pytest.approx(scale * getattr(before, name), rel=1e-6), name
    assert after.loss_star == pytest.approx(scale * before.loss_star + shift, rel=TRUTH, abs=TRUTH)
    assert after.vertex == pytest.approx(before.vertex + move, rel=TRUTH)
    assert after.log_params_star == pytest.approx(before.log_params_star, rel=TRUTH)
    assert after.status == before.status


def test_gradient_matches_differences_and_vanishes_on_padding() -> None:
    x, loss, log_params = noisy_group(0)
    n, width = x.size, WIDTH + 8
    padded = [np.concatenate([column, np.full(width - n, np.nan)]) for column in (x, loss, log_params)]
    mask = np.arange(width) < n

    with jax.enable_x64(True):
        gradients = jax.grad(lambda *p: fit_parabola(*p, mask).loss_star, argnums=(0, 1))(*padded)
        curvature = jax.grad(lambda *p: fit_parabola(*p, mask).curvature_over, argnums=1)(*padded)
    for gradient in (*gradients, curvature):
        np.testing.assert_array_equal(gradient[n:], 0.0)

    def twin(x: np.ndarray, loss: np.ndarray) -> dict[str, Any]:
        return baseline.fit_parabola(10**x, loss, 10**log_params)

    step = 1e-5
    for j in range(n):
        nudge = step * (np.arange(n) == j)
        for gradient, key, up, down in (
            (gradients[0], "loss_star", twin(x + nudge, loss), twin(x - nudge, loss)),
            (gradients[1], "loss_star", twin(x, loss + nudge), twin(x, loss - nudge)),
            (curvature, "a_over", twin(x, loss + nudge), twin(x, loss - nudge)),
        ):
            assert gradient[j] == pytest.approx((up[key] - down[key]) / (2 * step), rel=1e-4, abs=DIFFERENCE)


def test_says_when_there_are_too_few_points() -> None:
    two = np.array([9.0, 9.5])
    doubled = np.array([9.0, 9.5, 9.5, 9.0])
    three = np.array([9.0, 9.5, 9.7])
    empty = np.empty(0)
    groups = [(x, (x - 9.4) ** 2 + 3, 17 - x) for x in (empty, two, doubled, three)]
    assert fit(groups).status.tolist() == [Status.TOO_FEW_POINTS] * 3 + [Status.FITTED]


def test_says_when_there_is_no_minimum() -> None:
    x = np.array([9.0, 9.25, 9.75, 10.0])
    flat, falling = np.full(4, 3.0), 3 - 0.25 * (x - 9.5)
    fits = fit([(x, 3 - 0.2 * (x - 9.6) ** 2, 17 - x), (x, flat, 17 - x), (x, falling, 17 - x)])
    assert fits.status[:2].tolist() == [Status.CURVATURE_NOT_POSITIVE] * 2
    # A straight line has a curvature of rounding size and of either sign; it must not count as an optimum inside.
    assert fits.status[2] in (Status.CURVATURE_NOT_POSITIVE, Status.CLIPPED_TO_EDGE)
    assert fits.a[0] == pytest.approx(-0.2, rel=TRUTH)
    assert fits.vertex[0] == fits.x_star[0] == pytest.approx(9.6, rel=TRUTH)
    assert fits.x_star[2] == x[-1] or fits.x_star[2] == x[0]
    assert np.isfinite(fits.loss_star).all()


def test_says_on_which_edge_the_optimum_was_clipped() -> None:
    x = np.linspace(9.0, 10.0, 5)
    fits = fit([(x, 3 + 0.2 * (x - vertex) ** 2, 17 - x) for vertex in (8.7, 10.4)])
    assert fits.status.tolist() == [Status.CLIPPED_TO_EDGE] * 2
    np.testing.assert_allclose(fits.vertex, [8.7, 10.4], rtol=TRUTH)
    np.testing.assert_array_equal(fits.x_star, [9.0, 10.0])
    np.testing.assert_allclose(fits.loss_star, [3 + 0.2 * 0.3**2, 3 + 0.2 * 0.4**2], rtol=TRUTH)
    assert fits.under_measured.tolist() == [False, True]
    assert fits.over_measured.tolist() == [True, False]
    np.testing.assert_allclose(fits.curvature_under[0], fits.a[0], rtol=0)
