"""A study with other tasks and another sweep than the shipped one: read, fitted and drawn by its study file alone."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from delphi_jax import fit_study, load_study
from delphi_jax.draw import draw_figures
from delphi_jax.export import document_json, to_plotly
from delphi_jax.fit.downstream_intervals import downstream_intervals
from delphi_jax.fit.sweep import fit_sweep
from delphi_jax.formulas import law_loss, richards, richards_inverse
from delphi_jax.plots.downstream_intervals import build_downstream_intervals
from delphi_jax.results import StudyFit
from delphi_jax.status import Status
from delphi_jax.tables import Study

Row = dict[str, Any]

STUDY = """
name = "Pythia <b>mini</b>"
[held_out]
above = 1e21
divide = 1e21

[[tasks]]  # no external models, no shot counts, a floor of one in four
key = "arc"
name = "ARC <i>easy</i>"
soft = "log-probability"
soft_column = "logp"
hard_column = "acc_norm"
budget_column = "flops"
floor = 0.25
n_problems = 1172
forecast_budget = 1e23

[[tasks]]  # bits per byte and external models in a folder of their own; its ceiling is known
key = "math"
name = "MATH"
soft = "bits per byte"
soft_column = "bpb"
hard_column = "solved"
n_problems = 500
ceiling = 0.8
floor = 0.1
table = "math/runs"
external_table = "math/models.csv"
shot_column = "k"
first_shot = 4
display_column = "model"
in_house = ["ours"]
words = { hard = "problems solved", hard_short = "solved" }
forecast_budget = 1e23

