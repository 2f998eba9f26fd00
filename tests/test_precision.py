"""Float64 inside the kernels and nowhere else: the caller's JAX, environment and warnings stay as they are."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delphi_jax.batch import asymptote_grid
from delphi_jax.kernels.bootstrap import bootstrap_laws, counts_from_key
from delphi_jax.kernels.dependence import averaged_process, summed_covariance
from delphi_jax.kernels.parabola import fit_parabolas
from delphi_jax.kernels.power_law import fit_free_laws, fit_pinned_laws, fit_shared_law
from delphi_jax.kernels.precision import OLD_EMITTERS, jit64
from delphi_jax.kernels.process import fit_processes
from delphi_jax.kernels.richards import RichardsBounds, fit_richards

ROOT = Path(__file__).resolve().parents[1]


def calls(seed: int) -> dict[Any, tuple[Any, ...]]:
    """Small arguments of every kernel; another seed gives other values of the same shapes."""
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(0, 1, (2, 8)), axis=1)
    log_C, loss = 42 + 5 * x, 2 + np.exp(-x) + 0.01 * rng.normal(size=(2, 8))
    mask = np.ones((2, 8), dtype=bool)
    grid = asymptote_grid(loss.min(axis=1), 16)
    unit = np.ones(2)
    bounds = RichardsBounds(
        (0.1 * unit, 50 * unit), (-2 * unit, 3 * unit), (0.1 * unit, 20 * unit), (0.05 * unit, unit)
    )
    X = rng.normal(size=(2, 8, 2))
    return {
        fit_parabolas: (9 + x, loss, x, mask),
        fit_free_laws: (log_C, loss, mask, grid),
        fit_shared_law: (log_C, loss, mask, grid[0]),
        fit_pinned_laws: (log_C, loss, mask, unit),
        bootstrap_laws: (
            log_C[0],
            loss[0],
            mask[0],
            rng.integers(0, 3, (4, 8)).astype(float),
            asymptote_grid(loss[0], 16),
        ),
        fit_richards: (x, 0.9 * x**2, mask, 0 * unit, bounds),
        fit_processes: (X, loss, mask),
        summed_covariance: (X, mask, unit, np.tile(np.linspace(-1, 1, 4), (2, 2, 1))),
        averaged_process: (X, loss, mask, unit, 0.1 * unit, rng.uniform(0, 8, (2, 2, 4, 8))),
    }


KERNELS = {kernel.__name__: kernel for kernel in calls(0)}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_return_float64_to_a_caller_in_float32(name: str) -> None:
    assert not jax.config.jax_enable_x64
    result = KERNELS[name](*calls(0)[KERNELS[name]])
    floats = [leaf for leaf in jax.tree.leaves(result) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert floats
    assert {leaf.dtype for leaf in floats} == {np.dtype(np.float64)}
    assert not jax.config.jax_enable_x64
    assert jnp.ones(3).dtype == jnp.float32


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_give_the_same_numbers_to_a_caller_in_float64(name: str) -> None:
    arguments = calls(0)[KERNELS[name]]
    narrow = KERNELS[name](*arguments)
    with jax.enable_x64(True):
        wide = KERNELS[name](*arguments)
        assert jnp.ones(3).dtype == jnp.float64
    for left, right in zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("name", KERNELS)
def test_one_trace_per_shape(name: str) -> None:
    """Other values of the same shapes must not compile again, whatever the caller's precision."""
    kernel = KERNELS[name]
    jitted = inspect.getclosurevars(kernel).nonlocals["jitted"]()
    kernel(*calls(0)[kernel])
    before = jitted._cache_size()
    assert before > 0
    kernel(*calls(1)[kernel])
    with jax.enable_x64(True):
        kernel(*calls(2)[kernel])
    assert jitted._cache_size() == before


