"""Studies of any number of draws: every number against a refit per resample and NumPy's percentiles."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import baseline
from delphi_jax.batch import asymptote_grid, pad
from delphi_jax.devices import chunk_memory
from delphi_jax.fit.stream import bootstrap_study, counted_percentiles
from delphi_jax.kernels.stream import (
    BIN_BITS,
    BLOCK,
    OCTAVES,
    Forecasts,
    Problem,
    add_draws,
    bin_edges,
    draw_counts,
    empty_tally,
    tally_blocks,
)
from delphi_jax.resamples import resample_counts, resample_probabilities, resample_ranks
from delphi_jax.results import BootstrapStudy
from delphi_jax.status import InputError, Status
from tests.delphi import TARGETS
from tests.tolerances import REFERENCE, ROUNDING

N = 5
DRAWS = 3 * BLOCK + 1234
"""Not whole blocks: the last one is cut."""

PERCENTILES = (2.5, 50.0, 97.5)
STATUS = {"ok": Status.FITTED, "lt3_unique": Status.TOO_FEW_POINTS, "fit_failed": Status.NO_GRID_VALUE_FITS}


def optima(n: int = N, noise: float = 0.01, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    C = np.geomspace(3e18, 3e20, n)
    return C, (1.4 + 1.6 * (C / 1e20) ** -0.1) * np.exp(noise * rng.normal(size=n))


@functools.cache
def refits(n: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(status [M], forecasts [M, Q], L_inf = 0 [M]) of every resample of n points, one refit each by NumPy."""
    C, L = optima(n, noise)
    indices = np.array([np.repeat(np.arange(n), counts) for counts in resample_counts(n)])
    draws = baseline.bootstrap(C, L, TARGETS, indices)
    unfitted = dict.fromkeys(TARGETS, np.nan)
    forecasts = [draw["forecast"] if draw["status"] == "ok" else list(unfitted.values()) for draw in draws]
    at_zero = [draw["status"] == "ok" and draw["L_inf"] == 0 for draw in draws]
    return np.array([STATUS[draw["status"]] for draw in draws]), np.array(forecasts), np.array(at_zero)


