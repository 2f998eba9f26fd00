"""Reading a data folder: every format, every rule that leaves rows out, and everything that can be wrong."""

from __future__ import annotations

import copy
import csv
import json
import math
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delphi_jax.io import load_study
from delphi_jax.status import InputError
from delphi_jax.tables import Study

Row = dict[str, Any]

FORMATS = ("json", "csv", "parquet")
SWEEP_LOSS = "eval/paloma/macro_loss"

RUN = {
    "name": "isoflop-3e+18-d{}-adamh_scaling_v6",
    "params": 2e8,
    "tokens": 2.5e9,
    "loss": 3.5,
    "total_gflops": 3e9,
    "state": "finished",
}
TRIAL = {
    "state": "finished",
    "batch_size": 8,
    "hidden_dim": 256,
    "tokens": 1e9,
    "lr": 0.004,
    "adam_lr": 0.0004,
    "epsilon": 1e-8,
    "beta1": 0.9,
    "beta2": 0.999,
    SWEEP_LOSS: 4.25,
}
EVALS = {
    "mmlu": {"run_name": "own-{}", "budget": 3e18, "shot": 5, "accuracy": 0.5, "choice_logprob": -0.75},
    "mmlu_external": {"run_name": "model-{}", "accuracy": 0.5, "choice_logprob": -0.75},
    "humaneval": {"run_name": "own-{}", "budget": 3e18, "macro_bpb": 0.75, "pass_at_1": 0.125},
    "humaneval_external": {"display_name": "model-{}", "macro_bpb": 0.75, "pass_at_1": 0.125},
    "gsm8k": {"run_name": "own-{}", "budget": 3e18, "macro_bpb": 0.75, "exact_match_flex": 0.125},
    "gsm8k_external": {"display_name": "model-{}", "macro_bpb": 0.75, "exact_match_flex": 0.125},
}
TEMPLATES: dict[str, Row] = {"runs": RUN, "hparam_sweep": TRIAL, **EVALS}

POSITIVE_NONSENSE = (0.0, -1.0, math.inf, -math.inf, 1e80)
NONSENSE: dict[str, tuple[float, ...]] = {
    "params": POSITIVE_NONSENSE,
    "tokens": POSITIVE_NONSENSE,
    "total_gflops": POSITIVE_NONSENSE,
    "budget": POSITIVE_NONSENSE,
    "loss": (0.0, -2.5, -math.inf, 1e80),
    SWEEP_LOSS: (0.0, -2.5, -math.inf, 1e80),
    "batch_size": (0.0, -8.0, math.inf, 0.25, 1e12),
    "hidden_dim": (0.0, -8.0, math.inf, 1e12),
    "lr": (0.0, -0.1, math.inf),
    "adam_lr": (0.0, -0.1, math.inf),
    "epsilon": (-1e-8, math.inf),
    "beta1": (-0.1, 1.0, 1.5, math.inf),
    "beta2": (-0.1, 1.0, 1.5, -math.inf),
    "shot": (-1.0, 2.5, math.inf),
    "accuracy": (-0.01, 1.01, 50.0, math.inf),
    "pass_at_1": (-0.01, 1.01, 50.0, math.inf),
    "exact_match_flex": (-0.01, 1.01, 50.0, math.inf),
    "choice_logprob": (0.0, 0.75, math.inf, -math.inf),
    "macro_bpb": (0.0, -0.75, math.inf, 1e80),
}
TEXT = {"name", "state", "run_name", "display_name"}
OPTIONAL = {"state", "run_name", "display_name"}
KEPT_WHEN_MISSING = {"pass_at_1", "exact_match_flex"}


def rows_of(table: str, n: int = 3) -> list[Row]:
    """``n`` valid rows that differ in name and in one number."""
    rows = []
    for i in range(n):
        row = {key: value.format(i) if isinstance(value, str) else value for key, value in TEMPLATES[table].items()}
        moving = next(c for c in ("tokens", "macro_bpb", "choice_logprob") if c in row)
        rows.append(row | {moving: row[moving] * (1 + i / 16)})
    return rows