[sweep]
table = "trials"
loss_column = "eval_loss"
loss_title = "Validation loss"
batch_column = "bs"
hidden_column = "width"
tokens_column = "D"
state_column = ""
batch_sizes = [128, 256]
hidden_dims = [1024]
horizons = [{ key = "10B", tokens = 1e10, below = 2e10 }, { key = "40B", tokens = 4e10 }]
first_shown = [256, 1024, "40B"]
[[sweep.hyper_parameters]]
key = "lr"
title = "Learning rate"
column = "optimizer/lr"
[[sweep.hyper_parameters]]
key = "wd"
title = "Weight decay"
range = "number"
transform = "linear"
[[sweep.hyper_parameters]]
key = "beta2"
range = "beta"
transform = "log(1-x)"
"""

BUDGETS = np.geomspace(1e18, 8e20, 12)
HELD_OUT = np.array([4e21, 2e22])
CURVES = {
    "arc": {"k": 14.0, "x0": -0.9, "v": 1.2, "ceiling": 0.9, "floor": 0.25},
    "math": {"k": 16.0, "x0": -0.7, "v": 0.8, "ceiling": 0.8, "floor": 0.1},
}
ALPHA = 0.35
BEST = {"lr": -6.0, "wd": 0.1, "beta2": -3.5}
"""Where the loss of the sweep is lowest, on the scales of the transforms."""


def asymptote(task: str, n_problems: int) -> float:
    curve = CURVES[task]
    return -float(richards_inverse(np.array(curve["ceiling"] - 1 / n_problems), **curve))


def soft_at(task: str, n_problems: int, compute: Any) -> np.ndarray:
    return law_loss(np.asarray(compute), asymptote(task, n_problems), 1.1 * 1e18**ALPHA, ALPHA)


def write_json(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


def trials(rng: np.random.Generator) -> list[Row]:
    rows = []
    for batch, tokens in ((128, 9e9), (128, 4.1e10), (256, 9.5e9), (256, 3.9e10), (512, 9e9)):
        for _ in range(30 if batch < 512 else 2):
            place = {
                key: best + width * rng.normal()
                for (key, best), width in zip(BEST.items(), (1, 0.05, 0.7), strict=True)
            }
            bowl = 0.05 * (place["lr"] + 6) ** 2 + 8 * (place["wd"] - 0.1) ** 2 + 0.02 * (place["beta2"] + 3.5) ** 2
            values = {"optimizer/lr": np.exp(place["lr"]), "wd": place["wd"], "beta2": 1 - np.exp(place["beta2"])}
            loss = 3.0 - 0.1 * (tokens > 2e10) + bowl + 0.002 * rng.normal()
            rows.append({"bs": batch, "width": 1024, "D": tokens, **values, "eval_loss": loss})
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("other")
    (data / "study.toml").write_text(STUDY)
    compute = np.concatenate([BUDGETS, HELD_OUT])
    tokens = np.geomspace(1e9, 4e9, 5)
    write_json(
        data / "runs.json",
        [
            {"params": c / (6 * t), "tokens": t, "flops": c, "loss": 3 + (np.log10(t) - 9.3) ** 2}
            for c in (1e19, 1e20)
            for t in tokens
        ],
    )
    soft = soft_at("arc", 1172, compute)
    hard = richards(-soft, **CURVES["arc"])
    write_json(
        data / "arc.json",
        [{"flops": c, "logp": -s, "acc_norm": h} for c, s, h in zip(compute, soft, hard, strict=True)],
    )
    rows = []
    for k, worse in ((4, 0.0), (0, 0.02)):
        soft = soft_at("math", 500, compute) + worse
        hard = richards(-soft, **CURVES["math"])
        rows += [
            {"k": k, "budget": c, "bpb": s, "solved": h if c > 1e19 else None}
            for c, s, h in zip(compute, soft, hard, strict=True)
        ]
    write_json(data / "math" / "runs.json", rows)
    soft = np.linspace(1.2, 0.35, 9)
    with (data / "math" / "models.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["model", "run_name", "bpb", "solved"])
        table.writerow(["Ours 1B", "ours-1b-anneal", 0.9, 0.2])
        for i, (s, h) in enumerate(zip(soft, richards(-soft, **CURVES["math"]), strict=True)):
            table.writerow([f"Model {i} <script>%{{x}}</script>", f"run-{i}", s, h])
    write_json(data / "trials.json", trials(np.random.default_rng(0)))
    return data


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    return load_study(folder)


@pytest.fixture(scope="module")
def fit(study: Study) -> StudyFit:
    return fit_study(study, ["downstream", "sweep"])


def test_tables_are_read_by_the_names_of_the_study_file(study: Study) -> None:
    assert list(study.evals) == ["arc", "math"] and list(study.externals) == ["math"]
    assert study.evals["arc"].soft.min() > 0 and set(study.evals["arc"].shot) == {0}
    assert set(study.evals["math"].shot) == {0, 4}
    assert len(study.externals["math"].soft) == 9
    in_house = [(part.table, part.names) for part in study.skipped if "in-house" in part.reason]
    assert in_house == [("math/models.csv", ("Ours 1B",))]
    assert [missing.table for missing in study.missing] == ["arc_external"]
    assert study.sweep.features.shape == (122, 3) and set(study.sweep.horizon) == {"10B", "40B"}


def test_the_forecasts_are_those_of_the_truth(fit: StudyFit) -> None:
    """Without noise: both steps give back the law and the curve that the tables were made from."""
    arc, _, math = fit.downstream
    assert [view.name for view in fit.downstream] == ["ARC <i>easy</i> 0-Shot", "MATH 0-Shot", "MATH 4-Shot"]
    for view, task, n_problems in ((arc, "arc", 1172), (math, "math", 500)):
        soft = float(soft_at(task, n_problems, 1e23))
        assert view.asymptote_source == "inverted"
        assert view.law.L_inf == pytest.approx(asymptote(task, n_problems), rel=1e-3)
        assert view.forecast_soft == pytest.approx(soft, rel=1e-3)
        assert view.forecast_hard == pytest.approx(float(richards(np.array(-soft), **CURVES[task])), rel=1e-3)
        np.testing.assert_allclose(view.held_out_residuals()[2], 0, atol=0.05)
    assert math.richards.ceiling_pinned and math.richards.ceiling == 0.8
    assert len(math.richards.x) == 9 + 2 * np.sum(BUDGETS > 1e19)


def test_three_hyper_parameters_have_the_curves_of_a_plain_process(fit: StudyFit) -> None:
    """Each cell's partial dependence by hand, from scikit-learn's process with the same hyper-parameters."""
    assert [cell.name for cell in fit.sweep.cells] == [
        f"(B={batch}, H=1024, T={horizon})" for batch in (128, 256) for horizon in ("10B", "40B")
    ]
    assert [(part.table, part.count) for part in fit.sweep.skipped] == [("trials", 2)]
    for cell in fit.sweep.cells:
        assert cell.status in (Status.FITTED, Status.BOUND_HIT)
        mean, scale = cell.features.mean(axis=0), cell.features.std(axis=0)
        X = (cell.features - mean) / scale
        kernel = Matern(cell.length_scale, "fixed", nu=2.5) + WhiteKernel(cell.noise, "fixed")
        process = GaussianProcessRegressor(kernel, alpha=1e-6, optimizer=None).fit(X, cell.loss)
        for j, curve in enumerate(cell.dependence):
            assert np.isnan([curve.heuristic, curve.heuristic_mean]).all() and not curve.heuristic_in_support
            np.testing.assert_allclose(curve.grid[[0, -1]], [cell.features[:, j].min(), cell.features[:, j].max()])
            for place in (0, 33, 79):
                at = X.copy()
                at[:, j] = (curve.grid[place] - mean[j]) / scale[j]
                predicted, covariance = process.predict(at, return_cov=True)
                assert curve.mean[place] == pytest.approx(predicted.mean(), rel=1e-6)
                assert curve.sd[place] == pytest.approx(np.sqrt(covariance.mean()), rel=1e-4)


def test_the_valleys_lie_where_the_losses_are_lowest(study: Study) -> None:
    for cell in fit_sweep(study.sweep, process="ard").cells:
        for curve, best, sd in zip(cell.dependence, BEST.values(), cell.features.std(axis=0), strict=True):
            assert abs(curve.grid[np.argmin(curve.mean)] - best) < 0.2 * sd


def test_its_figures_show_it(fit: StudyFit) -> None:
    drawing = draw_figures(fit, ["mmlu-emergence", "mmlu-emergence-mobile", "hparam-scaling", "hparam-scaling-mobile"])
    assert not drawing.failed and not drawing.undrawn
    for document in drawing.documents.values():
        to_plotly(document)
        written = document_json(document)
        assert b"NaN" not in written
        # Names of the tables and of the study file are text.
        for markup in (b"<b>", b"<i>", b"<script>", b"%{x}</script>"):
            assert markup not in written, markup


def test_views_of_the_emergence(fit: StudyFit) -> None:
    document = draw_figures(fit, ["mmlu-emergence"]).documents["mmlu-emergence"]
    layout = document["layout"]
    (menu,) = layout["updatemenus"]
    assert [button["label"] for button in menu["buttons"]] == [
        "ARC &lt;i&gt;easy&lt;/i&gt; 0-Shot",
        "MATH 0-Shot",
        "MATH 4-Shot",
    ]
    assert menu["active"] == 2
    arc, _, math = (button["args"][1] for button in menu["buttons"])
    # Each task has its own line of random guessing.
    assert [(update["shapes[1].y0"], update["annotations[4].y"]) for update in (arc, math)] == [
        (0.25, 0.25),
        (0.1, 0.1),
    ]
    assert layout["shapes"][1]["y0"] == layout["shapes"][1]["y1"] == 0.1 and layout["shapes"][1]["visible"]
    assert layout["shapes"][0]["x0"] == 1e21
    assert [update["yaxis2.range"] for update in (arc, math)] == [[0.2, 1.0], [0.05, 1.0]]
    assert math["yaxis2.title.text"] == "MATH problems solved" and arc["yaxis2.title.text"].endswith("acc norm")
    for update in (arc, math):
        for axis in ("yaxis", "xaxis2"):
            low, high = sorted(10 ** np.array(update[f"{axis}.range"]))
            assert sum(low <= tick <= high for tick in update[f"{axis}.tickvals"]) >= 2
    assert all(text.startswith("−") for text in arc["yaxis.ticktext"])


def test_panels_and_dropdowns_of_the_sweep(fit: StudyFit) -> None:
    drawn = draw_figures(fit, ["hparam-scaling", "hparam-scaling-mobile"]).documents
    wide, mobile = drawn.values()
    # Four cells of three panels with rug, curve and band; no mark of a heuristic, nor an entry for it.
    assert len(wide["data"]) == 4 * 3 * 3 + 2
    assert [trace["name"] for trace in wide["data"][-2:]] == ["Sampled runs", "Sensitivity curve"]
    shown = [place for place, trace in enumerate(wide["data"]) if trace["visible"]]
    assert shown == [*range(27, 36), 36, 37]
    for document in (wide, mobile):
        layout = document["layout"]
        axes = ["xaxis", "xaxis2", "xaxis3", "xaxis4"]
        assert sorted(key for key in layout if key.startswith("xaxis")) == axes
        assert [layout[axis].get("title", {}).get("text") for axis in axes] == [
            "Learning rate",
            "Weight decay",
            "beta2",
            None,
        ]
        assert layout["xaxis4"]["visible"] is False
        assert "tickvals" not in layout["xaxis2"] and "tickvals" in layout["xaxis3"]
        places = {(*layout[axis]["domain"], *layout[axis.replace("x", "y", 1)]["domain"]) for axis in axes}
        assert len(places) == 4
        assert layout["yaxis"]["title"]["text"] == "Validation loss"
        menus = [menu for menu in layout["updatemenus"] if menu["visible"]]
        chosen = [menu["buttons"][menu["active"]]["label"] for menu in menus]
        assert chosen == ["B = 256", "H = 1024", "T = 40B"]


def test_every_number_of_hyper_parameters_has_its_place(study: Study) -> None:
    """One to eight, on both variants: every panel has a place of its own and the legend one that is left."""
    from delphi_jax.plots.hparam import _Grid

    for n_panels in range(1, 9):
        for grid in (_Grid.wide(n_panels), _Grid.mobile(n_panels)):
            places = [(*grid.column(place), *grid.row(place)) for place in range(grid.last + 1)]
            assert len(set(places)) == len(places) >= n_panels + 1
            assert all(0 <= low < high <= 1 + 1e-12 for place in places for low, high in (place[:2], place[2:]))
            assert grid.last >= n_panels


def test_intervals_hold_the_forecast_of_a_pinned_ceiling(study: Study) -> None:
    found = downstream_intervals(study.evals, study.externals, study.definition, draws=60)
    view = next(view for view in found.views if view.name == "MATH 4-Shot")
    assert view.has_hard and view.on_bound["ceiling"] == 0
    place = view.budgets.tolist().index(1e23)
    np.testing.assert_allclose(view.hard_draws[:, place], view.forecast_hard[place], rtol=0.02)
    assert view.budgets.tolist() == [*HELD_OUT, 1e23]
    document = build_downstream_intervals(found)
    to_plotly(document)
    assert b"<i>" not in document_json(document)


def test_draws_have_the_pinned_ceiling_even_where_it_is_wrong(study: Study) -> None:
    arc, math = study.definition.tasks
    high = dataclasses.replace(math, ceiling=0.95)
    definition = dataclasses.replace(study.definition, tasks=(arc, high))
    evals = {"math": dataclasses.replace(study.evals["math"], task=high)}
    view = downstream_intervals(evals, study.externals, definition, draws=40).views[1]
    assert view.fit.richards.ceiling == 0.95
    # Seen below 0.8 everywhere: only a pinned curve goes on to rise.
    assert view.forecast_hard[-1] > 0.82
    assert np.nanmin(view.hard_draws[:, -1]) > 0.82