def streamed_counts(seed: int, draws: int, n: int) -> np.ndarray:
    """The resamples [draws, n] behind a stream, block by block."""
    with jax.enable_x64(True):
        key = jax.random.key(seed, impl="threefry2x32")
        draw = jax.jit(draw_counts, static_argnums=(1, 2))
        blocks = [draw(jax.random.fold_in(key, b), n, 8) for b in range(-(-draws // BLOCK))]
    counts = np.concatenate(blocks)[:draws]
    np.testing.assert_array_equal(counts[:, n:], 0)
    return counts[:, :n]


def intervals(study: BootstrapStudy) -> np.ndarray:
    return np.array([[line.low, line.median, line.high] for line in study.intervals])


@functools.cache
def streamed(chunk: int | None = None, noise: float = 0.01) -> BootstrapStudy:
    return bootstrap_study(*optima(noise=noise), draws=DRAWS, seed=1, method="stream", chunk=chunk)


@pytest.mark.parametrize("noise", [0.01, 0.15])
def test_a_stream_counts_one_refit_per_draw(noise: float) -> None:
    study = streamed(noise=noise)
    status, forecasts, at_zero = refits(N, noise)
    ranks = resample_ranks(streamed_counts(1, DRAWS, N))
    for each in Status:
        assert study.count(each) == np.sum(status[ranks] == each)
    fitted = ranks[status[ranks] == Status.FITTED]
    assert study.at_zero == at_zero[fitted].sum()
    expected = np.percentile(forecasts[fitted], PERCENTILES, axis=0).T
    assert np.all(np.abs(intervals(study) - expected) <= study.bounds + REFERENCE * expected)
    assert np.all(study.bounds <= 2.0**-BIN_BITS * intervals(study) / 2 * (1 + ROUNDING))
    assert (study.draws, study.outside.tolist(), study.status, study.seed) == (DRAWS, [0, 0, 0], Status.FITTED, 1)
    assert sum(study.draw_counts.values()) == DRAWS


@pytest.mark.parametrize("chunk", [1, 2 * BLOCK])
def test_the_chunk_changes_no_number(chunk: int) -> None:
    assert streamed(chunk).to_json() == streamed().to_json()


def test_the_callers_precision_stays() -> None:
    streamed()
    assert jnp.ones(1).dtype == jnp.float32


def test_draws_are_fair() -> None:
    """Pearson's chi-squared of 35 resamples has mean 34 and variance 68: six standard deviations."""
    counts = streamed_counts(7, 8 * BLOCK, 4)
    observed = np.bincount(resample_ranks(counts), minlength=35)
    expected = resample_probabilities(resample_counts(4)) * len(counts)
    assert np.sum((observed - expected) ** 2 / expected) < 34 + 6 * np.sqrt(68)


def test_blocks_and_seeds_draw_anew() -> None:
    two = streamed_counts(0, 2 * BLOCK, N)
    assert not np.array_equal(two[:BLOCK], two[BLOCK:])
    assert not np.array_equal(two, streamed_counts(2**33, 2 * BLOCK, N))


def test_more_points_than_a_small_integer_counts() -> None:
    with jax.enable_x64(True):
        counts = np.asarray(jax.jit(draw_counts, static_argnums=(1, 2))(jax.random.key(0), 300, 304))
    np.testing.assert_array_equal(counts.sum(axis=1), 300)
    np.testing.assert_array_equal(counts[:, 300:], 0)
    # Mean of BLOCK draws of a binomial with variance near 1, six standard errors.
    np.testing.assert_allclose(counts[:, :300].mean(axis=0), 1, atol=6 / np.sqrt(BLOCK))


def test_a_table_gives_the_percentiles_of_its_draws() -> None:
    study = bootstrap_study(*optima(noise=0.15), draws=10_000, seed=4, method="table")
    status, forecasts, at_zero = refits(N, 0.15)
    weights = np.random.default_rng(4).multinomial(10_000, resample_probabilities(resample_counts(N)))
    drawn = np.repeat(np.arange(len(weights)), weights)
    for each in Status:
        assert study.count(each) == np.sum(status[drawn] == each)
    fitted = drawn[status[drawn] == Status.FITTED]
    assert study.at_zero == at_zero[fitted].sum()
    np.testing.assert_allclose(
        intervals(study), np.percentile(forecasts[fitted], PERCENTILES, axis=0).T, rtol=REFERENCE
    )
    assert not study.bounds.any()


def test_exact_is_every_resample_in_its_share() -> None:
    """Every ordered resample once, so that no probability is needed to weigh them."""
    study = bootstrap_study(*optima(noise=0.15), method="exact", percentiles=(10, 30, 80))
    status, forecasts, _ = refits(N, 0.15)
    ordered = np.array(list(itertools.product(range(N), repeat=N)))
    ranks = resample_ranks(np.array([np.bincount(row, minlength=N) for row in ordered]))
    fitted = ranks[status[ranks] == Status.FITTED]
    expected = np.percentile(forecasts[fitted], (10, 30, 80), axis=0, method="inverted_cdf").T
    np.testing.assert_allclose(intervals(study), expected, rtol=REFERENCE)
    assert (study.draws, study.count(Status.FITTED), study.seed) == (N**N, len(fitted), None)


@pytest.mark.parametrize("method", ["stream", "table"])
def test_too_few_draws_are_no_interval(method: str) -> None:
    """Of 40, a tail of 2.5 % holds one on average."""
    few, enough = (bootstrap_study(*optima(), draws=draws, method=method) for draws in (39, 60))
    assert few.count(Status.FITTED) < 40 <= enough.count(Status.FITTED)
    assert (few.status, enough.status) == (Status.BEYOND_DRAWS, Status.FITTED)
    assert np.isnan(intervals(few)).all() and np.isnan(few.bounds).all() and np.isfinite(intervals(enough)).all()
    assert "take more draws" in few.notices()[0]
    assert not any("beyond the draws" in notice for notice in enough.notices())


def test_the_method_follows_the_number_of_resamples() -> None:
    """C(9, 5) = 126 resamples of 5 points."""
    methods = [bootstrap_study(*optima(), draws=draws).method for draws in (125, 126.0)]
    assert methods == ["stream", "table"]
    assert bootstrap_study(*optima(13), draws=2).method == "stream"


def test_a_billion_draws_come_near_the_exact_percentiles() -> None:
    """A share of 10**9 draws has a standard error of at most 1.6e-5, so the percentiles stay on these atoms."""
    many, exact = bootstrap_study(*optima(), draws=1e9), bootstrap_study(*optima(), method="exact")
    np.testing.assert_allclose(intervals(many), intervals(exact), rtol=1e-3)
    assert many.count(Status.FITTED) / 1e9 == pytest.approx(exact.count(Status.FITTED) / N**N, abs=1e-4)


def test_no_fit_at_all_has_a_status_and_no_numbers() -> None:
    C = np.geomspace(1e18, 1e21, N)
    for method in ("stream", "table", "exact"):
        draws = None if method == "exact" else 500
        study = bootstrap_study(C, np.linspace(2, 3, N), draws=draws, method=method)
        assert study.status is Status.NO_GRID_VALUE_FITS
        assert study.count(Status.FITTED) == 0
        assert np.isnan(intervals(study)).all()
        assert '"low": null' in study.to_json()


@pytest.mark.parametrize("method", ["stream", "table", "exact"])
def test_draws_of_one_and_the_same_law_are_no_interval(method: str) -> None:
    """Three budgets: the only resample that has a law is the data itself, 3!/3**3 of the probability."""
    C = np.geomspace(1e18, 1e20, 3)
    study = bootstrap_study(C, [3.0, 2.5, 2.2], draws=None if method == "exact" else 2 * BLOCK, method=method)
    assert study.status is Status.TOO_FEW_POINTS
    assert study.count(Status.FITTED) > 0
    assert np.isnan(intervals(study)).all() and np.isnan(study.bounds).all()
    one_law, skipped = study.notices()
    assert "all fitted draws give one and the same law" in one_law
    assert study.skipped_probability == pytest.approx(1 - 6 / 27, abs=0.02)
    assert f"{100 * study.skipped_probability:.3g} % of the draws were skipped" in skipped


def test_a_study_that_ends_well_has_nothing_to_say() -> None:
    assert streamed().notices() == []


def test_forecasts_outside_the_histogram_are_counted_and_no_number() -> None:
    """A law without asymptote: in its last two targets it has fallen by more octaves than are counted."""
    C = np.geomspace(1e18, 1e21, N)
    # Bent by a hair, so that the draws' laws are not one and the same.
    L = 3.0 * (C / 1e18) ** (-0.5 - 1e-10 * np.log10(C / 1e18))
    study = bootstrap_study(C, L, (1e22, 1e38, 1e40), draws=BLOCK, method="stream")
    assert study.outside.tolist() == [0, *[study.count(Status.FITTED)] * 2]
    assert study.intervals[0].median == pytest.approx(3e-2, rel=1e-4)
    assert np.isnan(intervals(study)[1:]).all() and np.isnan(study.bounds[1:]).all()
    exact = bootstrap_study(C, L, (1e22, 1e38, 1e40), method="exact")
    assert exact.intervals[2].median == pytest.approx(3e-11, rel=1e-6)


@pytest.mark.parametrize("method", ["stream", "table", "exact"])
def test_draws_so_steep_that_their_forecasts_are_no_numbers_are_no_fits(method: str) -> None:
    """Budgets so close, but for the last, that A overflows and C**-alpha vanishes in draws without that one."""
    C = 1e18 * (1 + 1e-4 * np.arange(N))
    C[-1] = 1e19
    draws = None if method == "exact" else 500
    study = bootstrap_study(C, np.geomspace(3.0, 2.0, N), draws=draws, method=method)
    assert study.status is Status.FITTED
    total = N**N if method == "exact" else draws
    without_last = (1 - 1 / N) ** N * total
    assert (
        study.count(Status.FITTED) + study.count(Status.NO_GRID_VALUE_FITS) + study.count(Status.TOO_FEW_POINTS)
        == total
    )
    assert study.count(Status.NO_GRID_VALUE_FITS) > 0.5 * without_last
    assert np.all(study.outside == 0) and np.isfinite(intervals(study)).all()
    assert any("were skipped" in sentence for sentence in study.notices())


def test_bins_are_those_of_numpy() -> None:
    edges = bin_edges(-3)
    assert edges[0] == 2.0**-3 and edges[-1] == 2.0 ** (OCTAVES - 3)
    assert np.all(np.diff(edges) <= edges[:-1] * 2.0**-BIN_BITS)
    rng = np.random.default_rng(0)
    values = 2.0 ** rng.uniform(-3, OCTAVES - 3, 5000)
    odd = [
        edges[0],
        np.nextafter(edges[0], 0),
        edges[-1],
        np.nextafter(edges[-1], 0),
        0.0,
        -1.0,
        np.inf,
        -np.inf,
        np.nan,
    ]
    values = np.concatenate([values, edges[[5, 70, 9000]], odd])
    asked = rng.random(values.size) < 0.8
    fitted = rng.random(values.size) < 0.8
    draws = Forecasts(values[:, None], np.ones(values.size, bool), np.where(fitted, 0, 2))
    with jax.enable_x64(True):
        tally = jax.device_get(jax.jit(add_draws)(empty_tally(1), draws, asked, -3))
    counted = values[asked & fitted]
    expected, _ = np.histogram(counted[np.isfinite(counted)], edges)
    # NumPy's last bin holds its upper edge too.
    expected[-1] -= np.sum(counted == edges[-1])
    below, bins, above, unknown = np.split(tally.histogram[0], [1, edges.size, edges.size + 1])
    np.testing.assert_array_equal(bins, expected)
    assert (below, above) == (np.sum(counted < edges[0]), np.sum(counted >= edges[-1]))
    assert unknown == np.sum(np.isnan(counted))
    assert (tally.at_zero, tally.status[0], tally.status[2]) == (counted.size, counted.size, np.sum(asked & ~fitted))
    assert (tally.lowest[0], tally.highest[0]) == (np.nanmin(counted), np.nanmax(counted))


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 40)), min_size=1, max_size=30),
    st.lists(st.floats(0, 100), min_size=1, max_size=4),
)
def test_counted_percentiles_are_numpys(pairs: list[tuple[float, int]], percentiles: list[float]) -> None:
    values, counts = np.array(sorted(pairs)).T
    counts = counts.astype(int)
    found = counted_percentiles(values, counts, percentiles)
    expected = np.percentile(np.repeat(values, counts), percentiles)
    np.testing.assert_allclose(found, expected, rtol=ROUNDING, atol=ROUNDING * np.abs(values).max())