def write(folder: Path, table: str, rows: Sequence[Row], suffix: str = "json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{table}.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps(rows))
    elif suffix == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pa = pytest.importorskip("pyarrow", reason="Parquet needs the [parquet] extra")
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def load(folder: Path, table: str) -> Study:
    return load_study(folder, tables={{"runs": "runs", "hparam_sweep": "sweep"}.get(table, "tasks")})


def length(study: Study, table: str) -> int:
    if table == "runs":
        return len(study.runs)
    if table == "hparam_sweep":
        return 0 if study.sweep is None else len(study.sweep)
    part = study.externals if table.endswith("_external") else study.evals
    key = table.removesuffix("_external")
    return len(part[key].soft) if key in part else 0


def refused(folder: Path, table: str, *needles: str) -> str:
    """Load, which must fail, with a message that holds every needle."""
    with pytest.raises(InputError) as caught:
        load(folder, table)
    message = str(caught.value)
    for needle in needles:
        assert needle in message, f"{needle!r} not in: {message}"
    return message


def place(suffix: str, row: int) -> str:
    return f"line {row + 2}" if suffix == "csv" else f"row {row}"


def numeric_columns(table: str) -> list[str]:
    return [column for column in TEMPLATES[table] if column not in TEXT]


COLUMNS = [(table, column) for table in TEMPLATES for column in numeric_columns(table)]


# Good input


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("table", TEMPLATES)
def test_every_table_in_every_format(tmp_path: Path, table: str, suffix: str) -> None:
    write(tmp_path, table, rows_of(table), suffix)
    study = load(tmp_path, table)
    assert length(study, table) == 3
    assert not study.skipped


def test_formats_agree_to_the_last_bit(tmp_path: Path) -> None:
    studies = []
    for suffix in FORMATS:
        for table in TEMPLATES:
            rows = rows_of(table)
            for row in rows:
                for column in row:
                    if isinstance(row[column], float):
                        row[column] = row[column] * (1 + 1 / 3 * 1e-6)
            write(tmp_path / suffix, table, rows, suffix)
        studies.append(load_study(tmp_path / suffix))
    first = studies[0]
    for study in studies[1:]:
        for column in first.runs.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(study.runs, column), getattr(first.runs, column))
        assert first.sweep is not None
        for column in first.sweep.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(study.sweep, column), getattr(first.sweep, column))
        for key in first.evals:
            np.testing.assert_array_equal(study.evals[key].soft, first.evals[key].soft)
            assert study.externals[key].name.tolist() == first.externals[key].name.tolist()


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("table", TEMPLATES)
def test_extra_columns_are_ignored_whatever_they_hold(tmp_path: Path, table: str, suffix: str) -> None:
    rows = [row | {"notes": "x", "extra": float("nan")} for row in rows_of(table)]
    write(tmp_path, table, rows, suffix)
    assert length(load(tmp_path, table), table) == 3


@pytest.mark.parametrize("table", TEMPLATES)
def test_a_label_that_is_no_text_is_ignored_where_nothing_depends_on_it(tmp_path: Path, table: str) -> None:
    column = "display_name" if table == "mmlu_external" else "run_name"
    if table in ("runs", "hparam_sweep"):
        column = "id"
    write(tmp_path, table, [row | {column: 7} for row in rows_of(table)])
    assert length(load(tmp_path, table), table) == 3


@pytest.mark.parametrize("table", TEMPLATES)
def test_one_row_is_enough(tmp_path: Path, table: str) -> None:
    write(tmp_path, table, rows_of(table, 1))
    assert length(load(tmp_path, table), table) == 1


@pytest.mark.parametrize("table", TEMPLATES)
def test_byte_order_mark_and_blank_lines(tmp_path: Path, table: str) -> None:
    path = write(tmp_path, table, rows_of(table))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\n\n")
    assert length(load(tmp_path, table), table) == 3
    path.unlink()
    path = write(tmp_path, table, rows_of(table), "csv")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\n\n") + b"\n\n")
    assert length(load(tmp_path, table), table) == 3


def test_file_order_is_kept(tmp_path: Path) -> None:
    rows = rows_of("runs", 12)
    random.Random(3).shuffle(rows)
    write(tmp_path, "runs", rows)
    assert load(tmp_path, "runs").runs.name.tolist() == [row["name"] for row in rows]


