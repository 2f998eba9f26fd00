"""hparam-scaling and its mobile variant: the panels, and three dropdowns that combine."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import random
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delphi_jax import fit_study, load_study
from delphi_jax.export import document_json, to_plotly
from delphi_jax.plots.drawers import NothingToDraw
from delphi_jax.plots.hparam import build_hparam_scaling, build_hparam_scaling_mobile
from delphi_jax.results import CellFit, LeaveOneOut, PartialDependence, StudyFit, SweepFit
from delphi_jax.status import Status
from tests.delphi import SWEEP

Cell = tuple[int, int, str]
CELLS: list[Cell] = list(product((8, 16, 32, 64), (256, 512), ("1B", "2.5B", "5B")))
FEATURES = ("lr", "adam_lr", "epsilon", "beta1", "beta2")
FIRST: Cell = (64, 512, "2.5B")
EMPTY: Cell = (16, 256, "5B")
THIN: Cell = (8, 512, "1B")
LETTERS = "BHT"
SPANS = {"lr": (6e-4, 2.5e-2), "adam_lr": (4.5e-5, 4e-3), "epsilon": (1.3e-9, 6.8e-7)}
SPANS |= {"beta1": (0.034, 0.29), "beta2": (4.6e-5, 3.3e-3)}


def cell_fit(cell: Cell, n: int = 30) -> CellFit:
    """A fitted cell: a parabola per hyper-parameter about the middle of its span, shifted by the cell."""
    rng = np.random.default_rng(CELLS.index(cell))
    spans = np.log([SPANS[feature] for feature in FEATURES])
    curves = []
    for feature, value, (low, high) in zip(FEATURES, SWEEP.heuristic_point(cell), spans, strict=True):
        value = math.log(1 - value if feature.startswith("beta") else value)
        grid = np.linspace(min(low, value), max(high, value), 80)
        mean = 4 + 0.01 * CELLS.index(cell) + 0.02 * (grid - (low + high) / 2) ** 2
        at = float(np.interp(value, grid, mean))
        curves.append(PartialDependence(grid, mean, np.linspace(0.01, 0.03, 80), value, at, bool(low <= value <= high)))
    features = rng.uniform(spans[:, 0], spans[:, 1], size=(n, len(FEATURES)))
    loss = rng.normal(4, 0.01, n)
    return CellFit(SWEEP, *cell, Status.FITTED, n + 2, 4.5, features, loss, 1.0, 0.01, 10.0, (), tuple(curves))


def unfitted(cell: Cell, status: Status, n: int) -> CellFit:
    return CellFit(SWEEP, *cell, status, n, math.nan, np.ones((n, len(FEATURES))), np.ones(n))


def sweep() -> SweepFit:
    """All 24 cells: one without runs, one with too few to fit."""
    special = {EMPTY: unfitted(EMPTY, Status.NO_DATA, 0), THIN: unfitted(THIN, Status.TOO_FEW_POINTS, 2)}
    return SweepFit(SWEEP, tuple(special.get(cell) or cell_fit(cell) for cell in CELLS))


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build_hparam_scaling(sweep(), SWEEP)


def ard_sweep() -> SweepFit:
    """The same cells with curves of the ARD process: one of them with a length scale on its bound."""
    numbers = {"process": "ard", "length_scales": np.array([1.0, 2.5, 3.0, 8.0, 1000.0])}
    numbers |= {"leave_one_out": {"ard": LeaveOneOut(0.93, 3.4), "broad": LeaveOneOut(0.05, 2.2)}}
    cells = tuple(dataclasses.replace(cell, **numbers) if cell.fitted else cell for cell in sweep().cells)
    held = {FIRST: {"status": Status.BOUND_HIT, "bounds_hit": ("beta2 (no effect seen)",)}}
    cells = tuple(dataclasses.replace(cell, **held.get(key, {})) for key, cell in zip(CELLS, cells, strict=True))
    return SweepFit(SWEEP, cells, process="ard")


@pytest.fixture(scope="module")
def golden_fit(golden_dir: Path) -> StudyFit:
    return fit_study(load_study(golden_dir / "data"), parts=["sweep"])


def traces_of(document: dict[str, Any], cell: Cell) -> list[dict[str, Any]]:
    start = 20 * CELLS.index(cell)
    return document["data"][start : start + 20]


# The panels


def test_every_cell_has_twenty_traces_and_the_first_is_shown_with_the_legend(
    document: dict[str, Any],
) -> None:
    assert len(document["data"]) == 24 * 20 + 3
    shown = [place for place, trace in enumerate(document["data"]) if trace["visible"]]
    start = 20 * CELLS.index(FIRST)
    assert shown == [*range(start, start + 20), 480, 481, 482]
    assert [trace["name"] for trace in document["data"][480:]] == [
        "Sampled runs",
        "Sensitivity curve",
        "Our Heuristic",
    ]


def test_a_cell_shows_its_trials_curve_band_and_heuristic(document: dict[str, Any]) -> None:
    for cell in (FIRST, CELLS[0]):
        fit = sweep().cell(*cell)
        for place, curve in enumerate(fit.dependence):
            rug, drawn, band, mark = traces_of(document, cell)[4 * place : 4 * place + 4]
            np.testing.assert_array_equal(rug["x"], fit.features[:, place])
            np.testing.assert_array_equal(drawn["x"], curve.grid)
            np.testing.assert_array_equal(drawn["y"], curve.mean)
            np.testing.assert_allclose(band["y"][:80], curve.mean + curve.sd, rtol=1e-6)
            np.testing.assert_allclose(band["y"][80:][::-1], curve.mean - curve.sd, rtol=1e-6)
            assert (mark["x"], mark["y"]) == ([curve.heuristic], [curve.heuristic_mean])
            number = "" if place == 0 else str(place + 1)
            assert {trace["xaxis"] for trace in (rug, drawn, band, mark)} == {f"x{number}"}


def test_the_heuristic_hover_speaks_original_units_and_flags_extrapolation(document: dict[str, Any]) -> None:
    for cell in (FIRST, (8, 256, "1B")):
        fit = sweep().cell(*cell)
        for place, (value, curve) in enumerate(zip(SWEEP.heuristic_point(cell), fit.dependence, strict=True)):
            mark = traces_of(document, cell)[4 * place + 3]
            assert mark["customdata"][0][0] == pytest.approx(value, rel=1e-9)
            assert ("extrapolated" in mark["hovertemplate"]) is not curve.heuristic_in_support


def test_axes_span_all_cells_with_the_rug_on_the_floor(document: dict[str, Any]) -> None:
    fits = [fit for fit in sweep().cells if fit.fitted]
    for place in range(len(FEATURES)):
        number = "" if place == 0 else str(place + 1)
        curves = [fit.dependence[place] for fit in fits]
        low, high = document["layout"][f"xaxis{number}"]["range"]
        assert (low, high) == (min(c.grid[0] for c in curves), max(c.grid[-1] for c in curves))
        floor, ceiling = document["layout"][f"yaxis{number}"]["range"]
        assert floor == min(np.min(c.mean - c.sd) for c in curves)
        top = max(np.max(c.mean + c.sd) for c in curves)
        assert (ceiling - top) / (top - floor) == pytest.approx(0.04)
        assert set(traces_of(document, CELLS[0])[4 * place]["y"]) == {floor}


def test_ticks_are_round_numbers_in_original_units(document: dict[str, Any]) -> None:
    layout = document["layout"]
    expected = {
        "xaxis": ["1e-3", "2e-3", "5e-3", "0.01", "0.02"],
        "xaxis2": ["5e-5", "1e-4", "2e-4", "1e-3", "2e-3"],
        "xaxis3": ["2e-9", "1e-8", "5e-8", "1e-7", "5e-7"],
        "xaxis4": ["0.8", "0.9", "0.95"],
        "xaxis5": ["0.998", "0.999", "0.9995", "0.9999", "0.99995"],
    }
    for key, texts in expected.items():
        assert layout[key]["ticktext"] == texts
        for value, text in zip(layout[key]["tickvals"], texts, strict=True):
            units = 1 - math.exp(value) if key in ("xaxis4", "xaxis5") else math.exp(value)
            assert units == pytest.approx(float(text), rel=1e-12)


def test_cells_without_curves_contribute_no_points(document: dict[str, Any]) -> None:
    for cell in (EMPTY, THIN):
        assert all(trace["x"] == [] for trace in traces_of(document, cell))


def test_plotly_accepts_both_variants(document: dict[str, Any]) -> None:
    before = document_json(document)
    mobile = build_hparam_scaling_mobile(document)
    assert document_json(document) == before
    assert mobile["data"] is document["data"]
    for variant in (document, mobile):
        to_plotly(variant)
        assert len(document_json(variant)) < 1_000_000


def test_the_mobile_variant_labels_the_loss_on_the_left_column_only(document: dict[str, Any]) -> None:
    layout = build_hparam_scaling_mobile(document)["layout"]
    titles = {key: layout[key].get("title", {}).get("text", "") for key in layout if key.startswith("yaxis")}
    assert {key for key, text in titles.items() if text} == {"yaxis", "yaxis3", "yaxis5"}
    assert all(layout[key]["domain"][0] == 0 for key in ("xaxis", "xaxis3", "xaxis5"))
    assert layout["height"] == 900 and "annotations" not in layout


@pytest.mark.parametrize("cell", [FIRST, CELLS[0]])
def test_a_sweep_with_one_cell_is_drawn(cell: Cell) -> None:
    document = build_hparam_scaling(SweepFit(SWEEP, (cell_fit(cell),)), SWEEP)
    assert len(document["data"]) == 483
    assert bool(document["layout"]["title"]["text"]) is (cell != FIRST)
    to_plotly(document)


def test_nothing_to_draw_says_what_is_missing() -> None:
    for nothing in (None, SweepFit(SWEEP, ()), SweepFit(SWEEP, (unfitted(FIRST, Status.TOO_FEW_POINTS, 2),))):
        with pytest.raises(NothingToDraw, match=r"hparam_sweep\.json"):
            build_hparam_scaling(nothing, SWEEP)
    with pytest.raises(NothingToDraw, match=r"add \[sweep\] to its study file"):
        build_hparam_scaling(None, None)


# The ARD process


def test_the_published_process_is_not_named(document: dict[str, Any]) -> None:
    assert "title" not in document["layout"]["legend"]
    for trace in document["data"]:
        assert "process" not in trace.get("hovertemplate", "")


def test_curves_of_another_process_are_named_over_the_legend_and_when_hovered() -> None:
    likeliest = tuple(dataclasses.replace(cell, process="likeliest") for cell in sweep().cells)
    for swept, name in (
        (ard_sweep(), "ARD process"),
        (SweepFit(SWEEP, likeliest, process="likeliest"), "Likeliest mode"),
    ):
        drawn = build_hparam_scaling(swept, SWEEP)
        for variant in (drawn, build_hparam_scaling_mobile(drawn)):
            assert variant["layout"]["legend"]["title"]["text"] == name
            to_plotly(variant)
            assert len(document_json(variant)) < 1_000_000
        for place in range(len(FEATURES)):
            _, curve, _, mark = traces_of(drawn, FIRST)[4 * place : 4 * place + 4]
            assert name in curve["hovertemplate"] and name in mark["hovertemplate"]
            assert "hoverinfo" not in curve


def test_hovers_of_the_ard_process_say_length_scale_accuracy_and_bounds() -> None:
    drawn = build_hparam_scaling(ard_sweep(), SWEEP)
    for place, length in enumerate(("1", "2.5", "3", "8", "1e+03")):
        for cell in (FIRST, CELLS[0]):
            _, curve, _, mark = traces_of(drawn, cell)[4 * place : 4 * place + 4]
            for trace in (curve, mark):
                assert f"length scale={length} standard deviations" in trace["hovertemplate"]
                assert "leave-one-out R²=0.93" in trace["hovertemplate"]
                assert ("on a bound: beta2 (no effect seen)" in trace["hovertemplate"]) == (cell == FIRST)


def test_every_cell_of_the_ard_process_has_its_own_loss_axis_shared_by_its_panels() -> None:
    swept = ard_sweep()
    drawn = build_hparam_scaling(swept, SWEEP)
    fits = [fit for fit in swept.cells if fit.fitted]
    keys = [f"yaxis{panel or ''}" for panel in ("", 2, 3, 4, 5)]
    for variant in (drawn, build_hparam_scaling_mobile(drawn)):
        chosen = {FIRST: [variant["layout"][key]["range"] for key in keys]}
        for menu in variant["layout"]["updatemenus"]:
            for button in menu["buttons"]:
                shown, relayout = button["args"]
                cell = CELLS[shown["visible"].index(True) // 20]
                ranges = [relayout[f"{key}.range"] for key in keys]
                assert chosen.setdefault(cell, ranges) == ranges
        assert set(chosen) == set(CELLS)
        for fit in fits:
            cell = (fit.batch_size, fit.hidden_dim, fit.horizon)
            bands = [(np.min(c.mean - c.sd), np.max(c.mean + c.sd)) for c in fit.dependence]
            low, high = min(low for low, _ in bands), max(high for _, high in bands)
            assert chosen[cell] == [chosen[cell][0]] * len(FEATURES)
            assert chosen[cell][0][0] < low < high < chosen[cell][0][1]
            # The rug lies on the floor, below the curves.
            assert set(traces_of(drawn, cell)[0]["y"]) == {chosen[cell][0][0]}


# The dropdowns, driven as plotly drives them


class Chart:
    """The state of a drawn figure: what plotly changes when a button is clicked."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.layout = {key: copy.deepcopy(document["layout"][key]) for key in ("updatemenus", "title")}
        self.shown = [trace["visible"] for trace in document["data"]]

    @property
    def menus(self) -> list[int]:
        return [place for place, menu in enumerate(self.layout["updatemenus"]) if menu["visible"]]

    def click(self, menu: int, button: int) -> None:
        """Plotly marks the clicked button, then applies its changes."""
        clicked = self.layout["updatemenus"][menu]
        assert clicked["visible"], "a hidden dropdown cannot be clicked"
        clicked["active"] = button
        chosen = clicked["buttons"][button]
        assert chosen["method"] == "update"
        restyle, relayout = chosen["args"]
        assert set(restyle) == {"visible"} and len(restyle["visible"]) == len(self.shown)
        self.shown = list(restyle["visible"])
        for path, value in relayout.items():
            if path == "title.text":
                self.layout["title"]["text"] = value
            else:
                place, key = re.fullmatch(r"updatemenus\[(\d+)\]\.(visible|active)", path).groups()  # type: ignore[union-attr]
                self.layout["updatemenus"][int(place)][key] = value

    def chosen(self) -> dict[str, str]:
        """Letter to chosen value, as the visible dropdowns say."""
        labels = [self.layout["updatemenus"][place] for place in self.menus]
        return dict(menu["buttons"][menu["active"]]["label"].split(" = ") for menu in labels)

    def menu(self, letter: str) -> int:
        (found,) = (
            place
            for place in self.menus
            if self.layout["updatemenus"][place]["buttons"][0]["label"].startswith(f"{letter} =")
        )
        return found

    def check(self, cell: Cell) -> None:
        """Dropdowns, traces and message all say ``cell``."""
        assert len(self.menus) == 3
        assert self.chosen() == dict(zip(LETTERS, map(str, cell), strict=True))
        start = 20 * CELLS.index(cell)
        assert [place for place, on in enumerate(self.shown) if on] == [
            *range(start, start + 20),
            480,
            481,
            482,
        ]
        text = self.layout["title"]["text"]
        if cell == EMPTY:
            assert text == "No finished runs for<br>B = 16, H = 256, T = 5B"
        elif cell == THIN:
            assert text == "Not fitted (too few points):<br>B = 8, H = 512, T = 1B"
        else:
            assert text == ""


