"""The whole ``figures`` command against the baseline's, each in a fresh process, turn and turn about."""

from __future__ import annotations

import base64
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.measure import machine, timed

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"

OPTIMISED = ("mmlu-emergence", "hparam-scaling")
"""Figures that rest on an optimiser, which may stop anywhere within its tolerance."""


def test_empty_cache(benchmark: Any, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    cache = tmp_path / "cache"
    _compare(
        "command, empty cache",
        3,
        benchmark,
        tmp_path,
        pytestconfig,
        before=lambda: shutil.rmtree(cache, ignore_errors=True),
    )


def test_filled_cache(benchmark: Any, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    _run_ours(tmp_path)
    _compare("command, filled cache", 6, benchmark, tmp_path, pytestconfig, before=lambda: None)


def _compare(
    name: str,
    target: float,
    benchmark: Any,
    folder: Path,
    config: pytest.Config,
    *,
    before: Callable[[], Any],
) -> None:
    baseline_times: list[float] = []

    def setup() -> None:
        before()
        baseline_times.append(timed(lambda: _run("benchmarks.baseline_command", folder / "baseline"))[0])

    benchmark.pedantic(lambda: _run_ours(folder), setup=setup, rounds=config.getoption("--rounds"))
    benchmark.extra_info.update(
        name=name,
        size=f"{benchmark.stats.stats.rounds} rounds",
        target=target,
        baseline_seconds=statistics.median(baseline_times),
        baseline_share=1.0,
        machine=machine(),
        **_differences(folder / "ours", folder / "baseline"),
    )


def _run_ours(folder: Path) -> None:
    _run("delphi_jax", folder / "ours", "figures", options=("--cache-dir", str(folder / "cache")))


def _run(module: str, out: Path, *command: str, options: tuple[str, ...] = ()) -> None:
    """One command in a fresh process, its BLAS on one thread, from compiled Python files."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    arguments = [*command, "--data", str(DATA), "--out", str(out), *options]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", module, *arguments],
        cwd=ROOT,
        env=environment | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )


def _differences(ours: Path, plain: Path) -> dict[str, Any]:
    """The largest relative difference of any number in any figure; of optimised figures apart."""
    found: dict[bool, float] = {False: 0.0, True: 0.0}
    names = sorted(path.name for path in plain.iterdir())
    missing = set(names) - {path.name for path in ours.iterdir()}
    for name in sorted(set(names) - missing):
        pair = (_numbers(json.loads((folder / name).read_text())) for folder in (ours, plain))
        actual, expected = (np.concatenate(list(numbers)) for numbers in pair)
        assert actual.shape == expected.shape, f"{name} holds other numbers than the baseline's"
        distance = np.abs(actual - expected) / np.maximum(np.abs(expected), 1e-12)
        optimised = name.startswith(OPTIMISED)
        found[optimised] = max(found[optimised], float(np.nanmax(distance)))
    return {
        "difference": found[False],
        "difference_optimised": found[True],
        "compared": len(names),
        "failures": len(missing),
    }


def _numbers(node: Any) -> list[np.ndarray]:
    """Every number of a figure in order; plotly's typed arrays decoded, its template left out."""
    if isinstance(node, dict):
        if "bdata" in node:
            return [np.frombuffer(base64.b64decode(node["bdata"]), dtype=node["dtype"]).astype(float)]
        return [item for key in sorted(node) if key != "template" for item in _numbers(node[key])]
    if isinstance(node, list):
        return [item for value in node for item in _numbers(value)]
    return [np.array([node], dtype=float)] if isinstance(node, (int, float)) and not isinstance(node, bool) else []