def test_sweep_columns_and_rounding(tmp_path: Path) -> None:
    rows = rows_of("hparam_sweep", 1)
    rows[0] |= {"batch_size": 15.6, "hidden_dim": 512.0, "tokens": 2.4e9, "epsilon": 0.0, "beta1": 0.0}
    write(tmp_path, "hparam_sweep", rows)
    sweep = load(tmp_path, "hparam_sweep").sweep
    assert sweep is not None
    assert (sweep.batch_size[0], sweep.hidden_dim[0], sweep.horizon[0]) == (16, 512, "2.5B")
    row = dict(zip(sweep.design.keys, sweep.features[0], strict=True))
    assert (row["epsilon"], row["beta1"], sweep.loss[0]) == (0.0, 0.0, 4.25)


@pytest.mark.parametrize("task", ["mmlu", "humaneval", "gsm8k"])
def test_names_of_external_models(tmp_path: Path, task: str) -> None:
    table = f"{task}_external"
    rows = rows_of(table, 4)
    for row in rows:
        row.pop("run_name", None)
        row.pop("display_name", None)
    rows[0] |= {"run_name": "Qwen--Qwen3-0-6B-Base--a541fe_lmeval", "display_name": "Shown"}
    rows[1] |= {"run_name": "Llama-3-2-1B"}
    rows[2] |= {"display_name": "Shown", "run_name": " "}
    write(tmp_path, table, rows)
    names = load(tmp_path, table).externals[task].name.tolist()
    first = "Qwen 3 Base 0.6B" if task == "mmlu" else "Shown"
    assert names == [first, "Llama 3.2 1B", "Shown", "external model 4"]


@pytest.mark.parametrize("task", ["mmlu", "humaneval", "gsm8k"])
def test_external_models_without_any_name(tmp_path: Path, task: str) -> None:
    table = f"{task}_external"
    rows = [{k: v for k, v in row.items() if k not in TEXT} for row in rows_of(table, 2)]
    write(tmp_path, table, rows)
    assert load(tmp_path, table).externals[task].name.tolist() == ["external model 1", "external model 2"]


def test_optional_hard_metric_may_be_absent(tmp_path: Path) -> None:
    rows = [{"budget": 3e18 * (i + 1), "macro_bpb": 0.9} for i in range(3)]
    write(tmp_path, "gsm8k", rows)
    assert np.isnan(load(tmp_path, "gsm8k").evals["gsm8k"].hard).all()


def test_state_may_be_absent_from_runs(tmp_path: Path) -> None:
    write(tmp_path, "runs", [{k: v for k, v in row.items() if k != "state"} for row in rows_of("runs")])
    assert load(tmp_path, "runs").runs.finished.all()


def test_crashed_runs_stay_flagged(tmp_path: Path) -> None:
    rows = rows_of("runs")
    rows[1]["state"] = "crashed"
    rows[2]["state"] = None
    write(tmp_path, "runs", rows)
    study = load(tmp_path, "runs")
    assert study.runs.finished.tolist() == [True, False, True]
    assert not study.skipped


# Rows that a rule leaves out


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("missing", ["null", "nan", "absent"])
@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_missing_numbers(tmp_path: Path, table: str, column: str, missing: str, suffix: str) -> None:
    rows = rows_of(table)
    if missing == "absent":
        del rows[1][column]
    else:
        rows[1][column] = None if missing == "null" else math.nan
    write(tmp_path, table, rows, suffix)
    study = load(tmp_path, table)
    if column in KEPT_WHEN_MISSING:
        part = study.externals if table.endswith("_external") else study.evals
        assert np.isnan(part[table.removesuffix("_external")].hard).tolist() == [False, True, False]
        assert not study.skipped
        return
    assert length(study, table) == 2
    (skipped,) = study.skipped
    name = next((rows[1][c] for c in ("name", "run_name", "display_name") if c in rows[1]), place(suffix, 1))
    assert (skipped.table, skipped.reason, skipped.names) == (table, f"missing {column}", (name,))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("table", TEMPLATES)