def test_a_kernel_is_traced_once_per_shape_and_static_argument() -> None:
    traced = []

    @jit64("n")
    def kernel(x: jax.Array, *, n: int) -> jax.Array:
        traced.append((x.shape, n, x.dtype))
        return x * n

    for x, n in ((np.ones(3), 2), (np.zeros(3), 2), (np.ones(4), 2), (np.ones(3), 3), (np.ones(3), 2)):
        assert kernel(x, n=n).dtype == np.float64
    assert traced == [((3,), 2, np.float64), ((4,), 2, np.float64), ((3,), 3, np.float64)]
    assert kernel.__name__ == "kernel"


def test_a_kernel_within_a_program_is_a_part_of_it() -> None:
    """Whatever its own compiler options, which XLA takes for whole programs only."""

    @jit64(cpu_options=OLD_EMITTERS)
    def inner(x: jax.Array) -> jax.Array:
        return jnp.sin(x) * jnp.ones(())

    values = np.linspace(0, 1, 5)
    with jax.enable_x64(True):
        sine, cosine = jax.jit(inner)(values), jax.vmap(jax.grad(inner))(values)
    np.testing.assert_allclose(sine, np.sin(values), rtol=1e-15)
    np.testing.assert_allclose(cosine, np.cos(values), rtol=1e-15)
    with pytest.raises(TypeError, match="inner computes in float64"):
        jax.jit(inner)(values)


def test_key_draws_count_in_float64() -> None:
    counts = counts_from_key(jax.random.key(0), n_draws=4, n_points=3, n_padded=8)
    assert counts.dtype == np.float64


def test_callers_own_float32_code_is_unaffected() -> None:
    traced = []

    @jax.jit
    def own(x: jax.Array) -> jax.Array:
        traced.append(x.dtype)
        return x / 3

    before = own(jnp.arange(4.0))
    for kernel, arguments in calls(0).items():
        kernel(*arguments)
    after = own(jnp.arange(4.0))
    assert before.dtype == after.dtype == jnp.float32
    assert traced == [jnp.float32]
    np.testing.assert_array_equal(before, after)


def test_precision_is_restored_after_an_error() -> None:
    @jit64()
    def failing(x: jax.Array) -> jax.Array:
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        failing(np.ones(2))
    assert jnp.ones(3).dtype == jnp.float32


def test_importing_and_fitting_leave_the_process_as_it_was() -> None:
    """In a fresh interpreter: JAX's settings, the environment, warning filters and logging before and after."""
    script = f"""
        import logging, os, sys, warnings
        import jax

        def state():
            loggers = {{name: (log.level, len(log.handlers), log.disabled)
                       for name, log in logging.root.manager.loggerDict.items() if isinstance(log, logging.Logger)}}
            return {{
                "jax": dict(jax.config.values),
                "x64": jax.numpy.ones(1).dtype,
                "environment": dict(os.environ),
                "warnings": list(warnings.filters),
                "showwarning": warnings.showwarning,
                "logging": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
                "jax loggers": {{name: values for name, values in loggers.items() if name.startswith("jax")}},
                "numpy": __import__("numpy").geterr(),
                "directory": os.getcwd(),
                "recursion": sys.getrecursionlimit(),
                "hooks": (sys.excepthook, sys.displayhook),
            }}

        before = state()
        import delphi_jax
        import delphi_jax.fit.study
        from delphi_jax.io.study import load_study
        imported = state()
        study = load_study({str(ROOT / "data")!r})
        fit = delphi_jax.fit.study.fit_study(study, draws=20)
        assert fit.sweep is not None and fit.downstream
        after = state()
        for name in before:
            assert before[name] == imported[name], ("import", name)
            assert before[name] == after[name], ("fit", name)
        heavy = sorted({{"scipy.optimize", "sklearn", "pandas", "plotly", "rich"}} & set(sys.modules))
        assert not heavy, heavy
        print("unchanged")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "unchanged"
    assert done.stderr == ""
