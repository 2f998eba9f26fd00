"""Public sweeps as studies of their own: a short study file each gives parabolas, law, ladders and overtraining."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from delphi_jax.cli import main
from delphi_jax.draw import draw_figures, study_figures
from delphi_jax.fit.study import fit_study
from delphi_jax.io import load_study
from delphi_jax.results import StudyFit
from tests.test_hostile_names import texts

MOST_LINES = 30

MARIN = """
name = "Marin IsoFLOP sweeps"
targets = [1e21, 1e22]

[metric]
name = "Paloma macro loss"

[[runs]]
files = ["isoflop-nemotron.csv", "isoflop-dclm.csv", "isoflop-comma.csv"]
columns.name = "Name"
columns.params = "parameter_count"
columns.tokens = "throughput/total_tokens"
columns.loss = "eval/paloma/macro_loss"
columns.flops = "throughput/total_gflops"
flops_unit = 1e9

[[suites]]
label = "Nemotron"
match = ["nemo"]
[[suites]]
label = "DCLM"
match = ["dclm"]
[[suites]]
label = "Comma"
match = ["comma"]

[held_out]
match = ["optimal"]
"""

CHINCHILLA = """
name = "Chinchilla"
metric = { name = "MassiveText loss", unit = "nats per token" }
targets = [1e22, 5.76e23]

[[runs]]
files = ["isoflops.csv"]
columns = { budget = "budget", suite = "model" }
where = { source = "ml_scalefit", outlier = false }

[[suites]]
label = "Chinchilla"
values = ["chinchilla"]
"""

DIGITISED = """
name = "Chinchilla, figure 4"
[[runs]]
files = ["chinchilla_svg.csv"]
columns = { params = "Model Size", flops = "Training FLOP" }
derive = "tokens"
[budgets]
values = [6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21]
tolerance = 0.15
"""


def fitted(tmp_path: Path, text: str, folder: Path) -> StudyFit:
    assert len(text.splitlines()) < MOST_LINES
    path = tmp_path / "study.toml"
    path.write_text(text)
    return fit_study(load_study(folder, study=path), draws=100)


def assert_drawn(fit: StudyFit, *absent: str) -> None:
    """Every figure of the study but ``absent`` ones, in the study's own words."""
    drawing = draw_figures(fit)
    assert not drawing.failed
    assert set(drawing.undrawn) == set(absent)
    assert list(drawing.documents) == [name for name in study_figures(fit.definition) if name not in absent]
    for name, document in drawing.documents.items():
        shown = " ".join(texts(document))
        assert not any(word in shown for word in ("Delphi", "AdamH", "nan")), name
        dividers = {shape["x0"] for shape in document["layout"].get("shapes", ()) if "ladder" in name}
        assert dividers <= {fit.definition.divide}
        if name in ("isoflop-parabolas", "overtraining-forecast"):
            assert fit.definition.metric.name in shown


def brute_asymptote(compute: np.ndarray, loss: np.ndarray) -> float:
    """Of the 400 asymptotes up to 0.95 times the lowest loss, that with the best line through log(L - L_inf)."""
    grid = np.linspace(0, 0.95 * loss.min(), 400)
    residuals = [np.polyfit(np.log(compute), np.log(loss - L_inf), 1, full=True)[1][0] for L_inf in grid]
    return float(grid[np.argmin(residuals)])


@pytest.fixture(scope="module")
def marin(tmp_path_factory: pytest.TempPathFactory, real_dir: Path) -> StudyFit:
    return fitted(tmp_path_factory.mktemp("marin"), MARIN, real_dir / "marin")


def test_three_marin_sweeps_are_three_suites(marin: StudyFit) -> None:
    assert set(marin.laws) == {"Nemotron", "DCLM", "Comma"}
    assert all(law.fitted for law in marin.laws.values())
    counts = {
        suite: sum(len(fit.loss) for fit in marin.isoflop.parabolas if fit.suite == suite) for suite in marin.laws
    }
    # All rows of each file but its held-out runs: 8, none and 7.
    assert counts == {"Nemotron": 88, "DCLM": 85, "Comma": 85}
    assert {run.budget for run in marin.held_out.runs} == {1e18, 3e18, 6e18, 1e19, 3e19, 6e19, 1e20, 1e21}
    assert marin.overtraining.suite == "Nemotron"
    assert marin.definition.divide == pytest.approx((3e20 * 1e21) ** 0.5, rel=1e-12)


def test_the_figures_of_the_marin_sweeps(marin: StudyFit) -> None:
    assert_drawn(marin)
    assert {"ladder-nemotron", "ladder-dclm", "ladder-comma"} <= set(study_figures(marin.definition))
    # The smallest budget's parabola has no minimum, so that the penalty is not extrapolated.
    layout = draw_figures(marin, ["overtraining-forecast"]).documents["overtraining-forecast"]["layout"]
    (label,) = layout["annotations"]
    assert "<br>parabolas: curvature not positive" in label["text"]