def test_duplicates(tmp_path: Path, table: str, suffix: str) -> None:
    rows = rows_of(table)
    rows = [*rows, copy.deepcopy(rows[0]), copy.deepcopy(rows[0])]
    write(tmp_path, table, rows, suffix)
    study = load(tmp_path, table)
    assert length(study, table) == 3
    (skipped,) = study.skipped
    assert (skipped.reason, skipped.count) == ("duplicate of an earlier row", 2)


@pytest.mark.parametrize("column", ["pass_at_1", "exact_match_flex"])
def test_duplicates_with_missing_values_are_duplicates(tmp_path: Path, column: str) -> None:
    table = "humaneval" if column == "pass_at_1" else "gsm8k"
    write(tmp_path, table, [rows_of(table, 1)[0] | {column: None}] * 2)
    assert [part.count for part in load(tmp_path, table).skipped] == [1]


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_rows_that_differ_in_one_number_are_no_duplicates(tmp_path: Path, table: str, column: str) -> None:
    row = rows_of(table, 1)[0]
    other = row | {column: row[column] + 1 if column == "shot" else row[column] * (1 + 1e-4)}
    write(tmp_path, table, [row, other])
    assert length(load(tmp_path, table), table) == 2


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("table", "column"), [("runs", "loss"), ("hparam_sweep", SWEEP_LOSS)])
def test_infinite_loss_is_a_diverged_run(tmp_path: Path, table: str, column: str, suffix: str) -> None:
    rows = rows_of(table)
    rows[2][column] = math.inf
    write(tmp_path, table, rows, suffix)
    study = load(tmp_path, table)
    assert length(study, table) == 2
    assert [(part.reason, part.count) for part in study.skipped] == [("infinite loss (a diverged run)", 1)]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("state", ["crashed", "running", "failed", "", None])
def test_unfinished_trials(tmp_path: Path, state: str | None, suffix: str) -> None:
    rows = rows_of("hparam_sweep", 4)
    rows[0] |= {"state": state, SWEEP_LOSS: None, "lr": -1.0}
    rows[3]["state"] = "Finished"
    write(tmp_path, "hparam_sweep", rows, suffix)
    study = load(tmp_path, "hparam_sweep")
    assert length(study, "hparam_sweep") == 3
    (skipped,) = study.skipped
    found = f"'{state}'" if state else "nothing"
    assert (skipped.reason, skipped.names) == (f"state is {found}, not finished", (place(suffix, 0),))


def test_reasons_are_told_apart(tmp_path: Path) -> None:
    rows = rows_of("runs", 5)
    rows[0]["loss"] = None
    rows[1] |= {"loss": None, "tokens": None}
    rows[2]["loss"] = None
    rows[3] |= {"loss": math.inf, "state": "crashed"}
    write(tmp_path, "runs", rows)
    study = load(tmp_path, "runs")
    assert [(part.reason, part.names) for part in study.skipped] == [
        ("missing loss", (rows[0]["name"], rows[2]["name"])),
        ("missing tokens, loss", (rows[1]["name"],)),
        ("infinite loss (a diverged run)", (rows[3]["name"],)),
    ]


@pytest.mark.parametrize("name", ["Comma-v0.1-2T", "isoflop-1e+19-comma-mix-4582d5", "x-COMMA-x"])
def test_comma_runs_are_no_external_models_of_mmlu(tmp_path: Path, name: str) -> None:
    rows = rows_of("mmlu_external")
    rows[1]["run_name"] = name
    write(tmp_path, "mmlu_external", rows)
    (skipped,) = load(tmp_path, "mmlu_external").skipped
    assert skipped.names == (name,)
    rows = rows_of("gsm8k_external")
    rows[1]["display_name"] = name
    write(tmp_path, "gsm8k_external", rows)
    assert length(load(tmp_path, "gsm8k_external"), "gsm8k_external") == 3


