"""How a hot loop is timed against the baseline: one BLAS thread, turn and turn about, compile time apart."""

from __future__ import annotations

import os

# Before a BLAS is loaded: its idle threads spin, which slows down both sides.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import statistics
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import pytest
from threadpoolctl import threadpool_limits

from benchmarks.measure import machine, timed

A = TypeVar("A")
B = TypeVar("B")

_BASELINE_ROUNDS = 2
"""Rounds of the baseline before ours, and again after."""
_ROUNDS = 7


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=1, help="rounds of each whole command (default: 1)")


@pytest.fixture(scope="session", autouse=True)
def _one_blas_thread() -> Iterator[None]:
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture
def compare(benchmark: Any) -> Callable[..., tuple[Any, Any]]:
    """Time ``ours`` (a kernel on NumPy arrays) against ``plain`` (the baseline), and return both results.

    ``share`` is the part of our problems that the baseline is given: its time is divided by it. ``public`` is the
    same work by way of the package's public function, arrays in and results out.
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
    ) -> tuple[A, B]:
        # The first computation of a process also starts JAX: that is no kernel's cost.
        jax.block_until_ready(jax.numpy.zeros(1) + 1)
        jax.clear_caches()
        first, result = timed(lambda: jax.block_until_ready(ours()))
        rounds = [timed(plain) for _ in range(_BASELINE_ROUNDS)]
        benchmark.pedantic(lambda: jax.block_until_ready(ours()), rounds=_ROUNDS, warmup_rounds=1)
        rounds += [timed(plain) for _ in range(_BASELINE_ROUNDS)]
        steady = benchmark.stats.stats.median
        benchmark.extra_info.update(
            name=name,
            size=size,
            target=target,
            baseline_seconds=statistics.median(seconds for seconds, _ in rounds) / share,
            baseline_share=share,
            first_call_seconds=first,
            compile_seconds=first - steady,
            machine=machine(),
        )
        if public is not None:
            public()
            times = [timed(public)[0] for _ in range(_ROUNDS)]
            benchmark.extra_info["public_seconds"] = statistics.median(times)
        return result, rounds[0][1]

    return run
