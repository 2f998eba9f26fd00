"""Batches over several devices: the same numbers, every device at its own part, nothing exchanged between them.

The devices are eight that XLA is made to see on one CPU, in a process of their own; its twin sees one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from delphi_jax import programs
from delphi_jax.fit.downstream import RichardsProblem, fit_richards_curves
from delphi_jax.fit.isoflop import fit_isoflop
from delphi_jax.fit.law import fit_laws
from delphi_jax.fit.study import fit_study
from delphi_jax.fit.sweep import fit_sweep
from delphi_jax.formulas import richards
from delphi_jax.io.study import load_study
from delphi_jax.kernels import chunks
from delphi_jax.kernels import process as process_kernel
from delphi_jax.kernels.chunks import on_all_devices
from delphi_jax.kernels.dependence import partial_dependence
from delphi_jax.kernels.power_law import fit_pinned_laws
from delphi_jax.kernels.precision import run_kernels_with
from delphi_jax.status import Status
from delphi_jax.tables import RunTable, Study
from tests.tolerances import REFERENCE, ROUNDING, TRUTH

ROOT = Path(__file__).resolve().parents[1]
DEVICES = 8
SIZES = (1, 7, 8, 9, 100)
COSTLY_SIZES = (9, 100)
"""For kernels that compile long; the sweep brings 24 cells."""
BUCKETS = 2500
COMPUTE = np.geomspace(3e18, 3e20, 9)
FLOOR = 0.1

Arrays = dict[str, np.ndarray]


class Watch:
    """Runs kernels unoptimised, which compiles fast, and notes where: {name: most devices of a program}."""

    def __init__(self) -> None:
        self.devices: dict[str, int] = {}
        self.exchanges: set[str] = set()
        self.places: set[jax.Device] = set()
        self._compiled: dict[Any, jax.stages.Compiled] = {}

    def __call__(self, name: str, jitted: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        args = jax.tree.map(np.asarray, args)
        key = (name, *((leaf.shape, leaf.dtype.name) for leaf in jax.tree.leaves(args)))
        if key not in self._compiled:
            program = jitted().lower(*args, **kwargs).compile({"xla_backend_optimization_level": 0})
            self.exchanges.update(re.findall(r"all-\w+|collective-\w+|reduce-scatter", program.as_text()))
            self._compiled[key] = program
        results = self._compiled[key](*args, **kwargs)
        leaves = [leaf for leaf in jax.tree.leaves(results) if leaf.size]
        held = {shard.device for leaf in leaves for shard in leaf.addressable_shards}
        self.places |= held
        split = all(len(leaf.addressable_shards[0].data) * len(held) == len(leaf) for leaf in leaves)
        self.devices[name] = max(self.devices.get(name, 0), len(held) if split else 0)
        return results

    def prepare(self, *_: Any) -> None:
        """Nothing is made ahead."""


def law_series(n: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Noisy laws of 1 to 9 points."""
    rng = np.random.default_rng(n)
    floor, excess, alpha = (rng.uniform(*ends, (n, 1)) for ends in ((0.5, 2.0), (0.8, 3.0), (0.05, 0.3)))
    loss = floor + excess * (COMPUTE / COMPUTE[0]) ** -alpha * np.exp(rng.normal(0, 1e-3, (n, len(COMPUTE))))
    return {str(i): (COMPUTE[:length], loss[i, :length]) for i, length in enumerate(rng.integers(1, 10, n))}


def richards_truth(n: int) -> np.ndarray:
    """k, x0, v and ceiling of ``n`` curves, [n, 4]."""
    rng = np.random.default_rng(n)
    return np.column_stack([rng.uniform(*ends, n) for ends in ((5, 10), (-1.0, -0.8), (0.8, 1.5), (0.7, 0.9))])


def richards_problems(n: int) -> list[RichardsProblem]:
    """Curves without noise, of 3 (too few) and of 10 to 16 points."""
    lengths = np.where(np.arange(n) % 5 == 2, 3, 10 + np.arange(n) % 7)
    x = [np.linspace(-1.6, -0.2, length) for length in lengths]
    curves = zip(x, richards_truth(n), strict=True)
    return [RichardsProblem(str(i), at, richards(at, *truth, FLOOR), FLOOR) for i, (at, truth) in enumerate(curves)]