@pytest.mark.parametrize("table", [table for table in TEMPLATES if table != "runs"])
def test_a_table_without_a_usable_row_is_missing_and_says_so(tmp_path: Path, table: str) -> None:
    column = next(c for c in ("choice_logprob", "macro_bpb", "lr") if c in TEMPLATES[table])
    path = write(tmp_path, table, [row | {column: None} for row in rows_of(table)])
    study = load(tmp_path, table)
    assert length(study, table) == 0
    assert [part.count for part in study.skipped] == [3]
    (missing,) = (missing for missing in study.missing if missing.table == table)
    assert str(path) in missing.how


def test_runs_without_a_usable_row(tmp_path: Path) -> None:
    write(tmp_path, "runs", [row | {"loss": None} for row in rows_of("runs")])
    refused(tmp_path, "runs", "runs.json", "no usable row", "3 left out: missing loss")


# Wrong values


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("table", "column", "value"), [(t, c, v) for t, c in COLUMNS for v in NONSENSE[c]])
def test_nonsense(tmp_path: Path, table: str, column: str, value: float, suffix: str) -> None:
    rows = rows_of(table)
    rows[1][column] = value
    write(tmp_path, table, rows, suffix)
    message = refused(tmp_path, table, f"{table}.{suffix}", place(suffix, 1), repr(column), "expected")
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize("value", ["3.5", "", "n/a", True, False, [3.5], {"value": 3.5}])
@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_wrong_types_in_json(tmp_path: Path, table: str, column: str, value: object) -> None:
    rows = rows_of(table)
    rows[2][column] = value
    write(tmp_path, table, rows)
    refused(tmp_path, table, f"{table}.json", "row 2", repr(column), "a number or null")


@pytest.mark.parametrize("value", ["abc", "1,5", "true", "3.5 nats", "--", "0x10", "1e", "=A1"])
@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_wrong_types_in_csv(tmp_path: Path, table: str, column: str, value: str) -> None:
    rows = rows_of(table)
    rows[2][column] = value
    write(tmp_path, table, rows, "csv")
    refused(tmp_path, table, f"{table}.csv", "line 4", repr(column), repr(value), "a number or null")


@pytest.mark.parametrize("value", ["3.5", True, b"3", [1.0]])
@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_wrong_types_in_parquet(tmp_path: Path, table: str, column: str, value: object) -> None:
    write(tmp_path, table, [row | {column: value} for row in rows_of(table)], "parquet")
    refused(tmp_path, table, f"{table}.parquet", "3 values", "row 0", repr(column), "a number or null")


@pytest.mark.parametrize("value", [3, 1.5, True, ["a"], {"a": 1}])
@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("runs", "name"),
        ("runs", "state"),
        ("hparam_sweep", "state"),
        ("mmlu_external", "run_name"),
        ("gsm8k_external", "display_name"),
    ],
)
def test_text_that_is_none(tmp_path: Path, table: str, column: str, value: object) -> None:
    rows = rows_of(table)
    rows[0][column] = value
    write(tmp_path, table, rows)
    refused(tmp_path, table, f"{table}.json", "row 0", repr(column), "text or null")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", ["", "  ", None])
def test_runs_need_names(tmp_path: Path, name: str | None, suffix: str) -> None:
    rows = rows_of("runs")
    rows[1]["name"] = name
    write(tmp_path, "runs", rows, suffix)
    refused(tmp_path, "runs", f"runs.{suffix}", place(suffix, 1), "'name'")


@pytest.mark.parametrize(("table", "column"), [(t, c) for t, c in COLUMNS if c not in ("loss", SWEEP_LOSS)])
def test_integers_beyond_float64(tmp_path: Path, table: str, column: str) -> None:
    rows = rows_of(table)
    rows[1][column] = 10**400
    write(tmp_path, table, rows)
    refused(tmp_path, table, f"{table}.json", "row 1", repr(column))


@pytest.mark.parametrize("table", TEMPLATES)
def test_integers_of_many_thousand_digits(tmp_path: Path, table: str) -> None:
    column = numeric_columns(table)[0]
    path = write(tmp_path, table, rows_of(table))
    path.write_text(path.read_text().replace(f'"{column}": ', f'"{column}": 1{"0" * 6000}', 1))
    refused(tmp_path, table, f"{table}.json", "not valid JSON")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_long_list_of_faults_is_cut(tmp_path: Path, suffix: str) -> None:
    rows = rows_of("runs", 40)
    for row in rows[3:]:
        row["loss"] = -1.0
    write(tmp_path, "runs", rows, suffix)
    message = refused(tmp_path, "runs", "37 values", place(suffix, 3), place(suffix, 7), "and 32 more")
    assert place(suffix, 8) not in message