def test_chinchilla(tmp_path: Path, real_dir: Path) -> None:
    fit = fitted(tmp_path, CHINCHILLA, real_dir)
    assert list(fit.laws) == ["Chinchilla"]
    assert sum(len(parabola.loss) for parabola in fit.isoflop.parabolas) == 89
    compute, loss, tokens = fit.isoflop.optima("Chinchilla")
    law = fit.laws["Chinchilla"]
    assert law.L_inf == pytest.approx(brute_asymptote(compute, loss), rel=1e-12)
    # Approach 2 of Hoffmann et al. 2022 (table 2): D* grows as C**0.51, its 80 % interval is [0.483, 0.529].
    slope = np.polyfit(np.log(compute), np.log(tokens), 1)[0]
    assert 0.45 < slope < 0.56
    assert fit.definition.divide is None
    assert_drawn(fit, "lucky-seeds")
    ladder = draw_figures(fit, ["ladder-chinchilla"]).documents["ladder-chinchilla"]["layout"]
    assert ladder["annotations"][1]["text"] == "Scaling law"
    assert {(part.table, part.count) for part in fit.skipped} == {("isoflops", 35), ("isoflops", 258)}


def test_a_held_out_sweep_is_compared_with_no_forecast(tmp_path: Path, real_dir: Path) -> None:
    """Its runs, of many token counts, are not seeds of a compute-optimal one."""
    swept = MARIN.replace('match = ["optimal"]', 'match = ["optimal"]\nabove = 1e20')
    fit = fitted(tmp_path, swept, real_dir / "marin")
    runs = fit.held_out.runs
    counts = {}
    for suite, budget in {(run.suite, run.budget) for run in runs}:
        tokens = {run.tokens for run in runs if (run.suite, run.budget) == (suite, budget) and run.finished}
        counts[suite, budget] = len(tokens)
    sweeps = {group: count for group, count in counts.items() if count > 2}
    assert sweeps and max(sweeps.values()) > 9
    assert fit.held_out.sweeps == sweeps
    for suite in fit.laws:
        alone = [run for run in runs if run.suite == suite and run.finished and (suite, run.budget) not in sweeps]
        budgets, means = fit.held_out.means(suite)
        assert budgets.tolist() == sorted({run.budget for run in alone})
        for budget, mean in zip(budgets, means, strict=True):
            assert mean == pytest.approx(np.mean([run.loss for run in alone if run.budget == budget]), rel=1e-12)
    assert not any((fit.seeds.suite, line.budget) in sweeps and line.seeds for line in fit.seeds.budgets)
    for (suite, _), count in sweeps.items():
        words = f"FLOPs are a sweep ({count} token counts), not compute-optimal runs"
        assert any(words in notice and suite in notice for notice in fit.notices())
    assert sum("are a sweep" in notice for notice in fit.notices()) == len(sweeps)


def test_chinchilla_from_its_figure(tmp_path: Path, real_dir: Path) -> None:
    fit = fitted(tmp_path, DIGITISED, real_dir)
    assert fit.isoflop.buckets == (6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21)
    used = sum(len(parabola.loss) for parabola in fit.isoflop.parabolas)
    (away,) = fit.skipped
    assert used + away.count == 245 and away.reason == "compute not within 15 % of a listed budget"
    assert_drawn(fit, "lucky-seeds")


def test_the_commands_take_a_study_file(
    tmp_path: Path, real_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "study.toml"
    study.write_text(MARIN)
    monkeypatch.chdir(tmp_path)
    source = ("--data", str(real_dir / "marin"), "--study", "study.toml")
    assert main(["check", *source, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["check"]
    assert [row["suite"] for row in found["suites"]] == ["Comma", "DCLM", "Nemotron"]
    assert main(["figures", *source, "--no-cache", "--only", "ladder-dclm", "--out", "out"]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ladder-dclm.json"]
    assert main(["figures", *source, "--no-cache", "--only", "delphi-ladder"]) == 2
    assert "there is no figure 'delphi-ladder' of the study 'Marin IsoFLOP sweeps'" in capsys.readouterr().err
    assert main(["law", *source, "--no-cache", "--suite", "DCLM", "--asymptote", "2.0", "--metric", "bits"]) == 1
    assert "belongs to 'bits', the series to 'Paloma macro loss'" in capsys.readouterr().err
    assert main(["validate", *source, "--no-cache", "--pin", "2.0", "--metric", "bits"]) == 1
    assert "the asymptote 2 belongs to 'bits', the series to 'Paloma macro loss'" in capsys.readouterr().err
    assert main(["speedup", *source, "--no-cache", "--suites", "Nemotron", "Comma", "--draws", "50", "--json"]) == 0
    budgets = {line["budget"] for line in json.loads(capsys.readouterr().out)["speedup"]["multiplier"]["lines"]}
    assert {1e21, 1e22} <= budgets and 1e23 not in budgets
