"""``delphi-jax allocate``: what it prints, writes and refuses, and its figure."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delphi_jax.cli import main
from delphi_jax.export import to_plotly
from delphi_jax.fit.allocation import allocate
from delphi_jax.io.study import load_study
from delphi_jax.labels import APPROACH_NAMES, APPROACHES, PARABOLA, SPLINE, SURFACE
from delphi_jax.plots.allocation import build_allocation, build_allocation_mobile
from delphi_jax.plots.drawers import NothingToDraw
from delphi_jax.results.allocation import AllocationFit
from delphi_jax.results.surface import SurfaceObjective
from delphi_jax.status import Status
from tests.delphi import ADAMC_SUITE, ADAMH_SUITE

DATA = Path(__file__).resolve().parents[1] / "data"
BUDGETS = (1e20, 1e22)
QUICK = ("--budgets", "1e20", "1e22", "--draws", "40", "--loss-function", "squared")


def command(*options: str) -> int:
    return main(["allocate", "--data", str(DATA), "--no-cache", *options])


@pytest.fixture(scope="module")
def fit() -> AllocationFit:
    """Of both suites of the bundled study."""
    runs = load_study(DATA, tables={"runs"}).runs
    return allocate(runs, BUDGETS, objective=SurfaceObjective("squared"), draws=40)


def test_tables_say_what_a_planner_asks(capsys: pytest.CaptureFixture[str], fit: AllocationFit) -> None:
    assert command(*QUICK) == 0
    said = capsys.readouterr()
    assert said.err == ""
    for suite in (ADAMH_SUITE, ADAMC_SUITE):
        for words in ("allocation, FLOPs as measured, 95 % intervals", "exponents of compute", "IsoFLOP buckets"):
            assert f"{suite}: {words}" in said.out
        assert f"{suite}: what choosing one approach costs if the other is right" in said.out
        assert f"parabolas of {suite}, off centre" in said.out
    assert "Simulated data: no number in" in said.out
    assert "did not finish: no measurement for the IsoFLOP fits" in said.out
    line = fit.of(ADAMH_SUITE).line(PARABOLA).at.tokens
    assert f"{line.value[1]:.4g} ({line.low[1]:.4g} to {line.high[1]:.4g})" in said.out


def test_json_holds_the_numbers_of_the_library(capsys: pytest.CaptureFixture[str], fit: AllocationFit) -> None:
    assert command(*QUICK, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["simulated"] is True
    assert said["notices"] == fit.notices()
    assert {part["table"] for part in said["skipped"]} == {"runs"} and said["missing"] == []
    for ours, theirs in zip(fit.suites, said["allocation"]["suites"], strict=True):
        assert theirs["suite"] == ours.suite
        assert [line["approach"] for line in theirs["lines"]] == list(APPROACHES)
        for line, other in zip(ours.lines, theirs["lines"], strict=True):
            np.testing.assert_allclose(other["at"]["tokens"]["high"], line.at.tokens.high, rtol=1e-6)
            assert other["status"] == line.status.label


def test_flops_objective_and_suite_are_options(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--flops", "6nd", "--level", "0.8", "--suite", ADAMC_SUITE, "--residual", "log", "--json")
    assert command(*QUICK, *options) == 0
    (suite,) = json.loads(capsys.readouterr().out)["allocation"]["suites"]
    assert suite["suite"] == ADAMC_SUITE and suite["flops"] == "6nd" and suite["factor"] == 6.0
    assert suite["level"] == 0.8 and suite["surface"]["percentiles"] == pytest.approx([10, 50, 90])
    assert suite["surface"]["point"]["objective"] == {"function": "squared", "residual": "log", "delta": 0.001}


def test_figures_are_written_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*QUICK, "--out", str(tmp_path), "--format", "json", "html") == 0
    assert "Wrote 4 files" in capsys.readouterr().out
    names = {f"allocation{kind}.{form}" for kind in ("", "-mobile") for form in ("json", "html")}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert "How compute is best shared between parameters and tokens" in (tmp_path / "allocation.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--budgets", "0"), "expected a positive number of FLOPs, got '0'"),
        (("--budgets=-1e21",), "expected a positive number of FLOPs, got '-1e21'"),
        (("--budgets", "many"), "expected a positive number of FLOPs, got 'many'"),
        (("--budgets", "nan"), "expected a positive number of FLOPs, got 'nan'"),
        (("--level", "95"), "between 0 and 1"),
        (("--flops", "7nd"), "invalid choice: '7nd'"),
        (("--delta", "0"), "got '0'"),
        (("--draws", "0"), "whole number of at least 1"),
    ],
)
def test_bad_usage_is_refused(options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*options) == 2
    assert message in capsys.readouterr().err


def test_bad_input_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--suite", "nobody") == 1
    said = capsys.readouterr().err
    assert "no IsoFLOP runs of nobody" in said and ADAMH_SUITE in said
    rows = json.loads((DATA / "runs.json").read_text())
    held_out = tmp_path / "runs.json"
    held_out.write_text(json.dumps([row for row in rows if "optimal" in row["name"]]))
    assert main(["allocate", "--in", str(held_out), "--no-cache"]) == 1
    assert "there are no IsoFLOP runs" in capsys.readouterr().err


def test_one_budget_gives_statuses_and_no_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads((DATA / "runs.json").read_text())
    path = tmp_path / "runs.json"
    path.write_text(json.dumps([row for row in rows if "isoflop-3e+18" in row["name"]]))
    out = tmp_path / "figures"
    code = main(["allocate", "--in", str(path), "--no-cache", "--draws", "40", "--out", str(out)])
    said = capsys.readouterr().out
    assert code == 1
    assert "too few points" in said and "allocation: no suite has an allocation" in said
    assert not out.exists() or not list(out.iterdir())


def traces(document: dict[str, Any], panel: int) -> list[dict[str, Any]]:
    axis = "x" if panel == 1 else f"x{panel}"
    return [trace for trace in document["data"] if trace["xaxis"] == axis]


def test_the_figure_shows_every_approach_with_its_band(fit: AllocationFit) -> None:
    document = build_allocation(fit)
    to_plotly(document)
    assert len({trace["xaxis"] for trace in document["data"]}) == 4
    for panel, (suite, quantity) in enumerate(
        [(suite, quantity) for suite in fit.suites for quantity in ("params", "tokens")], 1
    ):
        shown = traces(document, panel)
        for approach in APPROACHES:
            line = suite.line(approach)
            (curve,) = [t for t in shown if t.get("name") == APPROACH_NAMES[approach]]
            np.testing.assert_array_equal(curve["y"], getattr(line.curve, quantity).value)
            assert "%{customdata[0]" in curve["hovertemplate"]
        filled = [t for t in shown if t.get("fill") == "tonexty"]
        assert {t["legendgroup"] for t in filled} == {PARABOLA, SURFACE}
        for trace in filled:
            np.testing.assert_array_equal(trace["y"], getattr(suite.line(trace["legendgroup"]).curve, quantity).high)
            low = shown[next(i for i, t in enumerate(shown) if t is trace) - 1]
            np.testing.assert_array_equal(low["y"], getattr(suite.line(trace["legendgroup"]).curve, quantity).low)
        optima = [t for t in shown if t["legendgroup"] in (f"{PARABOLA} optima", f"{SPLINE} optima")]
        assert [len(t["x"]) for t in optima] == [len(suite.buckets)] * 2
    named = [t["name"] for t in document["data"] if t.get("showlegend", True)]
    assert len(named) == len(set(named)) == 5


def test_the_mobile_figure_stacks_all_panels(fit: AllocationFit) -> None:
    wide = build_allocation(fit)
    mobile = build_allocation_mobile(wide)
    to_plotly(mobile)
    assert mobile["data"] is wide["data"]
    axes = [mobile["layout"][f"yaxis{number}"]["domain"] for number in ("", "2", "3", "4")]
    assert all(lower[1] < upper[0] for upper, lower in pairwise(axes))
    assert all(mobile["layout"][f"xaxis{number}"]["domain"] == [0.0, 1.0] for number in ("", "2", "3", "4"))


def test_reservations_stand_in_the_figure(fit: AllocationFit) -> None:
    suite = fit.suites[0]
    lines = tuple(
        replace(line, status=Status.BOUND_HIT if line.approach == SURFACE else Status.TOO_FEW_POINTS)
        if line.approach != PARABOLA
        else line
        for line in suite.lines
    )
    document = build_allocation(AllocationFit((replace(suite, lines=lines),)))
    texts = [note["text"] for note in document["layout"]["annotations"]]
    words = "IsoFLOP splines: too few points<br>loss surface (approach 3): bound hit"
    assert texts.count(words) == 2
    hovers = [t["hovertemplate"] for t in document["data"] if t.get("hovertemplate", "").startswith("loss surface")]
    assert hovers and all("bound hit" in hover for hover in hovers)
    assert not any(t["name"].startswith("IsoFLOP splines") for t in document["data"] if "name" in t)
    nothing = tuple(replace(line, status=Status.TOO_FEW_POINTS) for line in lines)
    with pytest.raises(NothingToDraw, match="too few points"):
        build_allocation(AllocationFit((replace(suite, lines=nothing),)))