# Wrong columns


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    ("table", "column"),
    [(t, c) for t in TEMPLATES for c in TEMPLATES[t] if c not in OPTIONAL or t == "hparam_sweep"],
)
def test_missing_columns(tmp_path: Path, table: str, column: str, suffix: str) -> None:
    rows = [{k: v for k, v in row.items() if k != column} for row in rows_of(table)]
    rows = [{"Other Column": 1, **row} for row in rows]
    write(tmp_path, table, rows, suffix)
    if column in KEPT_WHEN_MISSING and not table.endswith("_external"):
        assert length(load(tmp_path, table), table) == 3
        return
    refused(tmp_path, table, f"{table}.{suffix}", repr(column), "'Other Column'")


@pytest.mark.parametrize("table", TEMPLATES)
def test_rows_without_columns(tmp_path: Path, table: str) -> None:
    write(tmp_path, table, [{}, {}])
    refused(tmp_path, table, f"{table}.json", "none")


@pytest.mark.parametrize("table", TEMPLATES)
def test_a_column_twice_in_a_csv(tmp_path: Path, table: str) -> None:
    column = numeric_columns(table)[0]
    path = write(tmp_path, table, rows_of(table), "csv")
    path.write_text(
        "\n".join(f"{line},{column if i == 0 else 1}" for i, line in enumerate(path.read_text().splitlines()))
    )
    refused(tmp_path, table, f"{table}.csv", repr(column), "more than once")


# Wrong files


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("content", [b"", b" \n\t\n"])
@pytest.mark.parametrize("table", TEMPLATES)
def test_empty_files(tmp_path: Path, table: str, content: bytes, suffix: str) -> None:
    (tmp_path / f"{table}.{suffix}").write_bytes(content)
    refused(tmp_path, table, f"{table}.{suffix}", "is empty")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("table", TEMPLATES)
def test_no_rows(tmp_path: Path, table: str, suffix: str) -> None:
    if suffix == "json":
        write(tmp_path, table, [])
    elif suffix == "csv":
        (tmp_path / f"{table}.csv").write_text(",".join(TEMPLATES[table]) + "\n")
    else:
        pa = pytest.importorskip("pyarrow", reason="Parquet needs the [parquet] extra")
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows_of(table)).slice(0, 0), tmp_path / f"{table}.parquet")
    refused(tmp_path, table, f"{table}.{suffix}", "holds no rows")


@pytest.mark.parametrize("content", ["null", "5", '"text"', "true", '{"data": []}'])
@pytest.mark.parametrize("table", TEMPLATES)
def test_json_that_is_no_list(tmp_path: Path, table: str, content: str) -> None:
    (tmp_path / f"{table}.json").write_text(content)
    refused(tmp_path, table, f"{table}.json", "expected a list of row objects")


@pytest.mark.parametrize("odd", [None, 1, "text", [1, 2], True])
@pytest.mark.parametrize("table", TEMPLATES)
def test_rows_that_are_no_objects(tmp_path: Path, table: str, odd: object) -> None:
    (tmp_path / f"{table}.json").write_text(json.dumps([*rows_of(table), odd, odd]))
    refused(tmp_path, table, f"{table}.json", "row 3", "1 more")


@pytest.mark.parametrize("share", [0.02, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.98, 0.999])
@pytest.mark.parametrize("table", TEMPLATES)
def test_truncated_json(tmp_path: Path, table: str, share: float) -> None:
    path = write(tmp_path, table, rows_of(table))
    content = path.read_bytes()
    path.write_bytes(content[: max(1, int(len(content) * share))])
    refused(tmp_path, table, f"{table}.json", "not valid JSON", "line 1 column")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("table", TEMPLATES)
def test_truncated_parquet(tmp_path: Path, table: str, share: float) -> None:
    path = write(tmp_path, table, rows_of(table), "parquet")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(tmp_path, table, f"{table}.parquet", "not a readable Parquet file")