def test_counts_beyond_32_bits_are_added_whole() -> None:
    values, counts = np.array([1.0, 2.0]), np.array([3 * 2**40, 2**40])
    assert counted_percentiles(values, counts, [0, 74.9, 75.1, 100]).tolist() == [1, 1, 2, 2]


class Stop(Exception):
    """The end of a process, as far as the files know."""


def stopping(at: int, error: type[BaseException]) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= at * BLOCK:
            raise error

    return progress


ARGUMENTS: dict[str, Any] = {"draws": 20 * BLOCK + 5, "seed": 1, "method": "stream", "chunk": BLOCK}


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
def test_a_stopped_stream_goes_on_and_ends_with_the_same_numbers(tmp_path: Path, error: type[BaseException]) -> None:
    whole = bootstrap_study(*optima(), **ARGUMENTS)
    for stop in (12, 17):
        with pytest.raises(error) as stopped:
            bootstrap_study(*optima(), **ARGUMENTS, state=tmp_path, interval=0, progress=stopping(stop, error))
    (state,) = tmp_path.iterdir()
    assert error is Stop or str(state) in str(stopped.value)
    steps: list[int] = []
    again = bootstrap_study(*optima(), **ARGUMENTS, state=tmp_path, progress=lambda done, total: steps.append(done))
    assert 12 * BLOCK <= steps[0] < steps[-1] == ARGUMENTS["draws"]
    assert again.to_json() == whole.to_json()
    assert not list(tmp_path.iterdir())


