"""Derived columns: suites, run types, seeds, buckets, grid matching, token horizons, orders."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delphi_jax.definition import delphi
from delphi_jax.io import load_study
from delphi_jax.tables import (
    RunTable,
    eval_table,
    fit_runs,
    match_grids,
    rounded,
    run_table,
    seed_label,
    suite_of,
)
from tests.delphi import GSM8K, MMLU, SWEEP

ADAMH, ADAMC = "Delphi Scaling Suite (AdamH)", "Initial Scaling Suite (Cautious AdamC)"
H_NAME, C_NAME = "isoflop-{}-adamh_scaling_v6", "isoflop-{}-nemo-wider-depth-adapt"


def runs_of(rows: list[tuple[str, float, float, str | None]]) -> RunTable:
    """Runs from (name, params, total_gflops, state)."""
    names, params, gflops, states = zip(*rows, strict=True)
    n = len(rows)
    runs, skipped = run_table(
        np.array(names, dtype=object),
        np.array(params, dtype=np.float64),
        np.full(n, 1e9),
        np.linspace(3, 4, n),
        1e9 * np.array(gflops, dtype=np.float64),
        labels={"state": np.array(states, dtype=object)},
    )
    assert skipped == []
    return runs


@pytest.mark.parametrize(
    ("name", "suite"),
    [
        ("isoflop-3e+18-d512-adamh_scaling_v6", ADAMH),
        ("isoflop-3e+18-d512-ADAMH_Scaling_V6", ADAMH),
        ("adamh-scaling-ladder-nemotron-optimal-1e+21", ADAMH),
        ("AdamH-Scaling-Ladder-Nemotron-optimal-1e+21", ADAMH),
        ("isoflop-1e+18-nemo-wider-depth-adapt", ADAMC),
        ("exp2166-scaling-ladder-Nemotron-validation-optimal-1e+21", ADAMC),
        ("isoflop-1e+18-dclm", "Unknown"),
        ("adamh_scaling_v5", "Unknown"),
    ],
)
def test_suite(name: str, suite: str) -> None:
    assert suite_of(delphi(), name) == suite


@pytest.mark.parametrize(
    ("name", "expected"), [("x-optimal-1e+21", True), ("x-OPTIMAL", True), ("isoflop-1e+18", False)]
)
def test_held_out(name: str, expected: bool) -> None:
    assert runs_of([(name, 1e9, 3e9, None)]).held_out[0] == expected


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("a-v5-seed42-ccd215", "42"),
        ("a-v5-seed62746-23", "62746"),
        ("a-v5-seed007-23", "007"),
        ("a-v5-019021", "default"),
        ("a-seed42", "default"),
        ("a-seed-42-b", "default"),
        ("seed42-a", "default"),
        ("a-seedx42-b", "default"),
    ],
)
def test_seed(name: str, label: str) -> None:
    assert seed_label(delphi().seeds, name) == label


@given(st.floats(1e-25, 1e59))
def test_bucket_is_the_correctly_rounded_decimal(gflops: float) -> None:
    exact = Decimal(gflops)
    quantum = Decimal(1).scaleb(exact.adjusted() - 1)
    assert rounded(gflops, 2) == float(exact.quantize(quantum, rounding=ROUND_HALF_EVEN))


@pytest.mark.parametrize(
    ("gflops", "bucket"),
    [
        (300000892854.29034, 3e11),
        (9.0001e9, 9e9),
        (1.8499e10, 1.8e10),
        (9.96e9, 1e10),
        (1.05e9, 1e9),  # halfway: to even
        (1.15e9, 1.2e9),
        (62000000000000.0, 6.2e13),
    ],
)
def test_bucket(gflops: float, bucket: float) -> None:
    assert rounded(gflops, 2) == bucket
    assert runs_of([("a", 1e9, gflops, None)]).bucket[0] == np.float64(bucket) * 1e9


@pytest.mark.parametrize(
    ("tokens", "horizon"),
    [
        (1.0, "1B"),
        (np.nextafter(1.75e9, 0), "1B"),
        (1.75e9, "2.5B"),
        (np.nextafter(3e9, 0), "2.5B"),
        (3e9, "5B"),
        (1e15, "5B"),
    ],
)
def test_token_horizon(tokens: float, horizon: str) -> None:
    assert SWEEP.horizon_of(float(tokens)) == horizon


@pytest.mark.parametrize(
    ("state", "finished"),
    [
        (None, True),
        ("finished", True),
        ("FINISHED", True),
        (" Finished ", True),
        ("crashed", False),
        ("", False),
    ],
)
def test_state(state: str | None, finished: bool) -> None:
    assert runs_of([("a", 1e9, 3e9, state)]).finished[0] == finished


class TestGridMatching:
    def test_drops_cells_that_adamh_lacks(self) -> None:
        runs = runs_of(
            [
                (C_NAME.format("other-params"), 2.0e8, 3e9, None),
                (H_NAME.format(1), 1.0e8, 3.0001e9, None),
                (C_NAME.format("same"), 1.0e8 + 4e5, 2.9999e9, None),
                (C_NAME.format("below"), 1.0e8 - 4e5, 3e9, None),
                (C_NAME.format("other-bucket"), 1.0e8, 9e9, None),
                ("dclm", 5e8, 3e9, None),
                ("nemotron-optimal", 5e8, 3e9, None),
            ]
        )
        kept, (skipped,) = match_grids(runs)
        assert skipped.names == (C_NAME.format("other-params"), C_NAME.format("other-bucket"))
        same = [C_NAME.format("same"), C_NAME.format("below")]
        assert kept.name.tolist() == [H_NAME.format(1), *same, "dclm", "nemotron-optimal"]

    @pytest.mark.parametrize("name", [H_NAME, C_NAME, "dclm-{}"])
    def test_one_suite_is_left_alone(self, name: str) -> None:
        runs = runs_of([(name.format(i), 1e8 * (i + 1), 3e9, None) for i in range(3)])
        assert match_grids(runs) == (runs, [])

    def test_held_out_runs_do_not_make_a_suite_present(self) -> None:
        runs = runs_of([(C_NAME.format(1), 1e8, 3e9, None), ("adamh-scaling-ladder-optimal-1e+21", 3e9, 1e12, None)])
        assert match_grids(runs) == (runs, [])

    def test_a_crashed_run_is_no_grid_cell(self) -> None:
        runs = runs_of(
            [
                (H_NAME.format(1), 1e8, 3e9, None),
                (H_NAME.format("crashed"), 2e8, 3e9, "crashed"),
                (C_NAME.format(1), 1e8, 3e9, None),
                (C_NAME.format(2), 2e8, 3e9, None),
            ]
        )
        kept, (skipped,) = match_grids(runs)
        assert skipped.names == (C_NAME.format(2),)
        assert len(kept) == 3

    def test_only_crashed_adamh_runs_match_nothing(self) -> None:
        runs = runs_of([(H_NAME.format(1), 1e8, 3e9, "crashed"), (C_NAME.format(1), 2e8, 3e9, None)])
        assert match_grids(runs) == (runs, [])


def test_fit_runs_leaves_out_held_out_and_crashed() -> None:
    runs = runs_of(
        [
            ("a", 1e8, 3e9, None),
            ("b", 1e8, 3e9, "crashed"),
            ("c-optimal", 1e8, 3e9, "finished"),
            ("d-optimal", 1e8, 3e9, "crashed"),
            ("e", 1e8, 3e9, "Finished"),
        ]
    )
    kept, skipped = fit_runs(runs)
    assert kept.name.tolist() == ["a", "e"]
    assert skipped is not None
    assert (skipped.table, skipped.names) == ("runs", ("b",))
    assert fit_runs(kept)[1] is None


def test_evals_are_ordered_by_shot_then_budget_and_ties_keep_their_order() -> None:
    budget = np.array([2.0, 1.0, 1.0, 2.0, 1.0])
    shot = np.array([5.0, 5.0, 0.0, 0.0, 5.0])
    soft = -np.arange(1.0, 6.0)
    table = eval_table(MMLU, budget, soft, np.linspace(0, 1, 5), shot)
    assert table.shot.tolist() == [0, 0, 5, 5, 5]
    assert table.budget.tolist() == [1, 2, 1, 1, 2]
    assert table.soft.tolist() == [3, 4, 2, 5, 1]
    assert table.hard.tolist() == [0.5, 0.75, 0.25, 1.0, 0.0]


def test_bits_per_byte_keep_their_sign_and_shot_is_the_task_s() -> None:
    table = eval_table(GSM8K, np.array([3.0, 1.0]), np.array([0.5, 0.9]), np.array([np.nan, 0.1]), None)
    assert table.soft.tolist() == [0.9, 0.5]
    assert table.shot.tolist() == [5, 5]
    np.testing.assert_array_equal(table.hard, [0.1, np.nan])


def test_golden_counts_and_buckets(golden_dir: Path) -> None:
    numbers = json.loads((golden_dir / "numbers.json").read_text())
    study = load_study(golden_dir / "data")
    off_grid = [part for part in study.skipped if part.table == "runs" and "not among" in part.reason]
    assert len(study.runs) == numbers["n_after_grid_match"] == 172
    assert len(study.runs) + off_grid[0].count == numbers["n_loaded"] == 176
    isoflop, left_out = fit_runs(study.runs)
    assert left_out is None
    assert np.unique(isoflop.bucket).tolist() == [float(np.float64(g) * 1e9) for g in numbers["gflop_groups"]]
    assert sorted(set(isoflop.suite)) == numbers["quantizers"]
    for parabola in numbers["parabolas"]:
        rows = (isoflop.suite == parabola["suite"]) & (isoflop.bucket == parabola["gflops_bucket"] * 1e9)
        assert rows.sum() == parabola["n_points"]


def test_golden_sweep_cells(golden_dir: Path) -> None:
    numbers = json.loads((golden_dir / "numbers.json").read_text())
    sweep = load_study(golden_dir / "data", tables={"sweep"}).sweep
    assert sweep is not None
    assert len(numbers["gp_cells"]) == 24
    for cell in numbers["gp_cells"]:
        rows = (
            (sweep.batch_size == cell["batch_size"])
            & (sweep.hidden_dim == cell["hidden_dim"])
            & (sweep.horizon == cell["token_bucket"])
        )
        assert rows.sum() == (0 if cell["empty"] else cell["n_finished"])


def test_golden_downstream_points(golden_dir: Path) -> None:
    numbers = json.loads((golden_dir / "numbers.json").read_text())
    mmlu = load_study(golden_dir / "data").externals["mmlu"]
    assert (-mmlu.soft).tolist() == numbers["richards"]["MMLU"]["x"]
    assert mmlu.hard.tolist() == numbers["richards"]["MMLU"]["y"]


def test_import_needs_only_numpy() -> None:
    heavy = ("pydantic", "pandas", "jax", "scipy", "plotly", "pyarrow", "delphi_jax.schema")
    code = f"import sys, delphi_jax.tables; print([m for m in {heavy} if m in sys.modules])"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
