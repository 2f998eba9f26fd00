"""``delphi-jax check``: what is understood of a study, before anything is fitted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from delphi_jax.cli import main
from delphi_jax.io import load_study
from delphi_jax.results.check import StudyCheck, check_study

ROOT = Path(__file__).resolve().parents[1]
HEADER = "name,params,tokens,loss,flops,state\n"
STUDY = """
name = "Two recipes"
metric = { name = "validation loss", unit = "bits" }
[[suites]]
label = "A"
match = ["a-"]
color = "#385C8F"
[[suites]]
label = "B"
match = ["b-", "a-b"]
color = "#385C8E"
[held_out]
match = ["final"]
"""


def rows(suite: str, budget: float, runs: int, n: int = 3, factor: float = 1.0) -> str:
    """CSV lines of ``runs`` IsoFLOP runs with ``n`` token counts."""
    tokens = [(1 + i % n) * 1e9 for i in range(runs)]
    lines = [
        f"{suite}-{budget:g}-{i},{budget / (6 * T):.17g},{T},{3 + i / 100},{factor * budget},finished"
        for i, T in enumerate(tokens)
    ]
    return "\n".join(lines) + "\n"


def folder(tmp_path: Path, *tables: str, study: str = STUDY) -> Path:
    (tmp_path / "study.toml").write_text(study)
    (tmp_path / "runs.csv").write_text(HEADER + "".join(tables))
    return tmp_path


def checked(tmp_path: Path, *tables: str, study: str = STUDY) -> StudyCheck:
    return check_study(load_study(folder(tmp_path, *tables, study=study)))


def test_counts(tmp_path: Path) -> None:
    found = checked(
        tmp_path,
        rows("a", 1e18, 5),
        rows("a", 1e19, 4, n=2),
        rows("b", 1e18, 3),
        "a-final-seed7,1e9,1e10,2.5,6e19,finished\na-final-seed8,1e9,1e10,2.5,6e19,crashed\n",
        "b-crashed,1e9,1e9,3,1e18,crashed\nb-empty,1e9,1e9,,1e18,finished\n",
    )
    assert [(row["suite"], row["IsoFLOP runs"], row["budgets"], row["held-out runs"]) for row in found.suites] == [
        ("A", 9, 2, 1),
        ("B", 3, 1, 0),
    ]
    assert [row["did not finish"] for row in found.suites] == [1, 1]
    shown = [(row["suite"], row["compute budget (FLOPs)"], row["runs"], row["parabola"][:2]) for row in found.budgets]
    assert shown == [("A", 1e18, 5, "ye"), ("A", 1e19, 4, "no"), ("B", 1e18, 3, "ye")]
    assert found.held_out == (
        {"suite": "A", "compute budget (FLOPs)": 6e19, "runs": 1, "seeds": "7, 8", "did not finish": 1},
    )
    assert {(part.reason, part.names) for part in found.skipped} == {
        ("missing loss", ("b-empty",)),
        ("did not finish: no measurement for the IsoFLOP fits", ("b-crashed",)),
    }
    assert found.targets == (1e20, 1e21, 1e22)
    assert found.divide == pytest.approx((1e19 * 6e19) ** 0.5, rel=1e-12)
    assert found.fittable and found.rows() == list(found.budgets)


CONFLICTS: list[tuple[str, tuple[str, ...], str]] = [
    (STUDY, (rows("a", 1e18, 3),), "suite 'B' takes no run: correct its match or its values"),
    (STUDY, (rows("a", 1e18, 3), rows("c", 1e18, 3)), "3 runs of no suite: fitted as 'Unknown'"),
    (STUDY, (rows("a", 1e18, 3), rows("a", 1.06e18, 3)), "A: the budgets 1e+18 and 1.1e+18 FLOPs are 10 % apart"),
    (
        f"{STUDY}[budgets]\ndigits = 3\n",
        tuple(rows("a", C, 3) for C in (1e18, 1.02e18, 1.05e18, 2e18)),
        "A: 2 budgets are 2 to 2.9 % from the next, the first 1e+18 and 1.02e+18 FLOPs: if they are one",
    ),
    (
        f"{STUDY}[budgets]\ndigits = 4\n",
        tuple(rows("a", C, 3) for C in (1e18, 1.02e18, 1.0404e18)),
        "A: 2 budgets are 2 % from the next",
    ),
    (STUDY, (rows("a", 1e18, 3, factor=1e-9),), "the runs' FLOPs are 1e-09 times 6*N*D (median): check flops_unit"),
    (STUDY, (rows("a-b", 1e18, 3),), "3 runs would match 'A' and 'B' by name: the first one takes them"),
    (f"{STUDY}divide = 1e18\n", (rows("a", 1e18, 3), rows("a", 1e19, 3)), "the divide lies below 2 IsoFLOP budgets"),
    (
        f"{STUDY}[overtraining]\nforecast_budget = 1e17\n",
        (rows("a", 1e18, 3),),
        "the overtraining forecast lies below every IsoFLOP budget",
    ),
    (STUDY, (rows("a-final", 1e18, 3),), "no IsoFLOP run is left to be fitted"),
]


@pytest.mark.parametrize(("study", "tables", "words"), CONFLICTS)
def test_conflicts(tmp_path: Path, study: str, tables: tuple[str, ...], words: str) -> None:
    conflicts = checked(tmp_path, *tables, study=study).conflicts
    assert any(words in sentence for sentence in conflicts), conflicts


def test_a_sweep_among_the_held_out_runs_is_told(tmp_path: Path) -> None:
    swept = f"{STUDY}above = 1e19\n"
    sound = (rows("a", 1e18, 3), rows("b", 1e18, 3))
    (told,) = checked(tmp_path, *sound, rows("a", 1e20, 9, n=4), study=swept).conflicts
    assert told.startswith("held-out runs of A at 1e+20 FLOPs are a sweep (4 token counts), not compute-optimal runs")
    # Two recipes of tokens, or seeds that stopped a step apart, are none.
    seeds = "".join(f"a-{i},1e9,{1e10 * (1 + i * 1e-4)},2.{i},6e19,finished\n" for i in range(5))
    assert checked(tmp_path, *sound, rows("a", 1e20, 4, n=2), seeds, study=swept).conflicts == ()


def test_a_sound_study_has_no_conflicts(tmp_path: Path) -> None:
    assert checked(tmp_path, rows("a", 1e18, 3), rows("b", 1e18, 3)).conflicts == ()


def test_the_command_prints_what_was_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder(tmp_path, rows("a", 1e18, 3), rows("b", 1e18, 3), "a-final,1e9,1e10,2.5,6e19,finished\n")
    assert main(["check", "--data", str(data)]) == 0
    said = capsys.readouterr().out
    for words in (
        f"Two recipes, as {data / 'study.toml'} says, from {data}",
        "metric: validation loss, bits",
        "held out: names with 'final'",
        "ladder-a: A: from IsoFLOP parabolas to held-out runs",
        "A (#385C8F) and B (#385C8E) look alike",
        "Ready to be fitted.",
    ):
        assert words in said, said


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder(tmp_path, rows("a", 1e18, 3), rows("b", 1e18, 3))
    assert main(["check", "--study", str(data / "study.toml"), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["check"]
    assert found["definition"] == {"name": "Two recipes", "source": str(data / "study.toml")}
    assert [row["suite"] for row in found["suites"]] == ["A", "B"]
    assert found["divide"] is None and found["fittable"] is True
    assert any("look alike" in sentence for sentence in found["conflicts"])


def test_nothing_to_fit_is_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--data", str(folder(tmp_path, rows("a", 1e18, 2)))]) == 1
    said = capsys.readouterr().out
    assert "no: 3 token counts needed" in said and "Nothing here can be fitted" in said


def test_the_shipped_study_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--data", str(ROOT / "data")]) == 0
    said = capsys.readouterr().out
    for words in ("Delphi, as delphi.toml (shipped) says", "MMLU", "epsilon", "5e+20 FLOPs", "Simulated data"):
        assert words in said


@pytest.mark.parametrize(
    ("study", "words"),
    [
        ('name = "x"\nfocsu = "y"', "line 2, focsu: is not a key that is known; did you mean 'focus'?"),
        ('name = "x"\ntheme = "purple"', "theme: there is no theme 'purple'; the themes are brand"),
        ('name = "x"\ntheme = { ink = "blue" }', "ink"),
    ],
)
def test_bad_study_files(tmp_path: Path, study: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder(tmp_path, rows("a", 1e18, 3), study=study)
    assert main(["check", "--data", str(data)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"delphi-jax: {data / 'study.toml'}: ") and words in said
