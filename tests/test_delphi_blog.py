"""The layout of the public Delphi dataset: its study file, and the way from the hub to the figures."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delphi_jax.cli import main
from delphi_jax.definition import delphi
from delphi_jax.fetch.hf import check_hf, fetch_hf
from delphi_jax.fetch.snapshot import changed_files
from delphi_jax.io import definition as io_definition
from delphi_jax.io import load_study
from delphi_jax.io.definition import parse_definition, read_definition, read_shipped, shipped_studies
from delphi_jax.status import InputError
from tests.delphi import ADAMC_SUITE, ADAMH_SUITE
from tests.servers import Hub

pa = pytest.importorskip("pyarrow", reason="Parquet needs the [parquet] extra")
pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs the [parquet] extra")

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
NAME = "owner/blog"
TABLES = [f"{config}/train.parquet" for config in ("first-ladder", "delphi-ladder", "hparam-scaling", "mmlu-emergence")]
Row = dict[str, Any]


def rows(table: str) -> list[Row]:
    return json.loads((DATA / f"{table}.json").read_text())


def parquet(table: list[Row]) -> bytes:
    columns = dict.fromkeys(column for row in table for column in row)
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{column: row.get(column) for column in columns} for row in table]), file)
    return file.getvalue()


def ladder(suite: str) -> list[Row]:
    """The runs of a suite in the dataset's columns, with its own optima and fit, which have no run."""
    runs = load_study(DATA).runs
    found: list[Row] = [
        {"kind": kind, "quantizer": suite, "run_name": None, "gflops_bucket_flops": 3e18, "T_star": 2e9, "a": 0.1}
        for kind in ["optimum", "fit"] * 7
    ]
    # Runs off the other suite's grid are not in the dataset.
    there = set(runs.name[runs.suite == suite].tolist())
    for row in rows("runs"):
        if row["name"] in there:
            held_out = "optimal" in row["name"]
            run = {column: row[column] for column in ("state", "tokens", "loss", "params", "total_gflops")}
            more = {"C_nom": 1e22, "seed": "default"} if held_out else {"gflops_bucket": "3e+18"}
            kind = "held_out" if held_out else "isoflop"
            found.append({"kind": kind, "quantizer": suite, "run_name": row["name"], **run, **more})
    return found


def evaluations() -> list[Row]:
    found = []
    for task in delphi().tasks:
        for table, whose in ((task.table, "delphi"), (task.external_table, "external")):
            for row in rows(table):
                found.append({"kind": f"{task.key}-{whose}", "task": task.key, "shot": None, **row})
    return found


def trials() -> list[Row]:
    loss = delphi().sweep.loss_column  # type: ignore[union-attr]
    finished = [row for row in rows("hparam_sweep") if row["state"] == "finished"]
    return [{"id": f"t{i}", "paloma_macro_loss": row.pop(loss), **row} for i, row in enumerate(finished)]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """The bundled study in the layout of the dataset."""
    first, second = ladder(ADAMC_SUITE), ladder(ADAMH_SUITE)
    tables = {
        "first-ladder": first,
        "delphi-ladder": second,
        "overtraining-forecast": [row for row in second if row["kind"] in ("isoflop", "fit")],
        "lucky-seeds": [row for row in second if row["kind"] in ("optimum", "held_out")],
        "hparam-scaling": trials(),
        "mmlu-emergence": evaluations(),
    }
    assert {row.get("state") for row in first} == {"finished", "crashed", None}
    return {f"{config}/train.parquet": parquet(table) for config, table in tables.items()}


