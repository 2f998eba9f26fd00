"""Tables from files and URLs: what arrives, what can fail, what stays secret, and that a snapshot is whole or old."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import signal
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delphi_jax.cli import main
from delphi_jax.fetch import files as fetch_files
from delphi_jax.fetch.addresses import public_url
from delphi_jax.fetch.columns import ColumnMap
from delphi_jax.fetch.files import check_file, fetch_file
from delphi_jax.fetch.snapshot import changed_files
from delphi_jax.io import load_study
from delphi_jax.status import InputError
from tests.servers import Answer, Files

pytest.importorskip("requests", reason="URLs need the [fetch] extra")

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
ROWS: list[dict[str, Any]] = json.loads((DATA / "runs.json").read_text())
SECRET = "s3cr3t-t0ken"


def csv_bytes(rows: list[dict[str, Any]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def parquet_bytes(rows: list[dict[str, Any]]) -> bytes:
    pa = pytest.importorskip("pyarrow", reason="Parquet needs the [parquet] extra")
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def encoded(rows: list[dict[str, Any]], file_type: str) -> bytes:
    if file_type == "jsonl":
        return "\n".join(map(json.dumps, rows)).encode()
    return {"json": lambda: json.dumps(rows).encode(), "csv": lambda: csv_bytes(rows)}.get(
        file_type, lambda: parquet_bytes(rows)
    )()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def provenance(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "provenance.json").read_text())["tables"]


def refused(call: Any, *needles: str) -> str:
    """``call`` must fail, with a message that holds every needle and no secret in all of its traceback."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    for needle in needles:
        assert needle in message, f"{needle!r} not in: {message}"
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return message


@pytest.fixture
def server() -> Iterator[Files]:
    server = Files({"/runs.csv": csv_bytes(ROWS)})
    with server.running():
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_files, "_BACKOFF", 0.01)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def old(out: Path) -> dict[str, bytes]:
    """A snapshot that is there already, of one run less."""
    where = out.parent / "older.csv"
    where.write_bytes(csv_bytes(ROWS[:-1]))
    fetch_file(where, out, "csv")
    return contents(out)


# What arrives


@pytest.mark.parametrize("file_type", ["csv", "json", "jsonl", "parquet"])
def test_a_file_loads_as_the_table_that_it_was(out: Path, file_type: str) -> None:
    where = out.parent / f"anything.{file_type}"
    where.write_bytes(encoded([{"ignored": "text", **row} for row in ROWS], file_type))
    snapshot = fetch_file(where, out, file_type)
    assert snapshot.tables[0].table.rows == len(ROWS)
    ours, theirs = load_study(out, tables={"runs"}).runs, load_study(DATA, tables={"runs"}).runs
    np.testing.assert_array_equal(ours.loss, theirs.loss)
    np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    assert ours.name.tolist() == theirs.name.tolist()
    assert b"ignored" not in (out / "runs.json").read_bytes()
    assert {path.name for path in out.iterdir()} == {"runs.json", "provenance.json"}


@pytest.mark.parametrize("file_type", ["csv", "json", "parquet"])
def test_columns_are_renamed_and_what_they_hide_is_set_aside(out: Path, file_type: str) -> None:
    rows = [{"Name": row["name"], "parameter_count": row["params"], **row, "params": -1.0} for row in ROWS]
    rows = [{key: value for key, value in row.items() if key != "name"} for row in rows]
    where = out.parent / f"runs.{file_type}"
    where.write_bytes(encoded(rows, file_type))
    columns = ColumnMap("runs", {"name": "Name", "params": "parameter_count"})
    fetch_file(where, out, file_type, columns=columns)
    assert json.loads((out / "runs.json").read_text()) == [dict(row) for row in ROWS]
    refused(
        lambda: fetch_file(where, out, file_type, columns=ColumnMap("runs", {"loss": "no such"})),
        "'no such'",
        "'parameter_count'",
    )


def test_all_columns_keep_the_bytes_of_the_file(out: Path) -> None:
    content = csv_bytes([{"more": 1, **row} for row in ROWS])
    where = out.parent / "runs.csv"
    where.write_bytes(content)
    fetch_file(where, out, "csv", all_columns=True)
    assert (out / "runs.csv").read_bytes() == content
    # Another form of the same table takes the place of this one: two would be refused when read.
    fetch_file(where, out, "csv")
    assert {path.name for path in out.iterdir()} == {"runs.json", "provenance.json"}
    assert len(load_study(out, tables={"runs"}).runs)


