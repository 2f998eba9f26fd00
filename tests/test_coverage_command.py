"""``delphi-jax coverage``: what it prints and writes, and what it refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from delphi_jax.cli import main
from delphi_jax.commands.printing import progress_bar
from delphi_jax.fit.coverage import coverage_study
from delphi_jax.io.study import load_study
from delphi_jax.results import StudyFit
from tests.delphi import ADAMC_SUITE, ADAMH_SUITE

DATA = Path(__file__).resolve().parents[1] / "data"
QUICK = ("--studies", "6", "--draws", "20", "--methods", "percentile", "student-t")


def coverage(*options: str) -> int:
    return main(["coverage", "--data", str(DATA), "--no-cache", *options])


def test_tables_say_what_was_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    assert coverage(*QUICK, "--noise", "0.004", "--level", "0.9") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert f"Coverage of 90 % intervals, {ADAMH_SUITE}" in said.out
    for words in (
        "6 studies of 7 budgets",
        "simulated from the law of",
        "standard deviation of a run 0.004 nats, as given",
        "methods that pin an asymptote take that of the truth",
        "Simulated data: no number in",
        "Left out:",
    ):
        assert words in said.out, words
    assert said.out.count("student-t    ") == said.out.count("percentile   ") == 5


def test_json_holds_the_numbers_of_the_library(capsys: pytest.CaptureFixture[str], bundled_fit: StudyFit) -> None:
    runs = load_study(DATA, tables={"runs"}).runs
    options = ("--suite", ADAMC_SUITE, "--targets", "1e20", "1e22", "--seed", "3", "--noise-model", "reducible")
    assert coverage(*QUICK, *options, "--bucket-noise", "0.001", "--json") == 0
    said = json.loads(capsys.readouterr().out, parse_float=_nine_digits)
    assert said["simulated"] is True and isinstance(said["notices"], list)
    fit = coverage_study(
        runs,
        bundled_fit.laws[ADAMC_SUITE],
        [1e20, 1e22],
        methods=("percentile", "student-t"),
        studies=6,
        draws=20,
        seed=3,
        noise_model="reducible",
        bucket_noise=0.001,
    )
    assert said["coverage"] == json.loads(fit.to_json(), parse_float=_nine_digits)


def _nine_digits(text: str) -> float:
    return float(f"{float(text):.8e}")


def test_figures_are_written_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert coverage(*QUICK, "--out", str(tmp_path), "--format", "json", "html") == 0
    assert "Wrote 4 files" in capsys.readouterr().out
    names = {f"interval-coverage{kind}.{form}" for kind in ("", "-mobile") for form in ("json", "html")}
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--noise", "-1"), "expected a standard deviation of at least 0, got '-1'"),
        (("--noise", "nan"), "expected a standard deviation of at least 0, got 'nan'"),
        (("--level", "95"), "expected a share between 0 and 1, such as 0.95, got '95'"),
        (("--studies", "0"), "expected a whole number of at least 1, got '0'"),
        (("--methods", "jackknife"), "invalid choice: 'jackknife'"),
        (("--targets", "0"), "expected a positive number of FLOPs"),
    ],
)
def test_bad_usage(options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert coverage(*options) == 2
    assert message in capsys.readouterr().err


def test_a_suite_must_be_there_and_have_a_law(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert coverage("--suite", "elsewhere") == 1
    assert f"there is no suite 'elsewhere'; the suites are {ADAMH_SUITE}, {ADAMC_SUITE}" in capsys.readouterr().err
    runs = json.loads((DATA / "runs.json").read_text())
    only = tmp_path / "runs.json"
    only.write_text(json.dumps([run for run in runs if run["total_gflops"] < 4e9]))
    assert main(["coverage", "--in", str(only), "--no-cache"]) == 1
    assert "no suite has a law" in capsys.readouterr().err


def test_a_bar_moves_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown(stream: Any) -> str:
        monkeypatch.setattr("sys.stderr", stream)
        with progress_bar("a suite", "studies") as report:
            report(0, 1000)
            report(1000, 1000)
        return stream.getvalue()

    monkeypatch.setenv("TERM", "xterm")
    assert "a suite, 1,000 studies" in shown(Terminal())
    assert shown(io.StringIO()) == ""


def test_studies_from_the_surface(capsys: pytest.CaptureFixture[str]) -> None:
    assert coverage("--truth", "surface", "--studies", "6", "--methods", "student-t", "--json") == 0
    found = json.loads(capsys.readouterr().out)["coverage"]
    assert (found["truth"], found["method"]) == ("surface", "Huber(0.001) of the loss")
    assert set(found["parameters"]) == {"E", "A", "B", "a", "b", "k_min", "k_max"}
    assert found["pinned"] == found["parameters"]["E"]
    ends = [found["parameters"][name] for name in ("k_min", "k_max")]
    assert ends == pytest.approx([6, 6], rel=1e-3), "the bundled study is simulated with C = 6*N*D"