def run_rows() -> RunTable:
    """Runs of BUCKETS groups of 3 to 6."""
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(BUCKETS), 3 + np.arange(BUCKETS) % 4)
    n = len(group)
    x = 9.0 + 0.25 * (np.concatenate([np.arange(3 + i % 4) for i in range(BUCKETS)]) + rng.uniform(0, 0.5, n))
    return RunTable(
        name=np.array([f"run {i}" for i in range(n)], dtype=object),
        suite=np.full(n, "suite", dtype=object),
        seed=np.full(n, "default", dtype=object),
        held_out=np.zeros(n, bool),
        finished=np.ones(n, bool),
        params=10 ** (18 - x),
        tokens=10**x,
        loss=3 + 0.1 * (x - 9.7) ** 2 + rng.normal(0, 1e-3, n),
        compute=1e18 * (1.0 + group),
        bucket=1e18 * (1.0 + group),
    )


def cells(n: int) -> tuple[np.ndarray, ...]:
    """Standardised features [n, 16, 3], loss and mask of sweep cells of 2 (too few) to 16 trials."""
    rng = np.random.default_rng(n)
    features = rng.normal(size=(n, 16, 3))
    loss = 0.3 * features[..., 0] ** 2 + 0.1 * features[..., 1] + rng.normal(0, 0.05, (n, 16))
    return features, loss, np.arange(16) < np.where(np.arange(n) % 5 == 2, 2, 10 + np.arange(n) % 7)[:, None]


def grid(n: int) -> np.ndarray:
    return np.tile(np.linspace(-2, 2, 5), (n, 3, 1))


def fields(results: Any, *names: str) -> Arrays:
    return {name: np.array([getattr(result, name) for result in results]) for name in names}


def public_fits() -> Arrays:
    """Every fit that spreads over devices, at every size."""
    found: dict[str, Arrays] = {}
    for n in SIZES:
        series = law_series(n)
        free = fit_laws(series)
        found[f"free {n}"] = fields(free.values(), "status", "L_inf", "A", "alpha", "score", "grid_index")
        pinned = fit_laws(series, L_inf=dict.fromkeys(series, 0.3))
        found[f"pinned {n}"] = fields(pinned.values(), "status", "A", "alpha", "score")
    for n in COSTLY_SIZES:
        curves = fit_richards_curves(richards_problems(n))
        found[f"richards {n}"] = fields(curves, "status", "k", "x0", "v", "ceiling", "sse")
        features, loss, mask = cells(n)
        process = on_all_devices(
            process_kernel.fit_processes, process_kernel.CHUNK, features, loss, mask, np.asarray(False)
        )
        found[f"process {n}"] = process._asdict()
        unit = np.ones(n)
        found[f"dependence {n}"] = on_all_devices(
            partial_dependence, process_kernel.CHUNK, features, loss, mask, unit, 0.1 * unit, grid(n)
        )._asdict()
    found["parabolas"] = fields(fit_isoflop(run_rows()).parabolas, "status", "a", "b", "c", "tokens_star", "score")
    fitted = [cell for cell in fit_sweep(load_study(ROOT / "data").sweep).cells if cell.fitted]
    found["sweep"] = fields(fitted, "status", "length_scale", "noise", "log_likelihood")
    found["sweep"]["mean"] = np.array([[curve.mean for curve in cell.dependence] for cell in fitted])
    return {f"{name}: {field}": values for name, arrays in found.items() for field, values in arrays.items()}


def in_twin(path: str) -> None:
    """What each of the two processes does: fit, and save the numbers and where they were computed."""
    watch = Watch()
    run_kernels_with(watch)
    numbers = public_fits()
    devices = {f"devices: {name}": np.array(count) for name, count in watch.devices.items()}
    run_kernels_with(None)
    notes = {"exchanges": np.array(sorted(watch.exchanges))}
    if jax.local_device_count() > 1:
        notes |= callers_choice(jax.local_devices()[3]) | kept_programs(Path(path).parent / "kept")
    np.savez(path, **numbers, **devices, **notes)


