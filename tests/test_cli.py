"""The command: exit codes, messages, files whole or not at all, and what it leaves alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from delphi_jax import __version__
from delphi_jax.cli import main
from delphi_jax.io.study import load_study
from delphi_jax.kernels.precision import run_kernels_with
from tests.delphi import FIGURE_TITLES

DATA = Path(__file__).resolve().parents[1] / "data"
RUNS_FIGURES = {
    "isoflop-parabolas",
    "scaling-law-asymptote",
    "first-ladder",
    "first-ladder-mobile",
    "delphi-ladder",
    "delphi-ladder-mobile",
    "lucky-seeds",
    "overtraining-forecast",
}


@pytest.fixture(autouse=True)
def jax_config_restored() -> Iterator[None]:
    """The command keeps compiled programs for its own process: undo that between tests."""
    enabled = jax.config.jax_enable_compilation_cache
    yield
    run_kernels_with(None)
    jax.config.update("jax_enable_compilation_cache", enabled)


def figures(out: Path, *options: str) -> int:
    return main(["figures", "--data", str(DATA), "--out", str(out), "--no-cache", *options])


def written(out: Path) -> set[str]:
    return {path.stem for path in out.glob("*.json")}


def test_figures_of_the_bundled_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert figures(tmp_path) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "Simulated data: no number" in said.out
    assert "Wrote 12 files" in said.out
    assert written(tmp_path) == set(FIGURE_TITLES)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json"}
    for path in tmp_path.iterdir():
        assert {"data", "layout"} <= set(json.loads(path.read_bytes()))
    assert (tmp_path / "hparam-scaling.json").stat().st_size < 1_000_000


def test_only_reads_and_computes_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import delphi_jax.fit.study as study

    def unwanted(*_: object, **__: object) -> None:
        raise AssertionError("was not asked for")

    for name in ("fit_sweep", "fit_downstream", "bootstrap_law", "fit_overtraining", "fit_shared_laws"):
        monkeypatch.setattr(study, name, unwanted)
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(DATA / "runs.json", data)
    (data / "hparam_sweep.json").write_text("not read")
    out = tmp_path / "out"
    assert main(["figures", "--data", str(data), "--out", str(out), "--no-cache", "--only", "delphi-ladder"]) == 0
    assert written(out) == {"delphi-ladder"}


def test_several_names_and_formats(tmp_path: Path) -> None:
    names = ["lucky-seeds", "delphi-ladder-mobile"]
    assert figures(tmp_path, "--only", *names, "--format", "json", "html") == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}.{form}" for name in names for form in ("json", "html")
    }


def test_missing_optional_tables_are_said_and_the_rest_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(DATA / "runs.json", data)
    assert main(["figures", "--data", str(data), "--out", str(out), "--no-cache"]) == 0
    said = capsys.readouterr().out
    assert written(out) == RUNS_FIGURES
    assert "hparam_sweep, for hparam-scaling" in said
    assert "mmlu-emergence: no downstream evaluations" in said
    assert "Simulated" not in said


def test_a_figure_asked_for_in_vain_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(DATA / "runs.json", tmp_path)
    out = tmp_path / "out"
    code = main(["figures", "--data", str(tmp_path), "--out", str(out), "--no-cache", "--only", "hparam-scaling"])
    assert code == 1
    assert "hparam-scaling: " in capsys.readouterr().out
    assert written(out) == set()


def test_single_files(tmp_path: Path) -> None:
    runs, sweep = tmp_path / "my-runs.json", tmp_path / "my-sweep.json"
    shutil.copy(DATA / "runs.json", runs)
    shutil.copy(DATA / "hparam_sweep.json", sweep)
    out = tmp_path / "out"
    assert main(["figures", "--in", str(runs), "--sweep-in", str(sweep), "--out", str(out), "--no-cache"]) == 0
    assert written(out) == RUNS_FIGURES | {"hparam-scaling", "hparam-scaling-mobile"}


def test_bad_input_is_named_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs.json"
    runs.write_text((DATA / "runs.json").read_text()[:5000])
    out = tmp_path / "out"
    assert main(["figures", "--in", str(runs), "--out", str(out), "--no-cache"]) == 1
    said = capsys.readouterr()
    assert str(runs) in said.err
    assert "cut off" in said.err
    assert not out.exists()


def test_a_broken_builder_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import delphi_jax.draw as draw

    def broken(_: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(draw, "build_lucky_seeds", broken)
    assert figures(tmp_path, "--only", "lucky-seeds", "isoflop-parabolas") == 1
    assert written(tmp_path) == {"isoflop-parabolas"}
    assert "lucky-seeds: ZeroDivisionError: on purpose" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("a file")
    assert figures(tmp_path / "taken", "--only", "lucky-seeds") == 1
    assert "cannot create the output folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["draw"],
        ["figures", "--only"],
        ["figures", "--only", "no-such-figure"],
        ["figures", "--format", "gif"],
        ["figures", "--draws", "0"],
        ["figures", "--seed", "-1"],
        ["figures", "--no-cache", "--cache-dir", "x"],
        ["simulate"],
        ["simulate", "--seed", "one", "--out", "x"],
        ["bootstrap", "--draws", "1.5"],
        ["bootstrap", "--draws", "nan"],
        ["bootstrap", "--draws", "1e999999999"],
        ["bootstrap", "--targets", "-1e21"],
        ["bootstrap", "--targets", "inf"],
        ["bootstrap", "--method", "quick"],
        ["bootstrap", "--chunk", "0"],
    ],
)
def test_bad_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "usage:" in said.err


def test_summary_tables_name_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "--data", str(DATA), "--no-cache"]) == 0
    said = capsys.readouterr().out
    for title in ("IsoFLOP optima", "Scaling laws", "Forecasts", "Held-out runs", "Seeds", "Overtraining"):
        assert title in said
    for title in ("Richards curves", "Downstream forecasts", "Hyper-parameter sweep", "Left out:"):
        assert title in said
    assert "nan" not in said.lower()


def test_summary_as_json_is_one_object_with_the_same_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "--data", str(DATA), "--json", "--draws", "50", "--no-cache"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))
    suite = "Delphi Scaling Suite (AdamH)"
    law = found["laws"][suite]
    assert law["status"] == "fitted"
    forecasts = [law["L_inf"] + law["A"] * budget ** -law["alpha"] for budget in (1e21, 1e22, 1e23)]
    assert [line["point_forecast"] for line in found["seeds"]["budgets"]] == pytest.approx(forecasts)
    assert len(found["bootstraps"][suite]["forecasts"]) == 50


ADAMH, INITIAL = "Delphi Scaling Suite (AdamH)", "Initial Scaling Suite (Cautious AdamC)"


def bootstrap(*options: str) -> int:
    return main(["bootstrap", "--data", str(DATA), "--no-cache", *options])


def test_a_billion_draws_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap("--draws", "1e9") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "Bootstrap" in said.out and "Simulated data" in said.out
    assert said.out.count("1000000000") == 6
    assert "outside the histogram, take" not in said.out


def test_exact_bootstrap_as_json_at_chosen_targets(capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap("--method", "exact", "--json", "--suite", ADAMH, "--targets", "2e20", "1e24") == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))
    assert found["simulated"] is True
    assert list(found["bootstraps"]) == [ADAMH]
    study = found["bootstraps"][ADAMH]
    assert (study["targets"], study["draws"], study["method"]) == ([2e20, 1e24], 7**7, "exact")
    near, far = study["intervals"]
    assert near["low"] < near["median"] < near["high"]
    assert far["high"] - far["low"] > near["high"] - near["low"] > 0


def test_forecasts_that_a_stream_cannot_count_are_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the histogram ended above all forecasts."""
    monkeypatch.setattr("delphi_jax.fit.stream._ROOM_ABOVE", 16 + 4)
    assert bootstrap("--method", "stream", "--draws", "100", "--suite", ADAMH) == 0
    said = capsys.readouterr().out
    assert f"outside the histogram, take --method table or exact, or other targets:\n  {ADAMH}" in said
    assert "nan" not in said.lower()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--suite", "adamh"), f"there is no suite 'adamh'; the suites are {ADAMH}, {INITIAL}"),
        (("--method", "exact", "--draws", "7"), "--method exact takes every resample once: leave out --draws"),
        (("--method", "exact", "--seed", "0"), "--method exact takes every resample once: leave out --draws"),
        (("--suite", ADAMH, "--method", "exact", "--state", "x"), "has no state with method exact; leave it out"),
        (("--suite", ADAMH, "--state", "x"), "method table, which was chosen because it needs fewer fits; leave it"),
        (("--method", "stream", "--state", "study.state"), "--state holds one suite: choose it with --suite"),
        (("--suite", ADAMH, "--state", "README.md", "--method", "stream"), "README.md: not a state"),
        (("--suite", ADAMH, "--state", "no/such/state", "--method", "stream"), "no such folder for the state"),
        (("--coordinator", "localhost:1"), "are for --distributed"),
        (("--distributed", "--processes", "2"), "all of coordinator"),
        (("--draws", "1e20"), "draws must be a whole number from 1"),
        (("--seed", "1e20"), "seed must be a whole number of at least 0 and below"),
    ],
)
def test_bootstraps_that_cannot_be(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(DATA.parent)
    assert bootstrap(*options) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err


def test_a_suite_without_a_law_is_told_from_one_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = load_study(DATA, tables={"runs"}).runs
    initial = {name for name, suite in zip(runs.name, runs.suite.tolist(), strict=True) if suite == INITIAL}
    data = edited(
        tmp_path, lambda rows: [row for row in rows if row["name"] not in initial or row["total_gflops"] < 5e9]
    )
    assert main(["bootstrap", "--data", str(data), "--no-cache", "--suite", INITIAL]) == 1
    said = capsys.readouterr().err
    assert f"suite {INITIAL} has no law: too few points; those that have one are {ADAMH}" in said


def test_studies_that_need_a_look_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three budgets: the only resample that has a law is the data itself."""
    data = edited(tmp_path, lambda rows: [row for row in rows if row["total_gflops"] < 2.5e10])
    command = ["bootstrap", "--data", str(data), "--no-cache", "--suite", ADAMH, "--method", "exact"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))
    one_law, skipped = (said for said in found["notices"] if said.startswith(f"bootstrap of {ADAMH}: "))
    assert "too few points; all fitted draws give one and the same law" in one_law
    assert f"{100 * (1 - 6 / 27):.3g} % of the draws were skipped" in skipped
    assert text.split("To look at:")[1].split("\n  ")[1:] == [*found["notices"][:-1], found["notices"][-1] + "\n"]
    assert found["bootstraps"][ADAMH]["intervals"][0] == {"low": None, "median": None, "high": None}


STREAM = ("--suite", ADAMH, "--method", "stream", "--draws", "100")


def test_a_cache_folder_that_cannot_keep_the_state_costs_no_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    arguments = ["bootstrap", "--data", str(DATA), *STREAM]
    monkeypatch.setattr("delphi_jax.checkpoint.tempfile.NamedTemporaryFile", full)
    assert main([*arguments, "--cache-dir", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "Bootstrap" in said.out
    assert said.err.count("the state is not kept") == said.err.count("No space left on device") == 1
    assert main([*arguments, "--no-cache", "--state", str(tmp_path / "study.state")]) == 1
    assert "study.state: the state cannot be written: No space left" in capsys.readouterr().err


def test_a_disk_that_fills_up_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def unremovable(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("delphi_jax.whole.os.replace", full)
    monkeypatch.setattr(Path, "unlink", unremovable)
    assert main(["bootstrap", "--data", str(DATA), *STREAM, "--cache-dir", str(tmp_path)]) == 0
    (said,) = (line for line in capsys.readouterr().err.splitlines() if "the study goes on without" in line)
    assert said.startswith(f"delphi-jax: {tmp_path}")
    assert "Read-only file system" in said


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_no_state_from_a_folder_that_others_can_write_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o777)
    assert main(["bootstrap", "--data", str(DATA), *STREAM, "--cache-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert f"the state is not kept: {tmp_path}: others can write to it" in said
    assert not list(tmp_path.iterdir())


def test_no_law_to_bootstrap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = edited(tmp_path, lambda rows: [row for row in rows if "optimal" in row["name"]])
    assert main(["bootstrap", "--data", str(data), "--no-cache"]) == 1
    assert "no suite has a law (" in capsys.readouterr().err


def test_an_interrupted_bootstrap_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import delphi_jax.fit.stream as stream

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    options = ("--suite", ADAMH, "--method", "stream", "--draws", "1e5", "--chunk", "8192", "--json")
    cached = ["bootstrap", "--data", str(DATA), "--cache-dir", str(tmp_path), *options]
    with monkeypatch.context() as patched:
        patched.setattr(stream._Pace, "lap", interrupted)
        assert main(cached) == 130
    (state,) = tmp_path.glob("*.state")
    assert f"interrupted; the state is kept in {state}, and the same call goes on" in capsys.readouterr().err
    assert main(cached) == 0
    resumed = capsys.readouterr()
    assert "of 100000 draws were made before" in resumed.err
    assert not list(tmp_path.glob("*.state"))
    assert bootstrap(*options) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(resumed.out)


def test_simulate_writes_the_bundled_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "study"
    assert main(["simulate", "--seed", "0", "--out", str(out)]) == 0
    assert "simulated" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in DATA.iterdir()
    }


def test_simulate_does_not_overwrite_someone_elses_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    assert main(["simulate", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "delphi_jax", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_help_and_version_load_nothing_heavy(option: str) -> None:
    code = (
        "import sys\nfrom delphi_jax.cli import main\n"
        f"assert main([{option!r}]) == 0\n"
        "heavy = {'jax', 'plotly', 'pandas', 'numpy', 'pydantic', 'rich', 'scipy', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert ("delphi-jax" if option == "--help" else __version__) in done.stdout


def test_json_figures_need_neither_plotly_nor_pandas(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom delphi_jax.cli import main\n"
        f"assert main(['figures', '--data', {str(DATA)!r}, '--out', {str(tmp_path)!r}, '--no-cache',"
        " '--only', 'isoflop-parabolas']) == 0\n"
        "heavy = {'plotly', 'pandas', 'scipy', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_compiled_programs_are_kept_and_used_again(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, second = (
        run(
            *("figures", "--data", str(DATA), "--out", str(tmp_path / name), "--cache-dir", str(cache)),
            *("--only", "isoflop-parabolas"),
        )
        for name in ("one", "two")
    )
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stderr == second.stderr == ""
    assert any(cache.iterdir())
    one, two = (tmp_path / name / "isoflop-parabolas.json" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_the_default_cache_is_the_users_and_can_be_switched_off(tmp_path: Path) -> None:
    arguments = ("figures", "--data", str(DATA), "--out", str(tmp_path / "out"), "--only", "isoflop-parabolas")
    homes = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "xdg")}
    assert run(*arguments, "--no-cache", **homes).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    if sys.platform != "linux":
        pytest.skip("where the cache lies is asserted for Linux only")
    assert run(*arguments, **homes).returncode == 0
    assert any((tmp_path / "xdg" / "delphi_jax").iterdir())


def edited(tmp_path: Path, edit: object) -> Path:
    """A data folder that holds the bundled runs alone, changed by ``edit`` (list of rows to list of rows)."""
    folder = tmp_path / "edited"
    folder.mkdir()
    rows = edit(json.loads((DATA / "runs.json").read_text()))
    (folder / "runs.json").write_text(json.dumps(rows))
    return folder


def test_a_study_without_held_out_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = edited(tmp_path, lambda rows: [row for row in rows if "optimal" not in row["name"]])
    assert main(["summary", "--data", str(data), "--no-cache"]) == 0
    assert "Held-out runs: none" in capsys.readouterr().out
    assert main(["figures", "--data", str(data), "--out", str(tmp_path / "out"), "--no-cache"]) == 0
    assert "lucky-seeds: " in capsys.readouterr().out
    assert written(tmp_path / "out") == RUNS_FIGURES - {"lucky-seeds"}


def test_budgets_beyond_the_forecast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = edited(tmp_path, lambda rows: [row | {"total_gflops": row["total_gflops"] * 1e6} for row in rows])
    assert main(["figures", "--data", str(data), "--out", str(tmp_path / "out"), "--no-cache"]) == 0
    assert "overtraining-forecast: " in capsys.readouterr().out
    assert "isoflop-parabolas" in written(tmp_path / "out")


def test_two_budgets_do_not_tell_an_asymptote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def first_two(rows: list[dict]) -> list[dict]:
        return [row for row in rows if row["total_gflops"] < 1.2e10 or "optimal" in row["name"]]

    data = edited(tmp_path, first_two)
    assert main(["figures", "--data", str(data), "--out", str(tmp_path / "out"), "--no-cache"]) == 0
    said = capsys.readouterr().out
    assert "asymptote not determined" in said
    assert "lucky-seeds: " in said
    assert "bootstrap of Delphi Scaling Suite (AdamH): too few points" in said


def test_runs_of_no_known_suite_are_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def renamed(rows: list[dict]) -> list[dict]:
        return [row | {"name": f"run-{i}"} for i, row in enumerate(rows) if "optimal" not in row["name"]]

    data = edited(tmp_path, renamed)
    assert main(["figures", "--data", str(data), "--out", str(tmp_path / "out"), "--no-cache"]) == 0
    assert "belong to no known suite by their names" in capsys.readouterr().out


def test_a_mistyped_folder_is_refused_beside_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["figures", "--data", str(tmp_path / "typo"), "--in", str(DATA / "runs.json"), "--no-cache"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_a_reader_who_has_seen_enough() -> None:
    command = [sys.executable, "-m", "delphi_jax", "summary", "--data", str(DATA), "--no-cache"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=120) == 0
        assert process.stderr.read() == ""


def test_an_interrupted_fit_says_that_no_file_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("delphi_jax.fit.study.fit_study", interrupted)
    assert main(["summary", "--data", str(DATA), "--no-cache"]) == 130
    assert "interrupted; every file that was written is whole" in capsys.readouterr().err
