"""mmlu-emergence and its mobile variant: what is drawn, from complete and from thin studies."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delphi_jax import fit_study, load_study
from delphi_jax.definition import delphi
from delphi_jax.export import document_json, to_plotly
from delphi_jax.formulas import law_loss, richards
from delphi_jax.plots.drawers import NothingToDraw
from delphi_jax.plots.emergence import build_mmlu_emergence, build_mmlu_emergence_mobile
from delphi_jax.results import DownstreamFit, LawFit, RichardsFit, StudyFit
from delphi_jax.status import Status
from tests.delphi import MMLU, TASKS

TRAIN = np.array([3e18, 9e18, 2e19, 3e19, 9e19, 2e20, 3e20])
HELD_OUT = np.array([1e21, 1e22, 1e23])
L_INF, A, ALPHA = 0.3, 200.0, 0.12


def view(key: str = "mmlu", shot: int = 5, external: int = 6, **changes: Any) -> DownstreamFit:
    """One downstream view whose points lie exactly on a law and a curve; ``changes`` replace its fields."""
    task = TASKS[key]
    floor = task.floor
    budget = np.concatenate([TRAIN, HELD_OUT])
    soft = law_loss(budget, L_INF, A, ALPHA)
    curve = {"k": 9.0, "x0": -0.8, "v": 1.3, "ceiling": 0.9, "floor": floor}
    law = LawFit(key, "pinned", TRAIN, soft[: len(TRAIN)], Status.FITTED, L_INF, A, ALPHA, 0.0)
    external_soft = np.linspace(1.1, 0.45, external)
    forecast = float(law_loss(1e25, L_INF, A, ALPHA))
    base = DownstreamFit(
        task=task,
        shot=shot,
        budget=budget,
        soft=soft,
        hard=richards(-soft, **curve),
        external_names=tuple(f"Model {i}B" for i in range(external)),
        external_soft=external_soft,
        external_hard=richards(-external_soft, **curve),
        richards=RichardsFit(key, -external_soft, external_soft, status=Status.FITTED, **curve),
        law=law,
        asymptote_source="inverted",
        saturation=L_INF,
        forecast_budget=1e25,
        forecast_soft=forecast,
        forecast_hard=float(richards(np.array(-forecast), **curve)),
        status=Status.FITTED,
        definition=delphi(),
    )
    return dataclasses.replace(base, **changes)


def without_law(fit: DownstreamFit) -> DownstreamFit:
    law = LawFit(fit.law.series, "pinned", fit.law.compute, fit.law.loss, Status.TOO_FEW_POINTS)
    nan = float("nan")
    return dataclasses.replace(fit, law=law, forecast_soft=nan, forecast_hard=nan, status=Status.TOO_FEW_POINTS)


def without_curve(fit: DownstreamFit) -> DownstreamFit:
    return dataclasses.replace(fit, richards=None, forecast_hard=float("nan"))


@pytest.fixture(scope="module")
def golden_fit(golden_dir: Path) -> StudyFit:
    return fit_study(load_study(golden_dir / "data"), parts=["downstream"])


def complete() -> list[DownstreamFit]:
    return [view("gsm8k", 5), view("mmlu", 5), view("humaneval", 10), view("mmlu", 0)]


def draw(views: Iterable[DownstreamFit]) -> dict[str, Any]:
    return build_mmlu_emergence(views, delphi().tasks)


def visible_names(document: dict[str, Any]) -> list[str]:
    return [trace.get("name", "") for trace in document["data"] if trace["visible"]]


def buttons(document: dict[str, Any]) -> dict[str, list[Any]]:
    (menu,) = document["layout"]["updatemenus"]
    return {button["label"]: button["args"] for button in menu["buttons"]}


def test_the_dropdown_holds_every_view_in_order_and_starts_at_mmlu_5_shot() -> None:
    document = draw(complete())
    assert list(buttons(document)) == ["MMLU 0-Shot", "MMLU 5-Shot", "HumanEval 10-Shot", "GSM8K 5-Shot"]
    assert document["layout"]["updatemenus"][0]["active"] == 1
    assert {trace["legendgroup"] for trace in document["data"] if trace["visible"]} == {
        "MMLU 5-Shot",
        "external",
    }


def test_each_button_shows_the_traces_of_its_view_and_no_others() -> None:
    document = draw(complete())
    seen = np.zeros(len(document["data"]), dtype=int)
    for label, (restyle, _) in buttons(document).items():
        assert len(restyle["visible"]) == len(document["data"])
        shown = [trace for trace, on in zip(document["data"], restyle["visible"], strict=True) if on]
        assert {trace["legendgroup"] for trace in shown} == {label, "external"}
        seen += restyle["visible"]
    assert set(seen) == {1}


def test_the_layout_at_the_start_is_what_its_button_would_set() -> None:
    document = draw(complete())
    for path, value in buttons(document)["MMLU 5-Shot"][1].items():
        node: Any = document["layout"]
        for key in path.replace("[", ".").replace("]", "").split("."):
            node = node[int(key)] if key.isdigit() else node[key]
        assert node == value, path


def test_law_and_curve_are_drawn_through_the_points() -> None:
    for fit in complete():
        document = draw([fit])
        law, curve = (trace for trace in document["data"] if trace["mode"] == "lines")
        np.testing.assert_allclose(law["y"], law_loss(law["x"], L_INF, A, ALPHA), rtol=1e-12)
        assert law["x"][0] < TRAIN.min() and law["x"][-1] == pytest.approx(3e25)
        order = np.argsort(curve["x"])
        on_curve = np.interp(fit.external_soft, curve["x"][order], curve["y"][order])
        np.testing.assert_allclose(on_curve, fit.external_hard, atol=1e-3)
        sign = -1 if fit.task is MMLU else 1
        np.testing.assert_array_equal(curve["customdata"][:, 0], sign * curve["x"])


@pytest.mark.parametrize(
    "views",
    [complete(), [view("humaneval", 10, external=0)]],
    ids=["complete", "forecast beyond the points"],
)
def test_every_mark_lies_inside_its_axes(views: list[DownstreamFit]) -> None:
    document = draw(views)
    for label, (restyle, update) in buttons(document).items():
        low_x, high_x = 10 ** np.array(document["layout"]["xaxis"]["range"])
        worst, best = 10 ** np.array(update["yaxis.range"])
        worst2, best2 = 10 ** np.array(update["xaxis2.range"])
        for trace, on in zip(document["data"], restyle["visible"], strict=True):
            if not on or trace["mode"] not in ("markers", "markers+text"):
                continue
            x, y = np.asarray(trace["x"]), np.asarray(trace["y"])
            if trace["xaxis"] == "x":
                assert np.all((x > low_x) & (x < high_x) & (y > best) & (y < worst)), label
            else:
                floor, ceiling = update["yaxis2.range"]
                assert np.all((x > best2) & (x < worst2) & (y >= floor) & (y <= ceiling)), label


def test_residuals_stand_on_leader_lines_from_the_mean_over_seeds() -> None:
    fit = view()
    means = fit.soft[len(TRAIN) :]
    twice = dataclasses.replace(
        fit,
        budget=np.concatenate([TRAIN, HELD_OUT, HELD_OUT]),
        soft=np.concatenate([fit.soft[: len(TRAIN)], 1.01 * means, 1.03 * means]),
        hard=np.full(len(TRAIN) + 6, 0.5),
    )
    (callouts,) = (trace for trace in draw([twice])["data"] if trace["mode"] == "lines+text")
    assert callouts["text"] == ["", "2.0% worse", ""] * 3
    assert callouts["x"][:3] == [1e21, 1.7e21, None]
    np.testing.assert_allclose(callouts["y"][:2], [1.02 * means[0], 1.08 * 1.02 * means[0]], rtol=1e-12)
    assert len(set(callouts["ids"])) == len(callouts["x"])


def test_without_mmlu_the_other_tasks_are_drawn() -> None:
    document = draw([view("gsm8k", 5), view("humaneval", 10)])
    assert list(buttons(document)) == ["HumanEval 10-Shot", "GSM8K 5-Shot"]
    assert document["layout"]["updatemenus"][0]["active"] == 0
    assert document["layout"]["yaxis"]["title"]["text"] == "HumanEval bits/byte"
    assert document["layout"]["annotations"][4]["visible"] is False
    assert document["layout"]["shapes"][1]["visible"] is False
    to_plotly(document)


def test_any_shot_count_is_drawn_in_ascending_order() -> None:
    document = draw([view(shot=25), view(shot=3), view(shot=1)])
    assert list(buttons(document)) == ["MMLU 1-Shot", "MMLU 3-Shot", "MMLU 25-Shot"]
    assert document["layout"]["updatemenus"][0]["active"] == 0


def test_an_unfitted_law_leaves_points_and_curve() -> None:
    document = draw([without_law(view())])
    assert visible_names(document) == [
        "MMLU 5-Shot (Delphi fit)",
        "MMLU 5-Shot (Delphi held-out)",
        "MMLU 5-Shot Richards fit (k=9.00, v=1.30, C=0.90)",
        "External Models Used for Regression",
        "MMLU 5-Shot (Delphi fit)",
        "MMLU 5-Shot (Delphi held-out)",
    ]
    assert b"nan" not in document_json(document).lower()
    to_plotly(document)


def test_an_unfitted_curve_leaves_law_points_and_the_forecast_of_the_soft_metric() -> None:
    for fit in (
        without_curve(view()),
        dataclasses.replace(
            without_curve(view()),
            richards=RichardsFit("MMLU", np.empty(0), np.empty(0), 0.25, Status.TOO_FEW_POINTS),
        ),
    ):
        document = draw([fit])
        forecasts = [trace for trace in document["data"] if "forecast" in trace.get("name", "")]
        assert [trace["xaxis"] for trace in forecasts] == ["x"]
        assert "predicted" not in forecasts[0]["hovertemplate"]
        assert not any("Richards" in name for name in visible_names(document))
        assert b"nan" not in document_json(document).lower()


def test_without_any_hard_metric_the_right_panel_is_empty() -> None:
    nothing = {"external_names": (), "external_soft": np.empty(0), "external_hard": np.empty(0)}
    bare = dataclasses.replace(without_curve(view("gsm8k")), hard=np.full(10, np.nan), **nothing)
    document = draw([bare, view("humaneval", 10)])
    update = buttons(document)["GSM8K 5-Shot"][1]
    assert update["xaxis2.visible"] is update["yaxis2.visible"] is False
    assert update["annotations[1].text"] == ""
    assert {trace["xaxis"] for trace in document["data"] if trace["legendgroup"] == "GSM8K 5-Shot"} == {"x"}
    to_plotly(document)


def test_without_external_models_the_own_points_stay() -> None:
    nothing = {"external_names": (), "external_soft": np.empty(0), "external_hard": np.empty(0)}
    document = draw([dataclasses.replace(without_curve(view("humaneval", 10)), **nothing)])
    right = [trace["name"] for trace in document["data"] if trace["xaxis"] == "x2"]
    assert right == ["HumanEval 10-Shot (Delphi fit)", "HumanEval 10-Shot (Delphi held-out)"]
    assert document["layout"]["xaxis2"]["visible"] is True


@pytest.mark.parametrize("rows", [slice(0, 7), slice(7, 10), slice(0, 1)], ids=["train", "held-out", "one run"])
def test_a_part_of_the_runs_is_drawn(rows: slice) -> None:
    whole = view("humaneval", 10)
    part = dataclasses.replace(whole, budget=whole.budget[rows], soft=whole.soft[rows], hard=whole.hard[rows])
    document = draw([part])
    drawn = sum(len(trace["x"]) for trace in document["data"] if "(Delphi" in trace.get("name", ""))
    assert drawn == 2 * len(part.budget)
    to_plotly(document)
    to_plotly(build_mmlu_emergence_mobile(document))


def test_points_without_a_hard_metric_stand_on_the_left_only() -> None:
    fit = view("gsm8k")
    hard = fit.hard.copy()
    hard[[0, 8]] = np.nan
    external = np.where(np.arange(6) == 2, np.nan, fit.external_hard)
    document = draw([dataclasses.replace(fit, hard=hard, external_hard=external)])
    sizes = [(trace["xaxis"], len(trace["x"])) for trace in document["data"] if "marker" in trace]
    assert sizes == [("x", 7), ("x", 3), ("x2", 5), ("x2", 6), ("x2", 2), ("x", 1), ("x2", 1)]


def test_names_from_data_cannot_inject_markup() -> None:
    names = ("<b>bold</b>", "a&b", *(f"Model {i}B" for i in range(4)))
    document = draw([view(external_names=names)])
    (external,) = (trace for trace in document["data"] if trace["legendgroup"] == "external")
    assert [row[0] for row in external["customdata"][:2]] == ["&lt;b&gt;bold&lt;/b&gt;", "a&amp;b"]


def test_runs_are_named_by_shape_where_the_ladder_is_known_else_by_budget() -> None:
    fit = view(budget=np.concatenate([TRAIN[:-1], [4e20], HELD_OUT]))
    document = draw([fit])
    left = [trace for trace in document["data"] if trace["xaxis"] == "x" and trace["mode"] == "markers"]
    assert left[0]["customdata"][0][1] == "isoflop d1024 / L11 / B8"
    assert left[0]["customdata"][-1][1] == "isoflop 4e20"
    assert left[1]["customdata"][0][1] == "Delphi optimal 1e21"


@pytest.mark.parametrize(
    ("kind", "scale"), [("loss", 1.0), ("loss", 0.001), ("bits per byte", 30.0), ("log-probability", 30.0)]
)
def test_a_soft_metric_of_any_size_has_ticks_on_its_axes(kind: Any, scale: float) -> None:
    task = dataclasses.replace(MMLU, soft=kind, soft_ticks=())
    fit = view(task=task, soft=scale * view().soft, external_soft=scale * view().external_soft)
    law = dataclasses.replace(fit.law, L_inf=scale * L_INF, A=scale * A)
    fit = dataclasses.replace(fit, law=law, forecast_soft=scale * fit.forecast_soft)
    layout = draw([fit])["layout"]
    for axis in (layout["yaxis"], layout["xaxis2"]):
        worst, best = 10 ** np.array(axis["range"])
        inside = [text for tick, text in zip(axis["tickvals"], axis["ticktext"], strict=True) if best <= tick <= worst]
        assert 2 <= len(set(inside)) <= 10
        assert all(text.startswith("−") for text in inside) is (kind == "log-probability")


def test_nothing_to_draw_says_what_is_missing() -> None:
    with pytest.raises(NothingToDraw, match=r"mmlu\.json"):
        draw([])
    empty = np.empty(0)
    with pytest.raises(NothingToDraw):
        draw([view(budget=empty, soft=empty, hard=empty)])


def test_the_mobile_variant_stacks_the_panels_and_keeps_the_traces() -> None:
    wide = draw(complete())
    before = document_json(wide)
    mobile = build_mmlu_emergence_mobile(wide)
    assert mobile["data"] is wide["data"]
    layout = mobile["layout"]
    assert layout["height"] == 760
    assert layout["yaxis2"]["domain"][1] < layout["yaxis"]["domain"][0]
    assert layout["updatemenus"][0]["x"] == 0.5
    assert document_json(wide) == before
    to_plotly(wide)
    to_plotly(mobile)


def test_the_golden_figures_are_met_leaf_by_leaf(golden_dir: Path, golden_fit: StudyFit, tmp_path: Path) -> None:
    wide = draw(golden_fit.downstream)
    names = ("mmlu-emergence", "mmlu-emergence-mobile")
    for name, document in zip(names, (wide, build_mmlu_emergence_mobile(wide)), strict=True):
        (tmp_path / f"{name}.json").write_bytes(document_json(document))
        to_plotly(document)
    tool = golden_dir.parents[1] / "tools" / "compare_figures.py"
    command = [sys.executable, tool, golden_dir / "figures", tmp_path, "--only", *names]
    done = subprocess.run(
        [*command, "--loose", *(f"{name}=1e-3" for name in names)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