@pytest.fixture
def hub(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub", reason="Hugging Face needs the [hf] extra")
    hub = Hub(NAME, {"README.md": b"# Data\n", **files})
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with hub.running():
        yield hub


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def fetch(out: Path, *options: str) -> int:
    return main(["fetch", "hf", NAME, "--out", str(out), *options])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# The way from the hub to the figures


def test_all_figures_are_those_of_the_study(
    hub: Hub, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(out, "--study", "delphi-blog") == 0
    said = capsys.readouterr().out
    assert f"Fetched 4 tables from hf {NAME} at commit {hub.commit}" in said
    assert "study.toml: that of delphi-blog" in said and "Not in the source" not in said
    assert set(contents(out)) == {*TABLES, "study.toml", "provenance.json"}
    for data in (DATA, out):
        target = tmp_path / f"figures-{data.name}"
        assert main(["figures", "--data", str(data), "--out", str(target), "--no-cache"]) == 0
    figures = [contents(tmp_path / f"figures-{data.name}") for data in (DATA, out)]
    assert set(figures[0]) == {f"{name}.json" for name in delphi().figure_titles} and len(figures[0]) == 12
    assert {name for name, figure in figures[0].items() if figures[1].get(name) != figure} == set()


def test_the_tables_are_the_same_in_any_order_of_rows(files: dict[str, bytes], out: Path) -> None:
    # Figures list their markers in the order of the tables.
    for path in TABLES:
        table = pq.read_table(io.BytesIO(files[path]))
        (out / path).parent.mkdir(parents=True)
        pq.write_table(table.take(np.random.default_rng(0).permutation(len(table))), out / path)
    ours, theirs = load_study(out, study="delphi-blog"), load_study(DATA)
    assert content(ours.runs, "name") == content(theirs.runs, "name")
    assert content(ours.sweep, "loss") == content(theirs.sweep, "loss")
    assert ours.evals.keys() == theirs.evals.keys() == ours.externals.keys() == {"mmlu", "humaneval", "gsm8k"}
    for key in ours.evals:
        assert content(ours.evals[key], "soft") == content(theirs.evals[key], "soft")
        assert content(ours.externals[key], "soft") == content(theirs.externals[key], "soft")


def content(table: Any, by: str) -> dict[str, list[Any]]:
    order = np.argsort(getattr(table, by))
    columns = [each.name for each in dataclasses.fields(table) if each.name not in ("definition", "design", "task")]
    return {column: np.asarray(getattr(table, column), dtype=str)[order].tolist() for column in columns}


def test_what_is_left_out_is_counted_once(files: dict[str, bytes], out: Path) -> None:
    for path in TABLES:
        (out / path).parent.mkdir(parents=True)
        (out / path).write_bytes(files[path])
    strange = {"kind": "poem-delphi", "budget": 1e20}
    (out / TABLES[3]).write_bytes(parquet([*evaluations(), strange]))
    study = load_study(out, study="delphi-blog")
    counts = [(part.table, part.count) for part in study.skipped if part.reason.startswith("kind is not")]
    # Rows of a table that several tasks read are left out where none takes them.
    assert counts == [("first-ladder/train", 14), ("delphi-ladder/train", 14), ("mmlu-emergence/train.parquet", 1)]
    assert study.skipped[0].reason == "kind is not 'isoflop' or 'held_out'"
    assert not study.missing
    assert study.runs.name[~study.runs.finished].size == 2
    # A name is asked of the rows that count.
    nameless = [row | {"run_name": None} if row["kind"] == "held_out" else row for row in ladder(ADAMH_SUITE)]
    (out / TABLES[1]).write_bytes(parquet(nameless))
    with pytest.raises(InputError, match=r"7 values cannot be used(.|\n)*column 'run_name': found nothing, expected a"):
        load_study(out, study="delphi-blog")


def test_the_study_is_delphi_but_for_its_tables() -> None:
    blog, ours = read_shipped("delphi-blog"), delphi()
    assert blog.sweep == dataclasses.replace(
        ours.sweep, table="hparam-scaling/train.parquet", loss_column="paloma_macro_loss"
    )
    same = {"table": "", "external_table": "", "where": {}, "external_where": {}}
    for mine, theirs in zip(blog.tasks, ours.tasks, strict=True):
        assert dataclasses.replace(mine, **same) == dataclasses.replace(theirs, **same)
    apart = {"runs", "held_out", "tasks", "sweep", "source"}
    for field in dataclasses.fields(ours):
        assert (getattr(blog, field.name) == getattr(ours, field.name)) == (field.name not in apart), field.name
    assert dataclasses.replace(blog.held_out, values=(True,)) == ours.held_out


def test_a_filter_asks_for_its_column(files: dict[str, bytes], out: Path) -> None:
    for path in TABLES:
        (out / path).parent.mkdir(parents=True)
        (out / path).write_bytes(files[path])
    for path in (TABLES[0], TABLES[3]):
        pq.write_table(pq.read_table(io.BytesIO(files[path])).drop_columns("kind"), out / path)
        with pytest.raises(InputError, match="no row has column 'kind'; the columns there are: "):
            load_study(out, study="delphi-blog")
        (out / path).write_bytes(files[path])


# Fetching tables by their paths


def test_what_is_kept_and_recorded(hub: Hub, out: Path, files: dict[str, bytes]) -> None:
    snapshot = fetch_hf(NAME, out, study=Path("delphi-blog"))
    assert (snapshot.study, snapshot.absent, snapshot.tables[0].table.missing) == ("delphi-blog", (), {})
    told = json.loads((out / "provenance.json").read_text())
    assert [record["file"] for record in told["tables"].values()] == TABLES == list(told["tables"])
    for record in [*told["tables"].values(), told["study"]]:
        assert record["sha256"] == hashlib.sha256((out / record["file"]).read_bytes()).hexdigest()
    assert told["study"]["study"] == "delphi-blog"
    assert (out / "study.toml").read_bytes() == (ROOT / "delphi_jax" / "studies" / "delphi-blog.toml").read_bytes()
    read = ["kind", "quantizer", "run_name", "state", "tokens", "loss", "params", "total_gflops"]
    kept, given = (pq.read_table(io.BytesIO(found[TABLES[1]])) for found in (contents(out), files))
    assert kept.column_names == read and kept.equals(given.select(read))
    assert len([request for request in hub.requests if request.method == "GET" and "/resolve/" in request.path]) == 4
    whole = out.parent / "whole"
    fetch_hf(NAME, whole, study=Path("delphi-blog"), all_columns=True)
    assert {path: contents(whole)[path] for path in TABLES} == {path: files[path] for path in TABLES}
    # From now on the folder says what it holds.
    assert fetch_hf(NAME, out).study == "" and check_hf(NAME, out).changes == () and changed_files(out) == []
    hub.files["mmlu-emergence/train.parquet"] = parquet(evaluations()[1:])
    del hub.files["hparam-scaling/train.parquet"]
    assert set(check_hf(NAME, out).changes) == {
        "mmlu-emergence/train.parquet has changed",
        "hparam-scaling/train.parquet is gone",
    }
    again = fetch_hf(NAME, out)
    assert again.removed == again.absent == ("hparam-scaling/train.parquet",)
    assert not (out / "hparam-scaling").exists() and changed_files(out) == []


def test_the_bare_command_names_the_study_that_fits(hub: Hub, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch(out) == 1
    said = capsys.readouterr().err
    assert "holds no table of a study (runs, hparam_sweep, mmlu," in said
    assert "the files there are 'first-ladder/train.parquet', 'delphi-ladder/train.parquet'," in said
    assert said.endswith("They fit the shipped study delphi-blog: add --study delphi-blog\n")
    del hub.files["hparam-scaling/train.parquet"]
    assert fetch(out) == 1
    assert capsys.readouterr().err.endswith("Name one with --table TABLE=PATH\n")
    assert fetch(out, "--study", "delphi-blog") == 0
    assert "Not in the source:\n  hparam-scaling/train.parquet" in capsys.readouterr().out


def test_another_study_file_is_not_written_over(hub: Hub, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out.mkdir()
    (out / "study.toml").write_text('name = "mine"\n')
    assert fetch(out, "--study", "delphi-blog") == 1
    assert "was not written by a fetch, and says something else than the study delphi-blog" in capsys.readouterr().err
    assert contents(out) == {"study.toml": b'name = "mine"\n'} and not hub.requests
    # The same one stays the user's.
    (out / "study.toml").write_bytes((ROOT / "delphi_jax" / "studies" / "delphi-blog.toml").read_bytes())
    assert fetch(out, "--study", "delphi-blog") == 0
    assert "study" not in json.loads((out / "provenance.json").read_text())
    (out / "study.toml").unlink()
    assert fetch(out, "--study", "delphi-blog") == 0
    # One that is edited is the user's own: said, not replaced, and kept where no other is asked for.
    edited = (out / "study.toml").read_text() + "# Mine\n"
    (out / "study.toml").write_text(edited)
    assert changed_files(out) == ["study.toml"]
    assert fetch(out, "--study", "delphi-blog") == 1
    assert "was changed since it was fetched" in capsys.readouterr().err
    assert fetch(out) == 0
    assert (out / "study.toml").read_text() == edited and changed_files(out) == []


def test_a_fetched_study_file_gives_way_to_the_next(hub: Hub, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch_hf(NAME, out, study=Path("delphi-blog"))
    mine = out.parent / "mine.toml"
    mine.write_text('name = "mine"\n[[runs]]\nfiles = ["lucky-seeds/train"]\ncolumns = { flops = "total_gflops" }\n')
    assert fetch(out, "--study", str(mine)) == 0
    said = capsys.readouterr().out
    assert "study.toml of delphi-blog" in said and f"study.toml: that of {mine}" in said
    # A table without a suffix is JSON, in its folder; those of the other study go.
    assert set(contents(out)) == {"lucky-seeds/train.json", "study.toml", "provenance.json"}
    assert not (out / "first-ladder").exists()
    assert json.loads((out / "provenance.json").read_text())["study"]["study"] == str(mine)


@pytest.mark.parametrize("call", range(7))
def test_a_swap_in_folders_that_fails_is_undone(
    hub: Hub, out: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = out.parent / "mine.toml"
    mine.write_text('name = "mine"\n[[runs]]\nfiles = ["lucky-seeds/train"]\ncolumns = { flops = "total_gflops" }\n')
    fetch_hf(NAME, out, study=mine)
    before = contents(out)
    replace, calls = os.replace, 0

    def failing(*paths: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call + 1:
            raise OSError("no space")
        replace(*paths)

    monkeypatch.setattr(os, "replace", failing)
    if call == 6:
        fetch_hf(NAME, out, study=Path("delphi-blog"))
        assert calls == 6
        return
    with pytest.raises(InputError, match="cannot be written"):
        fetch_hf(NAME, out, study=Path("delphi-blog"))
    assert contents(out) == before
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"lucky-seeds"}


def test_folders_that_are_links_lead_nowhere(hub: Hub, out: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "train.parquet").write_bytes(b"kept")
    out.mkdir()
    (out / "first-ladder").symlink_to(outside)
    with pytest.raises(InputError, match="leads out of the folder by a link"):
        fetch_hf(NAME, out, study=Path("delphi-blog"))
    (out / "first-ladder").unlink()
    fetch_hf(NAME, out, study=Path("delphi-blog"))
    (out / "first-ladder" / "train.parquet").unlink()
    (out / "first-ladder").rmdir()
    (out / "first-ladder").symlink_to(outside)
    with pytest.raises(InputError, match="was not written by this version's fetch"):
        fetch_hf(NAME, out, study=Path("delphi-blog"))
    assert contents(outside) == {"train.parquet": b"kept"}


def test_paths_in_a_listing_lead_nowhere(hub: Hub, out: Path) -> None:
    hub.files[f"../{TABLES[0]}"] = hub.files.pop(TABLES[0])
    with pytest.raises(InputError, match="lists a file outside of the dataset"):
        fetch_hf(NAME, out, study=Path("delphi-blog"))
    assert not out.exists()


CSV = b"id,Name,N,tokens,loss,C\n0,a,1e9,2e10,3.0,1.2e20\n1,b,2e9,1e10,,1.2e20\n"
STUDY = 'name = "x"\n[[runs]]\nfiles = ["a/runs.csv"]\ncolumns = { name = "Name", params = "N", flops = "C" }\n'


def test_tables_named_with_a_suffix_stay_of_their_type(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out.mkdir()
    (out / "study.toml").write_text(STUDY)
    given = out.parent / "given.csv"
    given.write_bytes(CSV.replace(b"loss", b"final"))
    options = ["--table", "a/runs.csv", "--column", "loss=final", "--out", str(out)]
    assert main(["fetch", "csv", str(given), *options]) == 0
    assert "a/runs.csv: 1 row without loss" in capsys.readouterr().out
    assert (out / "a" / "runs.csv").read_bytes() == b"Name,N,tokens,loss,C\na,1e9,2e10,3.0,1.2e20\nb,2e9,1e10,,1.2e20\n"
    assert load_study(out).runs.name.tolist() == ["a"]
    assert main(["fetch", "json", str(given), *options]) == 1
    assert "the study reads a/runs.csv, not a json file: name one of that type" in capsys.readouterr().err
    assert main(["fetch", "wandb", "a/b", "--table", "a/runs.csv", "--out", str(out)]) == 1
    assert "runs come as JSON: name the table there without its suffix" in capsys.readouterr().err
    blog = ["--study", "delphi-blog", "--table", "mmlu-emergence/train.parquet", "--out", str(out)]
    assert main(["fetch", "wandb", "a/b", *blog]) == 1
    assert "mmlu-emergence/train.parquet is read as 6 tables: runs make one" in capsys.readouterr().err


def test_columns_of_a_table_in_a_folder(hub: Hub, out: Path, files: dict[str, bytes]) -> None:
    renamed = pq.read_table(io.BytesIO(files[TABLES[0]]))
    names = [{"loss": "eval.loss"}.get(name, name) for name in renamed.column_names]
    hub.files["other/losses.parquet"] = parquet(renamed.rename_columns(names).to_pylist())
    options = ["--table", f"{TABLES[0]}=other/losses.parquet", "--column", f"{TABLES[0]}.loss=eval.loss"]
    assert fetch(out, "--study", "delphi-blog", *options) == 0
    kept, given = (pq.read_table(io.BytesIO(found[TABLES[0]])) for found in (contents(out), files))
    assert kept["loss"].equals(given["loss"])


# Names of shipped studies, and studies that extend one


def test_a_study_by_its_name(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped_studies() == ["delphi", "delphi-blog"]
    (tmp_path / "delphi").mkdir()
    assert read_definition(Path("delphi")).name == "Delphi"
    assert load_study(DATA, study="delphi").source == str(DATA)
    with pytest.raises(InputError, match=r"^data: no such folder"):
        load_study(study="delphi-blog")
    (tmp_path / "delphi-blog").write_text('name = "mine"\n')
    assert read_definition(Path("delphi-blog")).name == "mine"
    with pytest.raises(InputError, match=r"delphy: cannot be read.*the name of a shipped study: delphi, delphi-blog"):
        read_definition(Path("delphy"))


def test_commands_take_a_study_by_its_name(hub: Hub, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch_hf(NAME, out, study=Path("delphi-blog"))
    (out / "study.toml").unlink()
    assert main(["check", "--data", str(out), "--study", "delphi-blog"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Delphi, as delphi-blog.toml (shipped) says, from {out}\n")
    assert "first-ladder/train: 14, kind is not 'isoflop' or 'held_out'" in said and said.endswith(
        "Ready to be fitted.\n"
    )
    page = out.parent / "page.html"
    assert (
        main(["report", "--data", str(out), "--study", "delphi-blog", "--quick", "--out", str(page), "--no-cache"]) == 0
    )
    text = page.read_text(encoding="utf-8")
    assert all(path in text for path in TABLES) and "study.toml, " not in text
    assert text.count("as recorded") == 4 and "not recorded" not in text


def test_tables_are_laid_over_tables_and_lists_stand_in_for_lists() -> None:
    text = 'extends = "delphi"\nname = "b"\ntargets = [1e24]\n[metric]\nunit = "bits"\n[run_names]\n"1e17" = "tiny"\n'
    found, base = parse_definition(text, "b.toml"), delphi()
    assert (found.name, found.targets, found.source) == ("b", (1e24,), "b.toml")
    assert found.metric == dataclasses.replace(base.metric, unit="bits")
    assert found.run_names == {**base.run_names, "1e17": "tiny"}
    assert (found.suites, found.tasks, found.sweep) == (base.suites, base.tasks, base.sweep)
    alone = parse_definition('extends = "delphi"\nfocus = ""\n[[suites]]\nlabel = "A"\n', "b.toml")
    assert [rule.label for rule in alone.suites] == ["A"]


def line_of(text: str) -> int:
    lines = (ROOT / "delphi_jax" / "studies" / "delphi.toml").read_text().splitlines()
    (line,) = [i for i, line in enumerate(lines, 1) if line.startswith(text)]
    return line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('\nextends = "delphy"', "line 2, extends: found 'delphy', expected the name of a shipped study: delphi, del"),
        ('extends = "../studies/delphi"', "line 1, extends: found '../studies/delphi', expected the name"),
        ("extends = ['delphi']", "line 1, extends: found a list, expected the name of a shipped study"),
        ('extend = "delphi"', "line 1, extend: is not a key that is known; did you mean 'extends'?"),
        ('extends = "delphi"\nnane = "x"', "line 2, nane: is not a key that is known; did you mean 'name'?"),
        ('extends = "delphi"\n[sweep]\nlos_column = "x"', "line 3, sweep.los_column: is not a key that is known; did"),
        (
            'extends = "delphi"\n[sweep]\nloss_column = "lr"',
            "sweep.hyper_parameters[1].column: 'lr' is read as somethin",
        ),
        ('extends = "delphi"\nmetric = 3', "line 2, metric: found 3, expected a table"),
        (
            'extends = "delphi"\n[[suites]]\nlabel = "A"',
            "line {focus} of delphi.toml (shipped), focus: 'Delphi Scaling",
        ),
        (
            'extends = "delphi"\n[sweep]\nhidden_dims = [256]',
            "line {first_shown} of delphi.toml (shipped), sweep.first_shown: [64, 512, '2.5B'] is not a cell",
        ),
        (
            'extends = "delphi"\n[sweep]\nhidden_dims = []',
            "line 3, sweep.hidden_dims: found a list, expected a list of",
        ),
    ],
)
def test_errors_name_the_file_and_the_line(text: str, words: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_definition(text, "b.toml")
    said = str(refused.value)
    assert said.startswith("b.toml: ")
    assert words.format(focus=line_of("focus"), first_shown=line_of("first_shown")) in said


def test_a_study_that_extends_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io_definition, "_SHIPPED", tmp_path)
    for name, base in (("a", "b"), ("b", "c"), ("c", "b"), ("d", "d")):
        (tmp_path / f"{name}.toml").write_text(f'name = "{name}"\nextends = "{base}"\n')
    for name, chain in (("a", "b -> c -> b"), ("c", "b -> c -> b"), ("d", "d -> d")):
        with pytest.raises(InputError, match=rf"line 2, extends: '.' comes back to itself \({chain}\); leave it out"):
            read_shipped(name)


SHARED = """name = "x"
[held_out]
divide = 1e21
[[tasks]]
key = "a"
name = "A"
table = "evals"
external_table = "evals"
soft = "loss"
soft_column = "s"
hard_column = "h"
n_problems = 100
"""


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("", "external_where"),
        ('where = { kind = "own" }', "external_where"),
        ('where = { kind = "own" }\nexternal_where = { kind = ["other", "Own "] }', "external_where"),
        ('where = { kind = "own" }\nexternal_where = { sort = "other" }', "external_where"),
        ('where = { kind = "own" }\nexternal_where = { kind = ["other", "more"] }', ""),
        ('where = { kind = "own", shot = 5 }\nexternal_where = { kind = "own", shot = 0 }', ""),
    ],
)
def test_a_table_is_shared_where_filters_tell_the_rows_apart(lines: str, fault: str) -> None:
    if not fault:
        assert parse_definition(SHARED + lines, "b.toml").tasks[0].table == "evals"
        return
    said = f"line 8, tasks\\[1\\].external_table: 'evals' is another table.*or say with {fault} which of its rows"
    with pytest.raises(InputError, match=said):
        parse_definition(SHARED + lines, "b.toml")
