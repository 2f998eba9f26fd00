"""How a hot loop is timed against the baseline: one BLAS thread, turn and turn about, compile time apart."""

from __future__ import annotations

import os

# Before a BLAS is loaded: its idle threads spin, which slows down both sides.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import dataclasses
import statistics
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
import pytest
from pytest_benchmark.logger import PytestBenchmarkWarning
from threadpoolctl import threadpool_limits

from benchmarks import baseline
from benchmarks.floors import Rates, Work, attainable
from benchmarks.measure import machine, timed
from benchmarks.problems import budgets, noisy_laws

A = TypeVar("A")
B = TypeVar("B")

SCALES = ("small", "large")

_BLOCKS = 4
"""Blocks of rounds, each after a run of the baseline; a last run of the baseline ends them."""
_PER_BLOCK = 2
_CONTROLS = 9


class _Session:
    """What is measured beside the benchmarks: the machine's rates, and one piece of work again and again."""

    def __init__(self) -> None:
        self.controls: list[float] = []
        self.rates: Rates | None = None
        self._loss = noisy_laws(np.random.default_rng(0), 1)[0]

    def control(self) -> None:
        """Median seconds of a fixed piece of NumPy work: what changes in it is the machine's doing."""
        times = [timed(lambda: baseline.fit_free(budgets(), self._loss, 100))[0] for _ in range(_CONTROLS)]
        self.controls.append(statistics.median(times))


_SESSION = pytest.StashKey[_Session]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=1, help="turns of the whole commands, three runs of ours in each")
    parser.addoption(
        "--scale", choices=SCALES, default="small", help="small (default): under two minutes; large: studies too"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SESSION] = _Session()
    config.addinivalue_line("markers", "large: only with --scale large")
    # As an error, the note that nothing was saved would hide why.
    warnings.filterwarnings("default", category=PytestBenchmarkWarning)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--scale") == "large":
        return
    large = [item for item in items if item.get_closest_marker("large")]
    items[:] = [item for item in items if item not in large]
    config.hook.pytest_deselected(items=large)


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    session = config.stash[_SESSION]
    output_json["session"] = {
        "scale": config.getoption("--scale"),
        "machine": machine(),
        "controls": session.controls,
        "rates": dataclasses.asdict(session.rates) if session.rates else None,
    }


@pytest.fixture(scope="session", autouse=True)
def _one_blas_thread(pytestconfig: pytest.Config) -> Iterator[None]:
    with threadpool_limits(1, user_api="blas"):
        pytestconfig.stash[_SESSION].control()
        yield


@pytest.fixture(autouse=True)
def _drift(pytestconfig: pytest.Config) -> Iterator[None]:
    yield
    pytestconfig.stash[_SESSION].control()


@pytest.fixture(scope="session")
def rates(pytestconfig: pytest.Config) -> Rates:
    """What the machine attains, measured once a session."""
    session = pytestconfig.stash[_SESSION]
    session.rates = attainable()
    return session.rates


@pytest.fixture
def compare(benchmark: Any, rates: Rates) -> Callable[..., tuple[Any, Any]]:
    """Time ``ours`` (a kernel on NumPy arrays) against ``plain`` (the baseline), and return both results.

    ``share`` is the part of our problems that the baseline is given: its time is divided by it. ``public`` is the
    same work by way of the package's public function, arrays in and results out. ``work`` is the kernel's floor.
    """

    def run(
        name: str,
        ours: Callable[[], A],
        plain: Callable[[], B],
        *,
        size: str,
        target: float | None = None,
        share: float = 1.0,
        public: Callable[[], Any] | None = None,
        work: Work | None = None,
        kind: str = "kernel",
    ) -> tuple[A, B]:
        # The first computation of a process also starts JAX: that is no kernel's cost.
        jax.block_until_ready(jax.numpy.zeros(1) + 1)
        jax.clear_caches()
        first, result = timed(lambda: jax.block_until_ready(ours()))
        rounds: list[tuple[float, B]] = []
        begun = 0

        def take_turns() -> None:
            nonlocal begun
            if begun % _PER_BLOCK == 0:
                rounds.append(timed(plain))
                jax.block_until_ready(ours())
            begun += 1

        benchmark.pedantic(
            lambda: jax.block_until_ready(ours()), setup=take_turns, rounds=_BLOCKS * _PER_BLOCK, warmup_rounds=0
        )
        rounds.append(timed(plain))
        steady = benchmark.stats.stats.median
        baseline_rounds = [seconds / share for seconds, _ in rounds]
        benchmark.extra_info.update(
            kind=kind,
            name=name,
            size=size,
            target=target,
            baseline_seconds=statistics.median(baseline_rounds),
            baseline_rounds=baseline_rounds,
            baseline_share=share,
            first_call_seconds=first,
            compile_seconds=first - steady,
            machine=machine(),
        )
        if work is not None:
            benchmark.extra_info.update(operations=work.operations, bytes=work.bytes, floor_seconds=work.seconds(rates))
        if public is not None:
            public()
            times = [timed(public)[0] for _ in range(_BLOCKS * _PER_BLOCK)]
            benchmark.extra_info["public_seconds"] = statistics.median(times)
        # NumPy arrays: outside the kernels JAX would sum them in 32 bits.
        return jax.device_get(result), rounds[0][1]

    return run