def callers_choice(device: jax.Device) -> Arrays:
    """Fits where the caller has placed arrays, or everything, on ``device``, and inside the caller's own jit."""
    series = law_series(100)
    assert not jax.config.jax_enable_x64
    with jax.enable_x64(True):
        placed = {name: jax.device_put(pair, device) for name, pair in series.items()}
    watch = Watch()
    run_kernels_with(watch)
    with jax.default_device(device):
        chosen = fit_laws(series)
    run_kernels_with(None)
    log_compute, loss = (np.stack([row[:1].repeat(8) for row in rows]) for rows in zip(*series.values(), strict=True))
    problem = (np.log(log_compute) + np.linspace(0, 5, 8), loss - np.linspace(0, 0.1, 8), loss > 0, np.full(100, 0.1))
    with jax.enable_x64(True):
        there = fit_pinned_laws(*jax.device_put(problem, device))
        nested = jax.jit(jax.vmap(fit_pinned_laws))(*(field.reshape(2, 50, *field.shape[1:]) for field in problem))
    return {
        "placed alpha": fields(fit_laws(placed).values(), "alpha")["alpha"],
        "chosen alpha": fields(chosen.values(), "alpha")["alpha"],
        "kernel alpha": np.asarray(there.alpha),
        "nested alpha": np.asarray(nested.alpha).ravel(),
        "stayed": np.array([watch.places == {device}, there.alpha.devices() == {device}]),
    }