@pytest.mark.parametrize("table", TEMPLATES)
def test_csv_rows_of_other_lengths(tmp_path: Path, table: str) -> None:
    path = write(tmp_path, table, rows_of(table), "csv")
    lines = path.read_text().splitlines()
    for broken in (lines[2].rsplit(",", 1)[0], lines[2] + ",1"):
        path.write_text("\n".join([*lines[:2], broken, *lines[3:]]))
        refused(tmp_path, table, f"{table}.csv", "line 3", "fields")


@pytest.mark.parametrize("table", TEMPLATES)
def test_csv_with_an_open_quote_or_a_huge_field(tmp_path: Path, table: str) -> None:
    path = write(tmp_path, table, rows_of(table), "csv")
    good = path.read_text()
    path.write_text(good + '"')
    refused(tmp_path, table, f"{table}.csv", "not valid CSV")
    path.write_text(good + "1" * 200_000 + "\n")
    refused(tmp_path, table, f"{table}.csv", "not valid CSV")


@pytest.mark.parametrize("suffix", ["json", "csv"])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("table", TEMPLATES)
def test_other_encodings(tmp_path: Path, table: str, encoding: str, suffix: str) -> None:
    rows = rows_of(table)
    column = next(c for c in ("name", "run_name", "display_name", "state") if c in rows[0])
    rows[1][column] = "modèle"
    path = write(tmp_path, table, rows, suffix)
    text = json.dumps(rows, ensure_ascii=False) if suffix == "json" else path.read_text(encoding="utf-8")
    path.write_bytes(text.encode(encoding))
    refused(tmp_path, table, f"{table}.{suffix}")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("table", TEMPLATES)
def test_random_damage_never_ends_in_a_traceback(tmp_path: Path, table: str, suffix: str) -> None:
    path = write(tmp_path, table, rows_of(table), suffix)
    good = path.read_bytes()
    rng = random.Random(f"{table}{suffix}")
    messages = []
    for _ in range(25):
        damaged = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            load(tmp_path, table)
        except InputError as error:
            messages.append(str(error))
    assert messages
    assert all(f"{table}.{suffix}" in message for message in messages)


def test_nesting_and_lone_surrogates(tmp_path: Path) -> None:
    (tmp_path / "runs.json").write_text("[" * 100_000)
    refused(tmp_path, "runs", "not valid JSON")
    (tmp_path / "runs.json").write_text('[{"name": "\\ud800"}]')
    refused(tmp_path, "runs", "not valid JSON")


def test_a_message_shows_control_characters_harmlessly(tmp_path: Path) -> None:
    rows = rows_of("runs")
    rows[0]["loss"] = "\x1b[31m\nred" + "x" * 500
    write(tmp_path, "runs", rows)
    message = refused(tmp_path, "runs", "row 0")
    assert "\x1b" not in message
    assert len(message) < 400


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("table", TEMPLATES)
def test_a_directory_in_place_of_a_file(tmp_path: Path, table: str, suffix: str) -> None:
    (tmp_path / f"{table}.{suffix}").mkdir()
    refused(tmp_path, table, f"{table}.{suffix}", "is a directory")


@pytest.mark.parametrize("table", TEMPLATES)
def test_two_files_for_one_table(tmp_path: Path, table: str) -> None:
    for suffix in ("json", "csv"):
        write(tmp_path, table, rows_of(table), suffix)
    refused(tmp_path, table, f"{table}.json", f"{table}.csv")


def test_a_broken_link(tmp_path: Path) -> None:
    (tmp_path / "runs.json").symlink_to(tmp_path / "gone.json")
    refused(tmp_path, "runs", "runs.json", "cannot be read")


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "runs", rows_of("runs"), "parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(tmp_path, "runs", "runs.parquet", "[parquet]")


# Folders, single files, parts


def test_missing_tables_are_said(tmp_path: Path) -> None:
    write(tmp_path, "runs", rows_of("runs"))
    study = load_study(tmp_path)
    assert [missing.table for missing in study.missing] == [table for table in TEMPLATES if table != "runs"]
    for missing in study.missing:
        assert missing.needed_for
        assert str(tmp_path) in missing.how
        assert f"{missing.table}.json" in missing.how
    assert (study.sweep, study.evals, study.externals) == (None, {}, {})
    assert study.source == str(tmp_path)