@pytest.mark.parametrize("file_type", ["csv", "json", "parquet"])
def test_diverged_and_missing_losses_survive(out: Path, file_type: str) -> None:
    rows = [dict(row) for row in ROWS]
    rows[0]["loss"], rows[1]["loss"], rows[2]["loss"] = float("inf"), float("nan"), None
    where = out.parent / f"runs.{file_type}"
    where.write_bytes(encoded(rows, file_type))
    snapshot = fetch_file(where, out, file_type)
    assert snapshot.tables[0].table.missing == {"loss": 2}
    kept = (out / "runs.json").read_text()
    assert kept.count('"loss":Infinity') == 1
    assert kept.count('"loss":NaN') == (file_type != "csv")
    # The reader says of the copy what it says of the original.
    direct = load_study(None, runs=where, tables={"runs"}).skipped
    assert [(part.reason, part.names) for part in load_study(out, tables={"runs"}).skipped] == [
        (part.reason, part.names) for part in direct
    ]
    assert sum(part.count for part in direct) >= 3


def test_the_study_file_of_the_folder_says_what_is_kept(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out.mkdir()
    study = 'name = "Mine"\n[[runs]]\nfiles = ["trained"]\ncolumns = {params = "N", flops = "C"}\n'
    (out / "study.toml").write_text(study)
    where = out.parent / "export.csv"
    where.write_bytes(csv_bytes([{"N": 1e9, "C": 6e19, "D": 1, **row} for row in ROWS[:9]]))
    assert main(["fetch", "csv", str(where), "--out", str(out)]) == 1
    assert "Mine has no table 'runs' to fetch: choose from trained" in capsys.readouterr().err
    assert main(["fetch", "csv", str(where), "--out", str(out), "--table", "trained"]) == 0
    assert set(json.loads((out / "trained.json").read_text())[0]) == {"name", "N", "tokens", "loss", "C", "state"}
    assert (out / "study.toml").read_text() == study
    # The key of C is C; which loss this study means, and what holds FLOPs in its unit, is for the user to name.
    wandb = ["fetch", "wandb", "a/b", "--out", str(out), "--table", "trained"]
    assert main(wandb) == 1
    assert "the keys of loss are not named" in capsys.readouterr().err
    (out / "study.toml").write_text(study.replace(', flops = "C"', ""))
    assert main(wandb) == 1
    assert "the keys of loss, flops are not named" in capsys.readouterr().err


def test_tables_of_several_sources_share_a_folder(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for table in ("runs", "mmlu"):
        assert main(["fetch", "json", str(DATA / f"{table}.json"), "--table", table, "--out", str(out)]) == 0
    assert set(provenance(out)) == {"runs", "mmlu"}
    study = load_study(out)
    assert len(study.runs) and set(study.evals) == {"mmlu"}
    capsys.readouterr()
    where = out.parent / "other.json"
    where.write_text(json.dumps(ROWS))
    assert main(["fetch", "json", str(where), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "Replaced another source's" in said and str(DATA / "runs.json") in said
    assert changed_files(out) == []


def test_a_url_with_its_provenance(server: Files, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "csv", f"{server.url}/runs.csv", "--out", str(out)]) == 0
    assert f"Fetched 1 table from {server.url}/runs.csv to {out}" in capsys.readouterr().out
    record = provenance(out)["runs"]
    assert record["source"] == {"kind": "file", "name": f"{server.url}/runs.csv"}
    assert record["rows"] == len(ROWS)
    assert record["revision"]["etag"].startswith('"')
    assert len(record["sha256"]) == 64
    assert record["fetched"].endswith("+00:00")
    assert len(load_study(out, tables={"runs"}).runs)


# Whether the source has moved on


def test_check_of_a_url(server: Files, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = f"{server.url}/runs.csv"
    check = ["fetch", "csv", where, "--out", str(out), "--check"]
    assert main(check) == 1
    assert "holds no snapshot" in capsys.readouterr().err
    assert not out.exists()
    main(["fetch", "csv", where, "--out", str(out)])
    before = contents(out)
    assert main(check) == 0
    assert server.requests[-1].headers["If-None-Match"] == provenance(out)["runs"]["revision"]["etag"]
    server.files["/runs.csv"] = csv_bytes(ROWS[:-1])
    capsys.readouterr()
    assert main(check) == 3
    assert "moved on" in capsys.readouterr().out
    assert contents(out) == before
    (out / "runs.json").write_bytes(before["runs.json"][:-1])
    assert main(check) == 1
    assert "not as fetched: runs.json" in capsys.readouterr().err


def test_check_of_a_url_whose_answer_is_new_but_the_same(server: Files, out: Path) -> None:
    where = f"{server.url}/runs.csv"
    fetch_file(where, out, "csv")
    server.fail("GET", Answer(server.files["/runs.csv"], headers={"ETag": '"another"'}))
    assert not check_file(where, out).moved_on


def test_check_of_a_file(out: Path) -> None:
    where = out.parent / "runs.json"
    where.write_text(json.dumps(ROWS))
    fetch_file(where, out, "json")
    assert not check_file(where, out).moved_on
    where.write_text(json.dumps(ROWS[1:]))
    assert check_file(where, out).moved_on
    where.unlink()
    refused(lambda: check_file(where, out), "No such file")


def test_check_takes_no_query(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "csv", "x.csv", "--out", str(out), "--check", "--column", "loss=x"]) == 1
    assert "leave out --column" in capsys.readouterr().err


# Failures: one clear line, and the folder as it was


@pytest.mark.parametrize(
    ("answer", "needle"),
    [
        (Answer(status=401), "401"),
        (Answer(status=403), "403"),
        (Answer(status=404), "404"),
        (Answer(status=429, headers={"Retry-After": "0"}), "(429), after 6 tries"),
        (Answer(status=503), "503, after 6 tries"),
        (Answer(csv_bytes(ROWS), cut=5000), "broke off, after 6 tries"),
        (Answer(delay=30), "no answer within 0.2 s, after 6 tries"),
        (Answer(b"<html>Log in</html>"), "no row has column"),
        (Answer(b"\xff\xfe\x00"), "not UTF-8"),
        (Answer(b""), "is empty"),
        (
            Answer(csv_bytes(ROWS).replace(str(ROWS[3]["loss"]).encode(), b"many")),
            "line 5, column 'loss': found 'many'",
        ),
        (Answer(csv_bytes(ROWS)[:5000]), "the header has"),
        (Answer(csv_bytes(ROWS).partition(b"\n")[0]), "no rows"),
    ],
)
def test_a_url_that_fails(
    server: Files, out: Path, old: dict[str, bytes], answer: Answer, needle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fail("GET", answer)
    assert main(["fetch", "csv", f"{server.url}/runs.csv", "--out", str(out), "--timeout", "0.2"]) == 1
    said = capsys.readouterr()
    assert needle in said.err
    assert f"{server.url}/runs.csv" in said.err
    assert said.out == ""
    assert contents(out) == old


def test_nobody_listens(out: Path) -> None:
    with ExitStack() as stack:
        url = stack.enter_context(Files({}).running()).url
    refused(lambda: fetch_file(f"{url}/runs.csv", out, "csv"), "cannot be reached")
    assert not out.exists()


def test_passing_failures_are_repeated_and_the_wait_is_the_server_s(server: Files, out: Path) -> None:
    server.fail("GET", Answer(status=429, headers={"Retry-After": "1"}), times=1)
    server.fail("GET", Answer(csv_bytes(ROWS), cut=5000), times=2)
    started = time.monotonic()
    fetch_file(f"{server.url}/runs.csv", out, "csv")
    assert time.monotonic() - started >= 1
    assert len(server.requests) == 4
    assert provenance(out)["runs"]["rows"] == len(ROWS)


@pytest.mark.parametrize("where", ["ftp://host/runs.csv", "s3://bucket/runs.csv", "http:///runs.csv"])
def test_other_addresses(where: str, out: Path) -> None:
    with pytest.raises(ValueError, match="expected a path, or a URL"):
        fetch_file(where, out, "csv")
    assert main(["fetch", "csv", where, "--out", str(out)]) == 1


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    refused(lambda: fetch_file(DATA / "runs.json", tmp_path / "taken", "json"), "cannot be written")
    refused(lambda: fetch_file(tmp_path, tmp_path / "out", "json"), "is a directory")


def test_without_its_client(server: Files, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(lambda: fetch_file(f"{server.url}/runs.csv", out, "csv"), "install delphi-jax with its [fetch] extra")


# Secrets


def test_credentials_are_used_and_nowhere_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    given = base64.b64encode(f"me:{SECRET}".encode()).decode()
    server = Files({"/runs.csv": csv_bytes(ROWS)}, authorization=f"Basic {given}")
    out = tmp_path / "out"
    with server.running():
        where = f"{server.url.replace('//', f'//me:{SECRET}@')}/runs.csv?sheet=1&key={SECRET}#{SECRET}"
        assert main(["fetch", "csv", where, "--out", str(out)]) == 0
        assert SECRET in server.requests[-1].target
        assert main(["fetch", "csv", where, "--out", str(out), "--check"]) == 0
        assert main(["fetch", "csv", where.replace("me:", "you:"), "--out", str(out)]) == 1
        server.fail("GET", Answer(status=500))
        refused(lambda: fetch_file(where, out, "csv"), "500")
    refused(lambda: fetch_file(where, out, "csv"), "cannot be reached")
    assert main(["fetch", "csv", where, "--out", str(out)]) == 1
    said = capsys.readouterr()
    for text in (said.out, said.err, caplog.text, *(content.decode() for content in contents(out).values())):
        assert SECRET not in text
    assert f"{server.url}/runs.csv?sheet=...&key=..." in said.err


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://host/a.csv", "https://host/a.csv"),
        ("https://me:pw@host:8/a.csv", "https://host:8/a.csv"),
        ("https://p@w@host/a.csv?X-Amz-Signature=s&v=", "https://host/a.csv?X-Amz-Signature=...&v=..."),
        ("http://[::1]:80/a?b#c", "http://[::1]:80/a?b=..."),
    ],
)
def test_public_urls(url: str, public: str) -> None:
    assert public_url(url) == public


# Files that are not ours


def test_what_no_fetch_wrote_is_left_alone(out: Path) -> None:
    out.mkdir()
    (out / "runs.csv").write_text("mine")
    refused(lambda: fetch_file(DATA / "runs.json", out, "json"), "runs.csv", "was not written by a fetch")
    assert contents(out) == {"runs.csv": b"mine"}
    (out / "runs.csv").rename(out / "notes.txt")
    fetch_file(DATA / "runs.json", out, "json")
    edited = (out / "runs.json").read_bytes().replace(b"finished", b"edited")
    (out / "runs.json").write_bytes(edited)
    refused(lambda: fetch_file(DATA / "runs.json", out, "json"), "was changed since it was fetched")
    assert (out / "runs.json").read_bytes() == edited
    assert (out / "notes.txt").read_text() == "mine"


def test_a_simulated_study_and_other_provenance_are_refused(tmp_path: Path) -> None:
    simulated = tmp_path / "simulated"
    assert main(["simulate", "--out", str(simulated)]) == 0
    before = contents(simulated)
    refused(lambda: fetch_file(DATA / "runs.json", simulated, "json"), "simulated")
    assert contents(simulated) == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "provenance.json").write_text('{"what": "mine"}')
    refused(lambda: fetch_file(DATA / "runs.json", other, "json"), "was not written by this version's fetch")


def test_links_and_names_do_not_lead_out_of_the_folder(out: Path, old: dict[str, bytes]) -> None:
    outside = out.parent / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (out / ".delphi-fetch-link").symlink_to(outside)
    (out / "mmlu.json").symlink_to(outside / "kept")
    refused(lambda: fetch_file(DATA / "mmlu.json", out, "json", columns=ColumnMap("mmlu")), "not written by a fetch")
    fetch_file(DATA / "runs.json", out, "json")
    assert contents(outside) == {"kept": b"kept"}
    (out / "provenance.json").write_bytes(old["provenance.json"].replace(b'"runs.json"', b'"../outside/kept"'))
    refused(lambda: fetch_file(DATA / "runs.json", out, "json"), "was not written by this version's fetch")
    (out / "provenance.json").write_bytes(old["provenance.json"].replace(b'"runs', b'"../outside/kept'))
    refused(lambda: fetch_file(DATA / "runs.json", out, "json"), "was not written by this version's fetch")
    assert contents(outside) == {"kept": b"kept"}


def test_names_from_data_are_text_on_the_terminal(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = out.parent / "runs.json"
    where.write_text(json.dumps([{"\x1b[2Jname\n": 1}]))
    assert main(["fetch", "json", str(where), "--out", str(out), "--column", "loss=no"]) == 1
    said = capsys.readouterr().err
    assert "\x1b" not in said and len(said.splitlines()) == 1


# Killed, interrupted, at the same time

FETCH = """
import os, sys
from pathlib import Path
from delphi_jax.fetch import snapshot
from delphi_jax.fetch.files import fetch_file
calls, replace = 0, os.replace
def killed(*paths):
    global calls
    calls += 1
    if calls > int(sys.argv[3]):
        os._exit(9)
    replace(*paths)
snapshot.os.replace = killed
fetch_file(sys.argv[1], Path(sys.argv[2]), "json")
"""


def test_a_fetch_killed_between_two_files_is_seen_and_undone(out: Path, old: dict[str, bytes]) -> None:
    for renamed in (0, 1):
        command = [sys.executable, "-c", FETCH, str(DATA / "runs.json"), str(out), str(renamed)]
        assert subprocess.run(command, cwd=ROOT, timeout=60, check=False).returncode == 9
        assert changed_files(out) == ["runs.json"] * renamed
        if renamed:
            refused(lambda: check_file(out.parent / "older.csv", out), "was killed while it replaced")
        # The next fetch starts from what was there before, even where it fails itself.
        refused(lambda: fetch_file(out.parent / "none.csv", out, "csv"), "cannot be read")
        assert contents(out) == old


@pytest.mark.parametrize("call", [0, 1])
def test_a_swap_that_fails_is_undone(
    out: Path, old: dict[str, bytes], call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    replace = os.replace

    def failing(*paths: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call + 1:
            raise OSError(28, "No space left on device")
        replace(*paths)

    monkeypatch.setattr(os, "replace", failing)
    refused(lambda: fetch_file(DATA / "runs.json", out, "json"), "No space left on device")
    assert contents(out) == old


def started(server: Files, out: Path) -> subprocess.Popen[str]:
    """A fetch that waits in the middle of a transfer."""
    server.fail("GET", Answer(csv_bytes(ROWS), delay=60))
    process = subprocess.Popen(
        [sys.executable, "-m", "delphi_jax", "fetch", "csv", f"{server.url}/runs.csv", "--out", str(out)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(600):
        if server.requests:
            return process
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(process.communicate())


def test_a_killed_fetch_leaves_the_old_snapshot(server: Files, out: Path, old: dict[str, bytes]) -> None:
    with started(server, out) as process:
        process.send_signal(signal.SIGKILL)
    assert {name: content for name, content in contents_of_files(out).items()} == old
    server.heal()
    fetch_file(f"{server.url}/runs.csv", out, "csv")
    assert {path.name for path in out.iterdir()} == set(old)
    assert len(json.loads((out / "runs.json").read_text())) == len(ROWS)


def test_an_interrupted_fetch_leaves_nothing_behind(server: Files, out: Path, old: dict[str, bytes]) -> None:
    with started(server, out) as process:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted; nothing was fetched, the folder is as it was" in said
    assert "Traceback" not in said
    assert contents(out) == old


def test_two_fetches_at_a_time(server: Files, out: Path) -> None:
    pytest.importorskip("fcntl", reason="folders cannot be locked here")
    with started(server, out) as process:
        refused(lambda: fetch_file(DATA / "runs.json", out, "json"), "another fetch is writing here")
        process.kill()
    fetch_file(DATA / "runs.json", out, "json")
    assert stat.S_IMODE((out / "runs.json").stat().st_mode) & stat.S_IRUSR


def contents_of_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# The command


@pytest.mark.parametrize(
    "arguments",
    [["fetch"], ["fetch", "csv"], ["fetch", "csv", "x"], ["fetch", "ftp", "x"], ["fetch", "hf", "--out", "x"]],
)
def test_bad_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "needle"),
    [
        (["csv", "x", "--table", "losses"], "no table 'losses' to fetch"),
        (["csv", "x", "--column", "loss"], "expected NAME=SOURCE"),
        (["csv", "x", "--column", "los=x"], "no column 'los'"),
        (["hf", "dataset"], "expected OWNER/DATASET"),
        (["hf", "a/b", "--table", "runs=../runs.json"], "no path in a dataset"),
        (["hf", "a/b", "--table", r"runs=a\..\runs.json"], "no path in a dataset"),
        (["hf", "a/b", "--table", "runs=runs.txt"], "is no table"),
        (["wandb", "project"], "expected ENTITY/PROJECT"),
        (["wandb", "a/b", "--column", "loss=eval"], "expected summary:KEY"),
        (["wandb", "a/b", "--filter", "{"], "not valid JSON"),
        (["wandb", "a/b", "--table", "mmlu"], "are not named"),
    ],
)
def test_wrong_options(arguments: list[str], needle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", *arguments, "--out", str(tmp_path / "out")]) == 1
    assert needle in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_client_is_imported_before_it_is_needed(tmp_path: Path) -> None:
    code = (
        "import sys; from delphi_jax.cli import main; "
        f"assert main(['fetch', 'json', {str(DATA / 'runs.json')!r}, '--out', {str(tmp_path / 'out')!r}]) == 0; "
        "print([m for m in ('jax', 'pandas', 'plotly', 'requests', 'wandb', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
