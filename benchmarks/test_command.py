"""The whole ``figures`` command against the baseline's, each in a fresh process, turn and turn about."""

from __future__ import annotations

import base64
import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.measure import machine, timed
from benchmarks.processes import ROOT, run_python

DATA = ROOT / "data"

FLOOR = "import jax, pandas, plotly; jax.jit(lambda x: x + 1)(1.0).block_until_ready()"
"""What no command on these libraries can do without: their imports, and one trivial function compiled."""

_PER_TURN = 3
"""Runs of ours and of the floor in a turn; the baseline, slow enough to be steady, runs once."""

OPTIMISED = ("mmlu-emergence", "hparam-scaling")
"""Figures that rest on an optimiser, which may stop anywhere within its tolerance."""


def test_empty_cache(benchmark: Any, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    cache = tmp_path / "cache"
    _compare(
        "command, empty cache",
        (5, 8),
        benchmark,
        tmp_path,
        pytestconfig,
        before=lambda: shutil.rmtree(cache, ignore_errors=True),
    )


def test_filled_cache(benchmark: Any, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    _run_ours(tmp_path)
    _compare("command, filled cache", (10, 15), benchmark, tmp_path, pytestconfig, before=lambda: None)


def _compare(
    name: str,
    target: tuple[float, float],
    benchmark: Any,
    folder: Path,
    config: pytest.Config,
    *,
    before: Callable[[], Any],
) -> None:
    """``target`` is the ratio to reach, and the one to aim for."""
    baseline_times: list[float] = []
    floor_times: list[float] = []

    def setup() -> None:
        if len(floor_times) % _PER_TURN == 0:
            baseline_times.append(timed(lambda: _run("benchmarks.baseline_command", folder / "baseline"))[0])
        floor_times.append(timed(lambda: run_python("-c", FLOOR))[0])
        before()

    benchmark.pedantic(lambda: _run_ours(folder), setup=setup, rounds=_PER_TURN * config.getoption("--rounds"))
    benchmark.extra_info.update(
        kind="command",
        name=name,
        size=f"{benchmark.stats.stats.rounds} runs",
        target=target[0],
        aim=target[1],
        baseline_seconds=statistics.median(baseline_times),
        baseline_rounds=baseline_times,
        baseline_share=1.0,
        floor_seconds=statistics.median(floor_times),
        floor_rounds=floor_times,
        machine=machine(),
        **_differences(folder / "ours", folder / "baseline"),
    )


def _run_ours(folder: Path) -> None:
    _run("delphi_jax", folder / "ours", "figures", options=("--cache-dir", str(folder / "cache")))


def _run(module: str, out: Path, *command: str, options: tuple[str, ...] = ()) -> None:
    run_python("-m", module, *command, "--data", str(DATA), "--out", str(out), *options)


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