def test_runs_are_required_where_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "mmlu", rows_of("mmlu"))
    with pytest.raises(InputError, match=r"runs\.json"):
        load_study(tmp_path)
    study = load_study(tmp_path, tables={"tasks"})
    assert len(study.runs) == 0
    absent = {missing.table for missing in study.missing}
    assert absent == set(TEMPLATES) - {"runs", "hparam_sweep", "mmlu"}


def test_single_files_stand_in_for_those_of_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "data", "runs", rows_of("runs", 2))
    mine = write(tmp_path / "mine", "runs", rows_of("runs", 5), "csv")
    sweep = write(tmp_path / "mine", "hparam_sweep", rows_of("hparam_sweep", 4))
    study = load_study(tmp_path / "data", runs=mine, sweep=sweep)
    assert len(study.runs) == 5
    assert study.sweep is not None
    assert len(study.sweep) == 4
    assert str(mine) in study.source
    alone = load_study(None, runs=mine)
    assert len(alone.runs) == 5
    assert len(alone.missing) == 7
    assert len(load_study(tmp_path / "absent", runs=mine).runs) == 5


@pytest.mark.parametrize("name", ["runs.txt", "runs", "runs.json.gz", "runs.xlsx"])
def test_unknown_suffixes(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("[]")
    with pytest.raises(InputError, match="unknown file type") as caught:
        load_study(None, runs=tmp_path / name)
    assert name in str(caught.value)


def test_a_single_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mine\.json: cannot be read"):
        load_study(None, runs=tmp_path / "mine.json")


def test_a_folder_that_is_not_there_or_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_study(tmp_path / "absent")
    (tmp_path / "file").write_text("[]")
    with pytest.raises(InputError, match="is a file"):
        load_study(tmp_path / "file")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"data: no such folder; give the folder that holds runs\.json"):
        load_study()


def test_unknown_table_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown tables"):
        load_study(tmp_path, tables={"run"})


def test_golden_skips(golden_dir: Path) -> None:
    study = load_study(golden_dir / "data")
    assert {(part.table, part.reason): part.count for part in study.skipped if part.table != "runs"} == {
        ("hparam_sweep", "state is 'crashed', not finished"): 40,
        ("hparam_sweep", f"missing {SWEEP_LOSS}"): 1,
        ("mmlu_external", "missing accuracy"): 1,
        ("mmlu_external", "in-house run by its name (comma), not an external model"): 5,
        ("humaneval_external", "missing macro_bpb"): 1,
        ("gsm8k_external", "missing macro_bpb"): 1,
    }
    assert not study.missing


@pytest.mark.parametrize("corpus", ["nemotron", "dclm", "comma"])
def test_real_runs_load_alone(tmp_path: Path, real_dir: Path, corpus: str) -> None:
    names = {
        "Name": "name",
        "parameter_count": "params",
        "throughput/total_tokens": "tokens",
        "throughput/total_gflops": "total_gflops",
        "eval/paloma/macro_loss": "loss",
    }
    with (real_dir / "marin" / f"isoflop-{corpus}.csv").open(newline="") as file:
        rows = [{names[k]: v for k, v in row.items() if k in names} for row in csv.DictReader(file)]
    path = write(tmp_path, "runs", rows, "csv")
    study = load_study(None, runs=path)
    complete = [row for row in rows if all(row.values())]
    kept = len(study.runs) + sum(part.count for part in study.skipped if part.reason.startswith("duplicate"))
    assert kept == len(complete)
    assert study.runs.loss[0] == float(complete[0]["loss"])


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_a_table_with_other_marks_than_commas_is_told_so(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(mark.join(["name", "params", "tokens"]) + "\n" + mark.join(["a", "1e9", "2e10"]) + "\n")
    with pytest.raises(InputError, match=re.escape(f"runs.csv: line 1 holds {mark!r} between its columns")):
        load_study(None, runs=path)