def moves(cell: Cell) -> list[tuple[str, int, Cell]]:
    """(dropdown, button, cell that it leads to) of every click in ``cell``, the chosen values included."""
    out = []
    for dimension, values in enumerate(((8, 16, 32, 64), (256, 512), ("1B", "2.5B", "5B"))):
        for button, value in enumerate(values):
            out.append((LETTERS[dimension], button, (*cell[:dimension], value, *cell[dimension + 1 :])))
    return out  # type: ignore[return-value]


VARIANTS: list[Callable[[dict[str, Any]], dict[str, Any]]] = [lambda wide: wide, build_hparam_scaling_mobile]


@pytest.mark.parametrize("variant", VARIANTS, ids=["wide", "mobile"])
def test_every_click_from_every_combination_leads_to_the_right_picture(
    document: dict[str, Any], variant: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    start = Chart(variant(document))
    start.check(FIRST)
    reached, queue = {FIRST}, deque([(FIRST, start)])
    while queue:
        cell, chart = queue.popleft()
        for letter, button, target in moves(cell):
            after = copy.deepcopy(chart)
            after.click(after.menu(letter), button)
            after.check(target)
            if target not in reached:
                reached.add(target)
                queue.append((target, after))
    assert reached == set(CELLS)


def test_long_walks_leave_no_residue(document: dict[str, Any]) -> None:
    for seed in range(3):
        rng, cell, chart = random.Random(seed), FIRST, Chart(document)
        for _ in range(300):
            letter, button, cell = rng.choice(moves(cell))
            chart.click(chart.menu(letter), button)
            chart.check(cell)


def test_copies_of_one_dropdown_stand_at_one_place_with_one_set_of_choices(document: dict[str, Any]) -> None:
    for variant in (document, build_hparam_scaling_mobile(document)):
        menus = variant["layout"]["updatemenus"]
        assert len(menus) == 6 + 8 + 12
        by_letter: dict[str, set[tuple[Any, ...]]] = {}
        for menu in menus:
            labels = tuple(button["label"] for button in menu["buttons"])
            by_letter.setdefault(labels[0][0], set()).add((menu["x"], menu["y"], labels))
        assert {letter: len(places) for letter, places in by_letter.items()} == {"B": 1, "H": 1, "T": 1}


def test_the_golden_figures_are_met_leaf_by_leaf(golden_dir: Path, golden_fit: StudyFit, tmp_path: Path) -> None:
    """All but the mend: more dropdowns, each button with layout changes, and, where a better mode of the
    likelihood was found, the curves of two cells with the loss axes."""
    wide = build_hparam_scaling(golden_fit.sweep, SWEEP)
    names = ("hparam-scaling", "hparam-scaling-mobile")
    for name, document in zip(names, (wide, build_hparam_scaling_mobile(wide)), strict=True):
        content = document_json(document)
        assert len(content) < 1_000_000
        (tmp_path / f"{name}.json").write_bytes(content)
    better_modes = [
        20 * CELLS.index(cell) + 4 * place + part
        for cell in ((16, 512, "1B"), (64, 256, "2.5B"))
        for place in range(len(FEATURES))
        for part in (1, 2, 3)
    ]
    rugs = [20 * cell + 4 * place for cell in range(len(CELLS)) for place in range(len(FEATURES))]
    ignored = [
        rf"data\[({'|'.join(map(str, better_modes + rugs))})\]\.y",
        r"layout\.yaxis\d?\.range",
        r"updatemenus$",
        r"buttons\[\d+\]\.args$",
    ]
    tool = golden_dir.parents[1] / "tools" / "compare_figures.py"
    command = [sys.executable, tool, golden_dir / "figures", tmp_path, "--only", *names]
    done = subprocess.run(
        [*command, "--loose", *(f"{name}=1e-3" for name in names), "--ignore", *ignored],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_golden_dropdowns_shown_first_are_those_of_the_reference(golden_dir: Path, golden_fit: StudyFit) -> None:
    for name, variant in zip(("hparam-scaling", "hparam-scaling-mobile"), VARIANTS, strict=True):
        expected = json.loads((golden_dir / "figures" / f"{name}.json").read_text())["layout"]["updatemenus"]
        actual = variant(build_hparam_scaling(golden_fit.sweep, SWEEP))["layout"]["updatemenus"]
        for wanted, menu in zip(expected, actual, strict=False):
            assert {key: menu[key] for key in wanted if key != "buttons"} == {
                key: value for key, value in wanted.items() if key != "buttons"
            }
            for wanted_button, button in zip(wanted["buttons"], menu["buttons"], strict=True):
                assert button["args"][0] == wanted_button["args"][0]
                assert (button["label"], button["method"]) == (
                    wanted_button["label"],
                    wanted_button["method"],
                )
