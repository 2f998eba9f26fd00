"""What the benchmarks share: a clock, two measures of error, memory, and what the machine is."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from threadpoolctl import threadpool_info

__all__ = ["largest_difference", "machine", "peak_memory", "timed", "worse"]

T = TypeVar("T")

_PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "scikit-learn", "pandas", "plotly")
_AHEAD = 1e-9
"""Relative: what another optimiser may be ahead by before a result counts as worse."""


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Wall-clock seconds of one call, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def largest_difference(actual: Any, expected: Any) -> float:
    """The largest \\|actual - expected\\| / \\|expected\\|."""
    actual, expected = np.asarray(actual, dtype=float), np.asarray(expected, dtype=float)
    return float(np.max(np.abs(actual - expected) / np.abs(expected), initial=0.0))


def worse(actual: Any, expected: Any) -> int:
    """How many of the minimised objectives ``actual`` lie above ``expected``, by more than rounding."""
    actual, expected = np.asarray(actual, dtype=float), np.asarray(expected, dtype=float)
    return int(np.sum(actual > expected + _AHEAD * np.abs(expected)))


def peak_memory() -> int:
    """Bytes of memory that this process has held at most.

    Linux's VmHWM starts anew with the program; elsewhere ``ru_maxrss`` has to do, which a forked process may inherit.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine() -> dict[str, Any]:
    """What both sides run on."""
    blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "blas threads": max(blas, default=1),
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in _PACKAGES},
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