def kept_programs(folder: Path) -> Arrays:
    """Kernels of one and of several devices from kept programs: how often each was compiled, and a number of it."""
    compiled: list[str] = []
    compile_one = programs._compile
    programs._compile = lambda name, *rest: compiled.append(name) or compile_one(name, *rest)
    alphas = []
    for _ in range(2):
        programs.keep_programs(folder)
        alphas.append([fields(fit_laws(law_series(n)).values(), "alpha")["alpha"] for n in (8, 100)])
    return {
        "kept compiled": np.array(compiled),
        **{f"kept alpha {i}": np.concatenate(alpha) for i, alpha in enumerate(alphas)},
    }


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Arrays]:
    """The saved numbers by number of devices."""
    folder = tmp_path_factory.mktemp("twins")

    def run(n: int) -> Arrays:
        flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={n}"}
        command = f"from tests.test_devices import in_twin; in_twin({str(folder / f'{n}.npz')!r})"
        done = subprocess.run(
            [sys.executable, "-c", command],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=os.environ | flags,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        with np.load(folder / f"{n}.npz") as arrays:
            return dict(arrays)

    with ThreadPoolExecutor() as pool:
        return dict(zip((1, DEVICES), pool.map(run, (1, DEVICES)), strict=True))


def test_numbers_do_not_depend_on_the_number_of_devices(twins: dict[int, Arrays]) -> None:
    one, many = (
        {name: values for name, values in twins[n].items() if ": " in name and "devices" not in name} for n in twins
    )
    assert one.keys() == many.keys()
    for name, expected in one.items():
        assert many[name].shape == expected.shape, name
        if expected.dtype.kind in "biu":
            np.testing.assert_array_equal(many[name], expected, name)
        else:
            np.testing.assert_allclose(many[name], expected, rtol=REFERENCE, atol=ROUNDING, err_msg=name)


def test_every_device_works_at_its_own_part_and_exchanges_nothing(twins: dict[int, Arrays]) -> None:
    one, many = (
        {name.removeprefix("devices: "): int(n) for name, n in arrays.items() if name.startswith("devices: ")}
        for arrays in twins.values()
    )
    assert set(one.values()) == {1}
    # 100 problems are 2 chunks of laws, 13 of Richards curves and 25 of cells; 2500 groups are 3 of parabolas.
    assert many == {
        "fit_free_laws": 2,
        "fit_pinned_laws": 2,
        "fit_richards": 7,
        "fit_processes": 7,
        "partial_dependence": 7,
        "fit_parabolas": 3,
    }
    assert twins[DEVICES]["exchanges"].tolist() == []


@pytest.mark.parametrize("n", SIZES)
def test_laws_are_those_of_a_plain_regression(twins: dict[int, Arrays], n: int) -> None:
    many = twins[DEVICES]
    assert np.any(many[f"pinned {n}: status"] == Status.FITTED) or n == 1
    for i, (compute, loss) in enumerate(law_series(n).values()):
        if many[f"pinned {n}: status"][i] == Status.FITTED:
            slope, level = np.polyfit(np.log(compute), np.log(loss - 0.3), 1)
            found = many[f"pinned {n}: alpha"][i], np.log(many[f"pinned {n}: A"][i])
            np.testing.assert_allclose(found, (-slope, level), rtol=REFERENCE)


@pytest.mark.parametrize("n", COSTLY_SIZES)
def test_curves_and_processes_are_in_their_places(twins: dict[int, Arrays], n: int) -> None:
    """Against the curves' truth and the likelihood's definition, which know no batch."""
    many = twins[DEVICES]
    too_few = np.arange(n) % 5 == 2
    np.testing.assert_array_equal(many[f"richards {n}: status"] == Status.TOO_FEW_POINTS, too_few)
    np.testing.assert_array_equal(many[f"process {n}: status"] == Status.TOO_FEW_POINTS, too_few)
    found = np.column_stack([many[f"richards {n}: {name}"] for name in ("k", "x0", "v", "ceiling")])
    np.testing.assert_allclose(found[~too_few], richards_truth(n)[~too_few], rtol=TRUTH)
    features, loss, mask = cells(n)
    for i in np.flatnonzero(~too_few):
        length_scale, noise = (many[f"process {n}: {name}"][i] for name in ("length_scale", "noise"))
        expected = log_likelihood(features[i, mask[i]], loss[i, mask[i]], length_scale, noise)
        np.testing.assert_allclose(many[f"process {n}: log_likelihood"][i], expected, rtol=REFERENCE)


def log_likelihood(features: np.ndarray, y: np.ndarray, length_scale: float, noise: float) -> float:
    r = np.sqrt(5 * np.sum((features[:, None] - features) ** 2, axis=2)) / length_scale
    covariance = (1 + r + r**2 / 3) * np.exp(-r) + (noise + process_kernel.JITTER) * np.eye(len(y))
    log_det = np.linalg.slogdet(covariance)[1]
    return -0.5 * (y @ np.linalg.solve(covariance, y) + log_det + len(y) * np.log(2 * np.pi))


def test_the_callers_choice_of_device_holds(twins: dict[int, Arrays]) -> None:
    many = twins[DEVICES]
    # Two points are met exactly by every asymptote: rounding chooses, and the compiler's options with it.
    told = many["free 100: status"] != Status.UNDETERMINED
    assert told.sum() > 50
    for name in ("placed alpha", "chosen alpha"):
        np.testing.assert_allclose(many[name][told], many["free 100: alpha"][told], rtol=REFERENCE, err_msg=name)
    assert many["stayed"].all()
    np.testing.assert_allclose(many["nested alpha"], many["kernel alpha"], rtol=ROUNDING)


def test_kept_programs_are_loaded_onto_their_own_devices(twins: dict[int, Arrays]) -> None:
    many = twins[DEVICES]
    assert many["kept compiled"].tolist() == ["fit_free_laws"] * 2
    np.testing.assert_array_equal(many["kept alpha 0"], many["kept alpha 1"])
    expected, status = (np.concatenate([many[f"free {n}: {name}"] for n in (8, 100)]) for name in ("alpha", "status"))
    told = status != Status.UNDETERMINED
    np.testing.assert_allclose(many["kept alpha 1"][told], expected[told], rtol=REFERENCE)


def test_large_batches_on_one_processor_run_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    n = 101
    log_compute, loss = np.sort(rng.uniform(42, 47, (n, 8)), axis=1), rng.uniform(1, 2, (n, 8))
    arguments = (log_compute, loss, rng.random((n, 8)) < 0.7, np.full(n, 0.5))
    lengths = []

    def spy(*arguments: Any) -> Any:
        lengths.append(len(arguments[0]))
        return fit_pinned_laws(*arguments)

    expected = jax.device_get(fit_pinned_laws(*arguments))
    monkeypatch.setattr(chunks, "usable_cores", lambda: 3)
    found = on_all_devices(spy, 2, *arguments)
    assert lengths == [34, 34, 34]
    for name, values in found._asdict().items():
        np.testing.assert_allclose(values, getattr(expected, name), rtol=ROUNDING, err_msg=name)


def test_a_study_is_fitted_where_its_caller_computes(golden_study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(*_: Any) -> tuple[()]:
        seen.append(jax.config.jax_default_device)
        return ()

    monkeypatch.setattr("delphi_jax.fit.study.fit_downstream", spy)
    with jax.default_device(jax.devices()[0]):
        fit_study(golden_study, {"downstream"})
    fit_study(golden_study, {"downstream"})
    assert seen == [jax.devices()[0], None]
