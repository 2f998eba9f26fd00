"""Runs from W&B: its own client against a server on the loopback, sound and failing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delphi_jax.cli import main
from delphi_jax.fetch.columns import ColumnMap
from delphi_jax.fetch.files import fetch_file
from delphi_jax.fetch.wandb import check_wandb, fetch_wandb
from delphi_jax.io import load_study
from delphi_jax.status import InputError
from tests.servers import Answer, Wandb, run

pytest.importorskip("wandb", reason="W&B needs the [wandb] extra")

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
ROWS: list[dict[str, Any]] = json.loads((DATA / "runs.json").read_text())
KEY = "s3cr3t" + "k" * 34
NAME = "entity/project"
KEYS = {
    "params": "parameter_count",
    "tokens": "throughput/total_tokens",
    "loss": "eval/paloma/macro_loss",
    "total_gflops": "throughput/total_gflops",
}


def as_run(row: dict[str, Any], **more: Any) -> dict[str, Any]:
    return run(row["name"], {KEYS[column]: row[column] for column in KEYS} | {"_step": 1}, state=row["state"], **more)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wandb]:
    """A server with the runs of the bundled study, and a client that is logged in and tries twice."""
    project = Wandb(NAME, [as_run(row) for row in ROWS], key=KEY)
    monkeypatch.setenv("WANDB_BASE_URL", project.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    for module in ("client", "wandb"):
        monkeypatch.setattr(f"delphi_jax.fetch.{module}.RETRIES", 1)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    # Of a run in the caller's own process: none of the fetch's business.
    monkeypatch.setenv("WANDB_SERVICE", "3-1-unix-/nowhere/socket")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    with project.running():
        yield project


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def old(out: Path) -> dict[str, bytes]:
    """A snapshot that is there already."""
    fetch_file(DATA / "runs.json", out, "json")
    return contents(out)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "provenance.json").read_text())["tables"]["runs"]


def pages(project: Wandb) -> list[dict[str, Any]]:
    """The variables of the queries for runs."""
    asked = [json.loads(request.body) for request in project.requests]
    return [query["variables"] for query in asked if "runs(" in query["query"]]


def test_the_whole_way_from_the_project_to_the_study(
    project: Wandb, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dict(os.environ)
    assert main(["fetch", "wandb", NAME, "--out", str(out)]) == 0
    assert dict(os.environ) == before
    said = capsys.readouterr()
    assert f"Fetched 1 table from wandb {NAME} to {out}" in said.out and "runs.json: 238 rows" in said.out
    assert said.err == ""
    # 238 runs in pages of 100, each asked for once.
    assert [page["cursor"] for page in pages(project)] == [None, "100", "200"]
    assert {request.path for request in project.requests} == {"/graphql"}
    assert record(out)["revision"] == {"runs": len(ROWS), "updated": "2026-01-02T03:04:05Z"}
    assert record(out)["query"]["server"] == project.url
    project.fail(".", Answer(status=500))
    ours, theirs = load_study(out, tables={"runs"}), load_study(DATA, tables={"runs"})
    assert ours.skipped == theirs.skipped
    for column in ("params", "tokens", "loss", "bucket"):
        np.testing.assert_array_equal(getattr(ours.runs, column), getattr(theirs.runs, column))
    assert ours.runs.name.tolist() == theirs.runs.name.tolist()
    # Only what is read is kept, and the client left nothing elsewhere.
    assert b"_step" not in (out / "runs.json").read_bytes()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.parent != out]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--filter", "state=crashed"], [row["state"] == "crashed" for row in ROWS]),
        (["--filter", "config.width=512", "--filter", "state=finished"], [row["state"] == "finished" for row in ROWS]),
        (["--filter", '{"config.width": {"$gt": 511}}'], [True for _ in ROWS]),
    ],
)
def test_filters(project: Wandb, out: Path, options: list[str], kept: list[bool]) -> None:
    for each in project.runs:
        each["config"] = {"width": 512}
    assert main(["fetch", "wandb", NAME, "--out", str(out), *options]) == 0
    names = [row["name"] for row in json.loads((out / "runs.json").read_text())]
    assert names == [row["name"] for row, keep in zip(ROWS, kept, strict=True) if keep]
    assert record(out)["query"]["filters"] == json.loads(pages(project)[0]["filters"])


def test_diverged_and_missing_values_survive_and_are_counted(
    project: Wandb, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, value in enumerate(("Infinity", "NaN", None)):
        project.runs[i]["summaryMetrics"][KEYS["loss"]] = value
    del project.runs[3]["summaryMetrics"][KEYS["tokens"]]
    assert main(["fetch", "wandb", NAME, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "runs: 1 row without tokens" in said and "runs: 2 rows without loss" in said
    lines = (out / "runs.json").read_text().splitlines()[1:5]
    assert [
        part in line for part, line in zip(('"loss":Infinity', '"loss":NaN', '"loss":null'), lines, strict=False)
    ] == ([True] * 3)
    skipped = {part.reason: part.count for part in load_study(out, tables={"runs"}).skipped}
    assert sum(skipped.values()) >= 4


def test_columns_from_config_and_from_nested_settings(project: Wandb, out: Path) -> None:
    for each, row in zip(project.runs, ROWS, strict=True):
        each["config"] = {"model": {"size": {"params": row["params"]}}, "trainer.steps": row["tokens"]}
        each["displayName"] = " "
    columns = ColumnMap(
        "runs", {"params": "config:model.size.params", "tokens": "config:trainer.steps", "name": "run:name"}
    )
    fetch_wandb(NAME, out, columns=columns)
    rows = json.loads((out / "runs.json").read_text())
    assert [row["params"] for row in rows] == [row["params"] for row in ROWS]
    assert [row["tokens"] for row in rows] == [row["tokens"] for row in ROWS]
    # A run without a name is called by its identity.
    assert [row["name"] for row in rows] == [each["name"] for each in project.runs]


def test_check(project: Wandb, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = ["fetch", "wandb", NAME, "--out", str(out), "--check"]
    assert main([*check[:-1], "--filter", "state=finished"]) == 0
    before = contents(out)
    project.requests.clear()
    # The filter is that of the snapshot.
    project.runs.append(run("another", {}, state="running", heartbeatAt="2026-04-01T00:00:00Z"))
    assert main(check) == 0
    assert [page["perPage"] for page in pages(project)] == [1]
    project.runs.append(run("one more", {}, heartbeatAt="2026-02-01T00:00:00Z"))
    capsys.readouterr()
    assert main(check) == 3
    assert "has moved on" in capsys.readouterr().out
    project.runs.pop()
    project.runs[0]["heartbeatAt"] = "2026-03-01T00:00:00Z"
    assert check_wandb(NAME, out).moved_on
    assert contents(out) == before
    assert main([*check, "--filter", "state=finished"]) == 1
    (out / "runs.json").unlink()
    assert main(check) == 1
    assert "not as fetched: runs.json" in capsys.readouterr().err


# Failures: one clear line, and the folder as it was

ERRORS = json.dumps({"errors": [{"message": f"no such field for {KEY}"}], "data": None}).encode()


@pytest.mark.parametrize(
    ("answer", "after", "needle"),
    [
        (Answer(status=401), 0, "(401): log in with `wandb login`, or set WANDB_API_KEY"),
        (Answer(status=404), 0, "not found (404): check ENTITY/PROJECT"),
        (Answer(status=429, headers={"Retry-After": "0"}), 0, "too many requests (429), after 2 tries"),
        (Answer(status=500), 1, "HTTP status 500, after 2 tries"),
        (Answer(b'{"data":{"project":null}}'), 0, "not found (404)"),
        (Answer(ERRORS, headers={"Content-Type": "application/json"}), 0, "no such field for ***"),
        (Answer(b"<html>"), 1, "wandb entity/project: "),
        (Answer(b'{"data":{"project":{"runCount":5,"runs":{"edges":[]}}}}'), 1, "less came than was announced"),
        (Answer(b'{"data":{}}', cut=5), 1, "wandb entity/project: "),
    ],
)
def test_a_server_that_fails_at_once_or_in_the_middle(
    project: Wandb, out: Path, old: dict[str, bytes], answer: Answer, after: int, needle: str, capsys: Any
) -> None:
    project.fail(r"runs\(", answer, after=after)
    assert main(["fetch", "wandb", NAME, "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("delphi-jax: wandb entity/project: ") and needle in said.err
    assert len(said.err.splitlines()) == 1 and KEY not in said.err and said.out == ""
    assert contents(out) == old


def test_a_server_that_does_not_answer(project: Wandb, out: Path, old: dict[str, bytes], capsys: Any) -> None:
    project.fail(r"runs\(", Answer(delay=60))
    assert main(["fetch", "wandb", NAME, "--out", str(out), "--timeout", "1"]) == 1
    assert "no answer within 1 s" in capsys.readouterr().err
    assert contents(out) == old


def test_half_of_the_runs(project: Wandb, out: Path, old: dict[str, bytes]) -> None:
    project.announced = len(ROWS) + 1
    with pytest.raises(InputError, match=r"less came than was announced \('238 of 239 runs'\)"):
        fetch_wandb(NAME, out)
    project.announced = None
    project.runs.append(project.runs[0])
    with pytest.raises(InputError, match="came twice"):
        fetch_wandb(NAME, out)
    assert contents(out) == old


@pytest.mark.parametrize(
    ("values", "needle"),
    [
        ({"loss": "low"}, "has 'low' as summary:eval/paloma/macro_loss for loss, expected a number"),
        ({"loss": {"min": 3}}, "has an object as summary:eval/paloma/macro_loss"),
        ({"params": True}, "has true as summary:parameter_count"),
    ],
)
def test_a_malformed_run_is_named(
    project: Wandb, out: Path, old: dict[str, bytes], values: dict[str, Any], needle: str
) -> None:
    name = project.runs[150]["displayName"]
    project.runs[150]["summaryMetrics"] |= {KEYS[column]: value for column, value in values.items()}
    with pytest.raises(InputError) as caught:
        fetch_wandb(NAME, out)
    assert name in str(caught.value) and needle in str(caught.value)
    assert contents(out) == old


def test_keys_that_no_run_has(project: Wandb, out: Path) -> None:
    with pytest.raises(InputError) as caught:
        fetch_wandb(NAME, out, columns=ColumnMap("runs", {"loss": "summary:loss"}))
    assert "no run has summary:loss for loss; runs have " in str(caught.value)
    assert "'summary:eval/paloma/macro_loss'" in str(caught.value)
    with pytest.raises(InputError, match="no run passes the filter"):
        fetch_wandb(NAME, out, filters={"state": "failed"})
    project.runs.clear()
    with pytest.raises(InputError, match="has no runs"):
        fetch_wandb(NAME, out)
    assert not out.exists()


def test_passing_failures_are_repeated_and_the_wait_is_the_server_s(project: Wandb, out: Path) -> None:
    project.fail(r"runs\(", Answer(status=429, headers={"Retry-After": "2"}), times=1, after=1)
    started = time.monotonic()
    fetch_wandb(NAME, out)
    assert time.monotonic() - started >= 2
    assert record(out)["rows"] == len(ROWS)


def test_the_key_is_needed_used_and_nowhere_kept(
    project: Wandb, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch_wandb(NAME, out)
    assert all(KEY.encode() not in content for content in contents(out).values())
    wrong = KEY[:-1] + "x"
    monkeypatch.setenv("WANDB_API_KEY", wrong)
    assert main(["fetch", "wandb", NAME, "--out", str(out)]) == 1
    monkeypatch.delenv("WANDB_API_KEY")
    assert main(["fetch", "wandb", NAME, "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert "no credentials found: log in with `wandb login`" in said.err
    assert "refused the credentials" in said.err
    assert KEY not in said.err and wrong not in said.err


def test_identities_of_runs_do_not_lead_out_of_the_folder(project: Wandb, out: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    project.runs[0]["name"] = str(outside)
    project.runs[1]["name"] = "../" * 20 + str(outside)[1:] + "2"
    project.runs[2]["displayName"] = "../../\x1b[2J"
    fetch_wandb(NAME, out)
    assert not outside.exists() and not Path(f"{outside}2").exists()
    assert json.loads((out / "runs.json").read_text())[2]["name"] == "../../\x1b[2J"
    assert {path.name for path in out.iterdir()} == {"runs.json", "provenance.json"}


def test_interrupted_in_the_middle(project: Wandb, out: Path, old: dict[str, bytes]) -> None:
    project.fail(r"runs\(", Answer(delay=60), after=1)
    command = [sys.executable, "-m", "delphi_jax", "fetch", "wandb", NAME, "--out", str(out)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(400):
            if process.poll() is not None or len(pages(project)) == 2:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == "delphi-jax: interrupted; nothing was fetched, the folder is as it was\n"
    assert contents(out) == old


def test_without_its_client(project: Wandb, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs wandb: install delphi-jax with its \[wandb\] extra"):
        fetch_wandb(NAME, out)


def study_file(folder: Path, metric: str, columns: str = "") -> Path:
    path = folder / "other.toml"
    path.write_text(f'name = "Other"\nmetric = {{ name = "{metric}" }}\n[[runs]]\nfiles = ["runs"]\n{columns}\n')
    return path


def test_another_metric_never_takes_the_loss_of_delphi_s_runs(out: Path, tmp_path: Path, project: Wandb) -> None:
    """Those log several losses: which one a study means must be said."""
    with pytest.raises(ValueError, match="the keys of loss are not named"):
        fetch_wandb("entity/project", out, study=study_file(tmp_path, "C4 loss", "flops_unit = 1e9"))
    assert not out.exists() or not contents(out)


def test_a_study_that_names_its_columns_means_the_keys_of_these_names(
    out: Path, tmp_path: Path, project: Wandb
) -> None:
    columns = 'columns = { loss = "eval/c4/loss" }\nflops_unit = 1e9'
    with pytest.raises(InputError, match="no run has summary:eval/c4/loss"):
        fetch_wandb("entity/project", out, study=study_file(tmp_path, "C4 loss", columns))
    columns = 'columns = { loss = "eval/paloma/macro_loss", params = "parameter_count" }\nflops_unit = 1e9'
    fetch_wandb("entity/project", out, study=study_file(tmp_path, "Paloma", columns))
    keys = record(out)["query"]["columns"]
    assert keys["eval/paloma/macro_loss"] == "summary:eval/paloma/macro_loss"
    assert keys["parameter_count"] == "summary:parameter_count"
