"""Tables from Hugging Face: its own client against a hub on the loopback, sound and failing."""

from __future__ import annotations

import hashlib
import io
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
from delphi_jax.fetch import hf
from delphi_jax.fetch.columns import ColumnMap
from delphi_jax.fetch.files import fetch_file
from delphi_jax.fetch.hf import check_hf, fetch_hf
from delphi_jax.io import load_study
from delphi_jax.status import InputError
from tests.servers import Answer, Hub

pytest.importorskip("huggingface_hub", reason="Hugging Face needs the [hf] extra")

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
TABLES = {path.stem: path.read_bytes() for path in DATA.glob("*.json") if path.stem != "provenance"}
TOKEN = "hf_s3cr3tS3cr3tS3cr3t"
NAME = "owner/study"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the bundled study, and a client with a token and nothing in its cache."""
    files = {f"data/{table}.json": content for table, content in TABLES.items()}
    hub = Hub(NAME, {"README.md": b"# A study\n", ".gitattributes": b"", **files}, token=TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub.running():
        yield hub


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def records(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "provenance.json").read_text())["tables"]


def test_the_whole_way_from_the_hub_to_the_figures(hub: Hub, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = dict(os.environ)
    assert main(["fetch", "hf", NAME, "--out", str(out)]) == 0
    assert dict(os.environ) == before
    said = capsys.readouterr()
    assert f"Fetched 8 tables from hf {NAME} at commit {hub.commit}" in said.out
    assert "hparam_sweep: 35 rows without eval/paloma/macro_loss" in said.out
    assert set(records(out)) == set(TABLES)
    for table, record in records(out).items():
        assert record["revision"]["commit"] == hub.commit
        assert record["item"] == f"data/{table}.json"
        assert record["sha256"] == hashlib.sha256((out / f"{table}.json").read_bytes()).hexdigest()
    # The listing came in pages, and the tables once each.
    assert len([request for request in hub.requests if "/tree/" in request.path]) == 4
    assert len([request for request in hub.requests if request.method == "GET" and "/resolve/" in request.path]) == 8
    # Everything after works without the hub.
    hub.fail(".", Answer(status=500))
    ours, theirs = load_study(out), load_study(DATA)
    assert ours.skipped == theirs.skipped and ours.missing == theirs.missing
    np.testing.assert_array_equal(ours.runs.loss, theirs.runs.loss)
    figures = ["isoflop-parabolas", "delphi-ladder"]
    for data in (DATA, out):
        target = out.parent / f"figures-{data.name}"
        assert main(["figures", "--data", str(data), "--out", str(target), "--no-cache", "--only", *figures]) == 0
    for name in figures:
        drawn = [(out.parent / f"figures-{data.name}" / f"{name}.json").read_bytes() for data in (DATA, out)]
        assert drawn[0] == drawn[1]


def test_parquet_and_json_lines_by_their_checksums(hub: Hub, out: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="Parquet needs the [parquet] extra")
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{"Name": row.pop("name"), **row} for row in rows("runs")]), file)
    lines = "\n".join(map(json.dumps, rows("mmlu"))).encode()
    hub.files = {"runs/train.parquet": file.getvalue(), "mmlu.jsonl": lines}
    options = ["--table", "runs=runs/train.parquet", "--column", "name=Name"]
    assert main(["fetch", "hf", NAME, "--out", str(out), *options]) == 0
    assert records(out)["runs"]["revision"]["checksum"].startswith("sha256:")
    assert records(out)["mmlu"]["revision"]["checksum"].startswith("git:")
    assert json.loads((out / "runs.json").read_text()) == rows("runs")
    assert check_hf(NAME, out).changes == ()


def rows(table: str) -> list[dict[str, Any]]:
    return json.loads(TABLES[table])


def test_check(hub: Hub, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = ["fetch", "hf", NAME, "--out", str(out), "--check"]
    fetch_hf(NAME, out)
    assert main(check) == 0
    first = hub.commit
    hub.files["README.md"] = b"# Another word\n"
    assert hub.commit != first
    assert main(check) == 0
    assert "its tables have the same checksums" in capsys.readouterr().out
    hub.files["data/runs.json"] = json.dumps(rows("runs")[:-1]).encode()
    del hub.files["data/gsm8k.json"]
    before = contents(out)
    assert main(check) == 3
    said = capsys.readouterr().out
    assert "runs has changed" in said and "gsm8k is gone" in said and "mmlu" not in said
    assert contents(out) == before
    assert main(check[:-1]) == 0
    assert "No longer in the source, removed:\n  gsm8k" in capsys.readouterr().out
    assert set(contents(out)) == {f"{table}.json" for table in TABLES if table != "gsm8k"} | {"provenance.json"}
    assert main(check) == 0
    (out / "mmlu.json").write_bytes(b"[]")
    assert main(check) == 1
    assert "not as fetched: mmlu.json" in capsys.readouterr().err


def test_a_revision(hub: Hub, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "hf", NAME, "--out", str(out), "--revision", "no-such"]) == 1
    assert "not found (404)" in capsys.readouterr().err
    commit = hub.commit
    assert fetch_hf(NAME, out, revision=commit).revision == commit


@pytest.mark.parametrize(
    ("files", "options", "needle"),
    [
        ({"a/runs.json": b"[]", "b/runs.csv": b""}, [], "2 files for runs: 'a/runs.json', 'b/runs.csv'; choose with"),
        ({"losses.json": b"[]"}, [], "holds no table of a study"),
        (
            {"losses.json": b"[]"},
            ["--table", "runs=loses.json"],
            "has no 'loses.json'; the files there are 'losses.json'",
        ),
        ({"runs.json": b"[]"}, [], "holds no rows"),
        ({"runs.json": b"[{"}, [], "'runs.json': is not valid JSON"),
        ({"runs.json": b"[1]"}, [], "row 0 is 1"),
        (
            {"runs.json": TABLES["runs"].replace(b'"loss":', b'"loss":"many","was":', 1)},
            [],
            "row 0, column 'loss': found",
        ),
        ({"mmlu.json": TABLES["mmlu"]}, ["--column", "loss=x"], "has no runs, of which columns are named"),
    ],
)
def test_what_a_dataset_may_hold(
    hub: Hub,
    out: Path,
    files: dict[str, bytes],
    options: list[str],
    needle: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.files = files
    assert main(["fetch", "hf", NAME, "--out", str(out), *options]) == 1
    assert needle in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("path", ["../runs.json", "/etc/runs.json", "a/../../runs.json", "c:/runs.json"])
def test_names_in_a_listing_do_not_lead_out_of_the_folder(
    hub: Hub, out: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.files[path] = TABLES["runs"]
    del hub.files["data/runs.json"]
    before = {found for found in out.parent.rglob("*") if found.is_file()}
    assert main(["fetch", "hf", NAME, "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "do not trust it" in said
    assert {found for found in out.parent.rglob("*") if found.is_file()} == before
    assert not [request for request in hub.requests if "/resolve/" in request.path]


def test_names_in_a_listing_are_text_on_the_terminal(hub: Hub, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.files = {"\x1b[2J\n.json": b"[]"}
    assert main(["fetch", "hf", NAME, "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "\x1b" not in said and len(said.splitlines()) == 1


# Failures: one clear line, and the folder as it was


@pytest.fixture
def old(out: Path) -> dict[str, bytes]:
    """A snapshot that is there already."""
    fetch_file(DATA / "mmlu.json", out, "json", columns=ColumnMap("mmlu"))
    return contents(out)


@pytest.mark.parametrize(
    ("where", "answer", "needle"),
    [
        ("/api/", Answer(status=401), "`hf auth login`"),
        ("/api/", Answer(status=403), "refused access (403)"),
        ("/api/", Answer(status=404, headers={"X-Error-Code": "RepoNotFound"}), "check OWNER/DATASET"),
        ("/api/", Answer(status=403, headers={"X-Error-Code": "GatedRepo"}), "the dataset is gated"),
        ("/api/", Answer(status=429, headers={"Retry-After": "0"}), "(429), after 2 tries"),
        ("/api/", Answer(status=500, headers={"Retry-After": "0"}), "500, after 2 tries"),
        ("/api/", Answer(delay=30), "no answer within 0.2 s"),
        ("/api/", Answer(b"<html>"), "its client failed"),
        (
            "study ",
            Answer(json.dumps({"id": NAME, "sha": "main", "lastModified": "2026-01-02T03:04:05.000Z"}).encode()),
            "names no commit",
        ),
        ("/tree/", Answer(status=404), "not found (404)"),
        ("/tree/", Answer(b"[{", headers={"Link": "<x>"}), "its client failed"),
        ("/resolve/", Answer(status=404, headers={"X-Error-Code": "EntryNotFound"}), "not found (404)"),
        ("GET.*/resolve/", Answer(b"[]"), "broke off"),
    ],
)
def test_a_hub_that_fails(
    hub: Hub,
    out: Path,
    old: dict[str, bytes],
    where: str,
    answer: Answer,
    needle: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(hf, "RETRIES", 1)
    monkeypatch.setattr("delphi_jax.fetch.client.RETRIES", 1)
    hub.fail(where, answer)
    assert main(["fetch", "hf", NAME, "--out", str(out), "--timeout", "0.2"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"delphi-jax: hf {NAME}: ") and needle in said.err
    assert contents(out) == old


def test_a_token_is_needed_used_and_nowhere_kept(
    hub: Hub, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.fail("/tree/", Answer(json.dumps({"error": f"no {TOKEN}"}).encode(), 403), times=1)
    assert main(["fetch", "hf", NAME, "--out", str(out)]) == 1
    assert "(403)" in capsys.readouterr().err.replace(TOKEN, "(token)")
    assert main(["fetch", "hf", NAME, "--out", str(out)]) == 0
    assert all(TOKEN.encode() not in content for content in contents(out).values())
    assert main(["fetch", "hf", NAME, "--out", str(out), "--check"]) == 0
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}wrong")
    assert main(["fetch", "hf", NAME, "--out", str(out)]) == 1
    monkeypatch.delenv("HF_TOKEN")
    assert main(["fetch", "hf", NAME, "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert "refused the credentials, or asks for some (401): log in with `hf auth login`" in said.err
    assert TOKEN not in said.out + said.err


def test_what_the_server_says_is_cleaned_of_the_token(hub: Hub, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = json.dumps({"error": f"{TOKEN} at https://me:pw@host/x?key=1 \x1b[2J"}).encode()
    hub.fail("/api/", Answer(said, 403, {"Content-Type": "application/json"}))
    assert main(["fetch", "hf", NAME, "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert TOKEN not in error and "pw" not in error and "key" not in error and "\x1b" not in error
    assert "***" in error


def test_passing_failures_are_repeated_and_a_transfer_taken_up(hub: Hub, out: Path) -> None:
    hub.fail("/api/.*study ", Answer(status=429, headers={"Retry-After": "0"}), times=1)
    hub.fail("/tree/", Answer(status=503), times=1)
    body = hub.files["data/runs.json"]
    etag = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
    headers = {"ETag": f'"{etag}"', "X-Repo-Commit": hub.commit}
    hub.fail("GET.*/resolve/.*runs.json", Answer(body, headers=headers, cut=10_000), times=1)
    fetch_hf(NAME, out)
    assert len([r for r in hub.requests if r.method == "GET" and r.path.endswith("/data/runs.json")]) == 2
    assert load_study(out).runs.name.tolist() == load_study(DATA).runs.name.tolist()


def test_a_file_that_is_not_what_the_dataset_lists(hub: Hub, out: Path, old: dict[str, bytes]) -> None:
    body = bytes(hub.files["data/runs.json"]).replace(b"3.3", b"3.4")
    headers = {"ETag": '"' + "0" * 40 + '"', "X-Repo-Commit": hub.commit}
    hub.fail("/resolve/.*runs.json", Answer(body, headers=headers))
    with pytest.raises(InputError, match="its checksum differs"):
        fetch_hf(NAME, out)
    assert contents(out) == old


def test_a_listing_with_a_file_twice(hub: Hub, out: Path) -> None:
    entry = {"type": "file", "path": "runs.json", "oid": "0" * 40, "size": 1}
    hub.listed = [entry, entry]
    with pytest.raises(InputError, match="less came than was announced"):
        fetch_hf(NAME, out)


def test_killed_in_the_middle(
    hub: Hub, out: Path, old: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    hub.fail("GET.*/resolve/", Answer(delay=60))
    hub.requests.clear()
    command = [sys.executable, "-m", "delphi_jax", "fetch", "hf", NAME, "--out", str(out)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        for _ in range(400):
            if process.poll() is not None or any(
                "GET" in r.method and "/resolve/" in r.path for r in hub.requests[-1:]
            ):
                break
            time.sleep(0.05)
        children = [int(pid) for pid in children_of(process.pid)]
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == old
    # The client's process goes with the command.
    for _ in range(100):
        if not any(alive(pid) for pid in children):
            break
        time.sleep(0.05)
    assert children and not any(alive(pid) for pid in children)
    assert not list(scratch.iterdir())
    hub.heal()
    fetch_hf(NAME, out)
    assert set(contents(out)) == {f"{table}.json" for table in TABLES} | {"provenance.json"}


def children_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        pytest.skip("the system does not list processes")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_without_its_client(hub: Hub, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs huggingface_hub: install delphi-jax with its \[hf\] extra"):
        fetch_hf(NAME, out)