def test_a_named_state_stays_and_answers_at_once(tmp_path: Path) -> None:
    state = tmp_path / "study.state"
    first = bootstrap_study(*optima(), **ARGUMENTS, state=state)
    steps: list[int] = []
    again = bootstrap_study(*optima(), **ARGUMENTS, state=state, progress=lambda done, total: steps.append(done))
    assert again.to_json() == first.to_json()
    assert set(steps) == {ARGUMENTS["draws"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, "made with seed 1, this one has 2"),
        ({"draws": 5}, f"made with draws {ARGUMENTS['draws']}, this one has 5"),
        ({"targets": (1e21, 1e22)}, r"made with targets \[1e\+21, 1e\+22, 1e\+23\], this one has"),
        ({"n_grid": 50}, "made with asymptotes 100, this one has 50"),
        ({"compute": optima()[0] * 2}, "made with data [0-9a-f]{16}, this one has"),
    ],
)
def test_the_state_of_another_study_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    state = tmp_path / "study.state"
    compute, loss = optima()
    with pytest.raises(Stop):
        bootstrap_study(compute, loss, **ARGUMENTS, state=state, progress=stopping(9, Stop))
    kept = state.read_bytes()
    with pytest.raises(InputError, match=message):
        bootstrap_study(**{"compute": compute, "loss": loss, **ARGUMENTS, "state": state, **change})
    assert state.read_bytes() == kept


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_state_that_cannot_be_written_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delphi_jax.checkpoint.tempfile.NamedTemporaryFile", full)
    steps: list[int] = []
    for state in (tmp_path, tmp_path / "study.state"):
        with pytest.raises(InputError, match=r"\.state: the state cannot be written: No space left"):
            bootstrap_study(*optima(), **ARGUMENTS, state=state, progress=lambda done, total: steps.append(done))
    assert not steps


