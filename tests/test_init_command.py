"""``delphi-jax init``: a first study file from tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delphi_jax.cli import main
from delphi_jax.definition import Definition
from delphi_jax.io import load_study
from delphi_jax.io.definition import parse_definition, read_definition
from delphi_jax.io.guess import study_text
from delphi_jax.status import InputError
from delphi_jax.tables import Study

ROOT = Path(__file__).resolve().parents[1]
BUDGETS = (1e18, 3e18, 1e19)


def rows(recipes: tuple[str, ...] = ("alpha", "beta"), runs: int = 4, noise: float = 0.001) -> list[dict[str, object]]:
    """IsoFLOP runs of every recipe, and a held-out one."""
    rng = np.random.default_rng(3)
    out: list[dict[str, object]] = []
    for recipe in recipes:
        for budget in (*BUDGETS, 1e20):
            held_out = budget == 1e20
            for i in range(1 if held_out else runs):
                tokens = 1e9 * (1 + i)
                out.append(
                    {
                        "Name": f"sweep-{budget:g}-d{64 * i}-{recipe}{'-optimal' if held_out else ''}",
                        "parameter_count": budget / (6 * tokens),
                        "throughput/total_tokens": tokens,
                        "eval/loss": 3 + 0.1 * i,
                        "throughput/total_gflops": budget / 1e9 * (1 + noise * rng.uniform(-1, 1)),
                    }
                )
    return out


def write(path: Path, table: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(table))
    elif path.suffix == ".csv":
        lines = [",".join(f'"{key}"' for key in table[0])]
        lines += [",".join(f'"{"" if v is None else v}"' for v in row.values()) for row in table]
        path.write_text("\n".join(lines))
    else:
        pa = pytest.importorskip("pyarrow", reason="Parquet needs the [parquet] extra")
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(table), path)
    return path


def guessed(*paths: Path) -> Definition:
    return parse_definition(study_text(paths, paths[0].parent), "study.toml")


def loaded(*paths: Path) -> Study:
    return load_study(paths[0].parent, study=guessed(*paths))


@pytest.mark.parametrize("suffix", [".json", ".csv", ".parquet"])
def test_one_table(tmp_path: Path, suffix: str) -> None:
    found = guessed(write(tmp_path / f"export{suffix}", rows()))
    (source,) = found.runs
    assert source.files == (f"export{suffix}",)
    assert source.columns == {
        "name": "Name",
        "params": "parameter_count",
        "tokens": "throughput/total_tokens",
        "loss": "eval/loss",
        "flops": "throughput/total_gflops",
    }
    assert (source.flops_unit, source.derive, source.where) == (1e9, "", {})
    assert sorted(rule.match for rule in found.suites) == [("alpha",), ("beta",)]
    assert (found.held_out.match, found.budgets.digits, found.budgets.values) == (("optimal",), 2, ())


def test_the_file_that_is_written_loads_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write(tmp_path / "export.csv", rows())
    assert main(["init", str(table)]) == 0
    said = capsys.readouterr().out
    assert f"Wrote {tmp_path / 'study.toml'}" in said and f"delphi-jax check --data {tmp_path}" in said
    study = load_study(tmp_path)
    assert sorted(set(study.runs.suite.tolist())) == ["alpha", "beta"]
    assert sorted(set(study.runs.bucket[~study.runs.held_out].tolist())) == list(BUDGETS)
    assert study.runs.held_out.sum() == 2 and not study.skipped
    assert main(["check", "--data", str(tmp_path)]) == 0


def test_nothing_is_overwritten_without_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = write(tmp_path / "export.csv", rows()), tmp_path / "mine.toml"
    out.write_text("mine")
    assert main(["init", str(table), "--out", str(out)]) == 1
    assert "is there already; give another --out, or --force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main(["init", str(table), "--out", str(out), "--force"]) == 0
    assert f"check --study {out}" in capsys.readouterr().out
    assert read_definition(out).runs[0].files == ("export.csv",)
    assert main(["init", str(table), "--out", str(tmp_path / "no" / "folder.toml")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_paths_are_relative_to_the_study_file_or_to_the_tables(tmp_path: Path) -> None:
    first, second = (write(tmp_path / "in" / name / "runs.csv", rows((name,))) for name in ("one", "two"))
    assert main(["init", str(first), str(second), "--out", str(tmp_path / "study.toml")]) == 0
    files = [source.files for source in read_definition(tmp_path / "study.toml").runs]
    assert files == [("in/one/runs.csv",), ("in/two/runs.csv",)]
    assert len(load_study(study=tmp_path / "study.toml").runs) == 26
    aside = tmp_path / "aside" / "study.toml"
    aside.parent.mkdir()
    assert main(["init", str(first), str(second), "--out", str(aside)]) == 0
    assert len(load_study(tmp_path / "in", study=aside).runs) == 26


def test_every_one_of_several_files_is_a_suite(tmp_path: Path) -> None:
    names = ("sweep-nemotron", "sweep-comma")
    paths = [write(tmp_path / f"{name}.csv", rows((name,))) for name in names]
    found = guessed(*paths)
    assert [(source.files, source.suite) for source in found.runs] == [
        (("sweep-nemotron.csv",), "nemotron"),
        (("sweep-comma.csv",), "comma"),
    ]
    assert sorted(set(loaded(*paths).runs.suite.tolist())) == ["comma", "nemotron"]


def test_suite_outlier_and_held_out_columns(tmp_path: Path) -> None:
    table = [
        {"params": 1e9, "tokens": 1e9 * (i + 1), "loss": 3, "flops": 6e18, "recipe": recipe, "outlier": i == 3}
        | {"validation": i == 2, "seed": i}
        for recipe in ("x", "y")
        for i in range(6)
    ]
    study = loaded(write(tmp_path / "runs.csv", table))
    source = study.definition.runs[0]
    assert source.where == {"outlier": False}
    assert dict(source.columns) == {"suite": "recipe", "held_out": "validation", "seed": "seed"}
    assert sorted(set(study.runs.suite.tolist())) == ["x", "y"]
    assert study.runs.held_out.sum() == 2
    assert [part.count for part in study.skipped] == [2]


@pytest.mark.parametrize(
    ("absent", "derived"), [("throughput/total_gflops", "flops"), ("throughput/total_tokens", "tokens")]
)
def test_what_is_missing_is_derived(tmp_path: Path, absent: str, derived: str) -> None:
    table = [{key: value for key, value in row.items() if key != absent} for row in rows(noise=0)]
    if derived == "tokens":
        table = [row | {"throughput/total_gflops": 1e9 * row["throughput/total_gflops"]} for row in table]
    path = write(tmp_path / "runs.json", table)
    assert guessed(path).runs[0].derive == derived
    assert f"there are no {'FLOPs' if derived == 'flops' else 'tokens'}" in study_text([path], tmp_path)
    assert sorted(set(loaded(path).runs.bucket.tolist())) == [*BUDGETS, 1e20]


def test_scattered_compute_becomes_a_list_of_budgets(tmp_path: Path) -> None:
    path = write(tmp_path / "runs.csv", rows(runs=12, noise=0.06))
    found = guessed(path)
    assert len(found.budgets.values) == 3
    np.testing.assert_allclose(found.budgets.values, BUDGETS, rtol=0.06)
    study = loaded(path)
    assert len(set(study.runs.bucket[~study.runs.held_out].tolist())) == 3 and not study.skipped


def test_an_odd_unit_is_said(tmp_path: Path) -> None:
    table = [row | {"throughput/total_gflops": 30 * row["throughput/total_gflops"]} for row in rows()]
    text = study_text([write(tmp_path / "runs.csv", table)], tmp_path)
    assert "# Unsure: runs.csv: 'throughput/total_gflops' is 3e-08 times 6*N*D, no known unit" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n", "no column looks like params or tokens or loss; the columns are 'a', 'b'"),
        ("", "is empty"),
        ("name,params,tokens,loss\n", "holds no rows"),
    ],
)
def test_tables_that_are_no_runs(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=words):
        study_text([path], tmp_path)


@pytest.mark.parametrize(("name", "content"), [("a.json", "{}"), ("a.json", "[1]"), ("a.txt", "x"), ("b.csv", None)])
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: str | None) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=name):
        study_text([tmp_path / name], tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(min_size=1, max_size=20), min_size=12, max_size=12), st.text(min_size=1, max_size=20))
def test_whatever_names_hold_the_file_is_a_study(tmp_path: Path, names: list[str], recipe: str) -> None:
    table = [
        {"name": name, "params": 1e9, "tokens": 1e9 * (i + 1), "my loss": 3, "suite": f"{recipe}{i % 2}"}
        for i, name in enumerate(names)
    ]
    path = write(tmp_path / "runs.json", table)
    assert guessed(path).runs[0].columns["loss"] == "my loss"
    odd = write(tmp_path / "odd.json", [{f"loss/{recipe}": 1.0} | row for row in table])
    assert guessed(odd).runs[0].files == ("odd.json",)


def test_public_sweeps(real_dir: Path) -> None:
    marin = loaded(*(real_dir / "marin" / f"isoflop-{name}.csv" for name in ("nemotron", "dclm", "comma")))
    assert sorted(set(marin.runs.suite.tolist())) == ["comma", "dclm", "nemotron"]
    assert set(marin.runs.bucket[~marin.runs.held_out]) == {1.8e18, 3e18, 9e18, 1.8e19, 3e19, 9e19, 1.8e20, 3e20}
    tidy = loaded(real_dir / "isoflops.csv")
    assert len(set(tidy.runs.suite.tolist())) == 4
    figure = loaded(real_dir / "chinchilla_svg.csv")
    assert figure.definition.runs[0].derive == "tokens" and len(figure.runs) > 120
    bundled = loaded(ROOT / "data" / "runs.json")
    assert bundled.runs.held_out.any() and bundled.definition.runs[0].flops_unit == 1e9