def test_a_disk_that_fills_up_costs_no_study_that_did_not_ask_for_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delphi_jax.whole.os.replace", full)
    with pytest.warns(RuntimeWarning, match="No space left on device; the study goes on without") as warned:
        study = bootstrap_study(*optima(), **ARGUMENTS, state=tmp_path, interval=0)
    assert len(warned) == 1
    assert study.to_json() == bootstrap_study(*optima(), **ARGUMENTS).to_json()
    with pytest.raises(InputError, match="No space left"):
        bootstrap_study(*optima(), **ARGUMENTS, state=tmp_path / "study.state", interval=0)


def test_a_chunk_takes_no_more_memory_than_it_is_reckoned_with() -> None:
    n = 20
    (log_compute,), (mask,) = pad([np.log(optima(n)[0])])
    losses = pad([optima(n)[1]])[0][0]
    problem = Problem(log_compute, losses, mask, asymptote_grid(losses, 100), np.array(TARGETS))
    tally = empty_tally(len(TARGETS))
    histogram = sum(leaf.nbytes for leaf in tally)
    step = functools.partial(tally_blocks, n_blocks=4, n_points=n)
    with jax.enable_x64(True):
        lowered = jax.jit(step, donate_argnums=0).lower(tally, jax.random.key(0), 0, 10**9, -12, problem)
        used = lowered.compile().memory_analysis().temp_size_in_bytes
    assert used - histogram < 4 * BLOCK * 8 * problem.grid.size
    assert chunk_memory() > 8 * problem.grid.size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"draws": 0}, "draws must be a whole number from 1"),
        ({"draws": 1.5}, "draws must be a whole number from 1"),
        ({"draws": float("nan")}, "draws must be a whole number from 1"),
        ({"draws": 2**50}, "draws must be a whole number from 1"),
        ({"draws": None}, "give the number of draws; only method 'exact' needs none"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"seed": 2**64}, "seed must be a whole number of at least 0 and below"),
        ({"seed": 1.0}, "seed must be a whole number .*, got 1.0"),
        ({"method": "exact"}, "takes every resample once, so no draws"),
        ({"method": "exact", "draws": None, "seed": 0}, "takes every resample once, so no seed"),
        ({"method": "table", "state": "x"}, "only method 'stream' keeps a state, not 'table'$"),
        ({"draws": 1000, "state": "x"}, "not 'table', which was chosen for 1000 draws of 5 points"),
        ({"method": "quick"}, "unknown method 'quick'"),
        ({"targets": ()}, "targets must be finite positive"),
        ({"targets": (0.0,)}, "targets must be finite positive"),
        ({"percentiles": (50, 2, 97)}, "three ascending"),
        ({"percentiles": (1, 2)}, "three ascending"),
        ({"percentiles": (1, 2, 3, 4)}, "three ascending"),
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"interval": float("nan")}, "interval must be at least 0"),
        ({"interval": float("inf")}, "interval must be at least 0 seconds, and finite"),
        ({"n_grid": 1}, "n_grid must be at least 2"),
        ({"loss": np.ones(3)}, "of one length"),
        ({"compute": [], "loss": []}, "no points to resample"),
        ({"compute": optima(13)[0], "loss": optima(13)[1], "method": "table"}, "5200300 resamples, too many"),
        ({"compute": optima(13)[0], "loss": optima(13)[1], "method": "exact", "draws": None}, "take 'stream'"),
    ],
)
def test_refuses_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    compute, loss = optima()
    with pytest.raises(ValueError, match=message):
        bootstrap_study(**{"compute": compute, "loss": loss, "draws": 10, **arguments})


def test_prints_as_a_table_with_its_bound() -> None:
    (row, *_) = streamed().rows()
    assert row["bound ±"] == streamed().bounds[0].max()
    assert row["draws"] == DRAWS
    assert "stream" in repr(streamed())
