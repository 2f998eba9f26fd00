"""The intervals of a study's forecasts: rows, notices, figure and command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from delphi_jax.answers import draw_answer
from delphi_jax.cli import main
from delphi_jax.definition import figure_title
from delphi_jax.export import document_json, to_plotly
from delphi_jax.fit.forecasts import forecast_intervals
from delphi_jax.formulas import residual_percent
from delphi_jax.kernels.precision import run_kernels_with
from delphi_jax.labels import INTERVAL_METHODS, INTERVAL_NAMES
from delphi_jax.plots.drawers import NothingToDraw
from delphi_jax.plots.fan import build_forecast_fan, build_forecast_fan_mobile
from delphi_jax.results import HeldOutRun, IsoflopFit, StudyFit
from delphi_jax.results.intervals import IntervalsFit, SuiteIntervals
from delphi_jax.status import Status
from tests.delphi import ADAMC_SUITE, ADAMH_SUITE

DATA = Path(__file__).resolve().parents[1] / "data"
PINNED = 1.2
DRAWS = 1000


@pytest.fixture(autouse=True)
def jax_config_restored() -> Iterator[None]:
    """The command keeps compiled programs for its own process: undo that between tests."""
    enabled = jax.config.jax_enable_compilation_cache
    yield
    run_kernels_with(None)
    jax.config.update("jax_enable_compilation_cache", enabled)


@pytest.fixture(scope="module")
def bundled(bundled_fit: StudyFit) -> IntervalsFit:
    return forecast_intervals(bundled_fit.isoflop, draws=DRAWS, pinned=PINNED, held_out=bundled_fit.held_out)


def command(*options: str) -> int:
    return main(["intervals", "--data", str(DATA), "--no-cache", "--draws", str(DRAWS), *options])


# Results


def test_one_row_per_method_and_target(bundled: IntervalsFit) -> None:
    rows = bundled.rows()
    methods = ("reference", *INTERVAL_METHODS)
    expected = [
        (suite.suite, target, method) for suite in bundled.suites for target in (1e21, 1e22, 1e23) for method in methods
    ]
    assert [(row["suite"], row["compute budget (FLOPs)"], row["method"]) for row in rows] == expected
    for row in rows:
        assert row["low"] < row["point"] < row["high"] or row["method"] in ("basic", "bca", "runs", "hierarchical")
        assert row["interval for"] == ("new optimum" if row["method"] == "student-t" else "law")
        assert row["draws"] == (0 if row["method"] in ("profile", "student-t") else DRAWS)
        assert row["status"] in ("fitted", "bound hit")
    first = {row["method"]: row for row in rows[: len(methods)]}
    width = (first["bca"]["high"] - first["bca"]["low"]) / (first["reference"]["high"] - first["reference"]["low"])
    assert first["bca"]["width / reference"] == pytest.approx(width)
    assert first["bca"]["width (%)"] == pytest.approx(
        100 * (first["bca"]["high"] - first["bca"]["low"]) / first["bca"]["point"]
    )


def test_what_resampled_runs_add_is_said(bundled: IntervalsFit) -> None:
    said = bundled.notices()
    for suite in bundled.suites:
        (sentence,) = [line for line in said if line.startswith(f"forecast of {suite.suite} at 1e23")]
        width = {row["method"]: row["width (%)"] for row in suite.rows() if row["compute budget (FLOPs)"] == 1e23}
        for method in ("percentile", "hierarchical", "runs"):
            assert f"{width[method]:.3g} %" in sentence
        assert f"({width['hierarchical'] / width['percentile']:.3g} times)" in sentence


def changed(suite: SuiteIntervals, method: str, **fields: Any) -> SuiteIntervals:
    """``suite`` with other fields of one method."""
    m = suite.methods.index(method)
    new = {}
    for name, value in fields.items():
        old = getattr(suite, name)
        if isinstance(old, np.ndarray):
            new[name] = old.copy()
            new[name][m] = value
        else:
            new[name] = (*old[:m], value, *old[m + 1 :])
    return replace(suite, **new)


def test_notices_tell_what_a_reader_must_know(bundled: IntervalsFit) -> None:
    suite = replace(bundled.suites[0], methods=("reference", *INTERVAL_METHODS))
    missing = changed(suite, "student-t", status=(Status.NOT_PINNED,) * 3, low=np.nan, high=np.nan)
    assert any("needs a pinned asymptote" in line for line in missing.notices())
    skipped = changed(suite, "parametric", draw_status={Status.FITTED: 0.8, Status.LOSS_DOES_NOT_FALL: 0.2})
    assert any("parametric" in line and "20 % of the draws were skipped" in line for line in skipped.notices())
    on_bound = changed(suite, "basic", draw_status={Status.FITTED: 0.5, Status.BOUND_HIT: 0.5})
    assert any("basic 50 %" in line and "bound" in line for line in on_bound.notices())
    assert on_bound.rows()[2]["on bound (%)"] == 50
    aside = changed(suite, "percentile", median=suite.point[1] * 0.9)
    assert any("10 % below the forecast" in line for line in aside.notices())
    few = replace(suite, few_tokens=np.array([3e18]), refit_status={Status.TOO_FEW_POINTS: 0.3, Status.FITTED: 0.7})
    assert any("three token counts at 3e18" in line for line in few.notices())
    assert any("30 % of them: too few points" in line for line in few.notices())
    edge = replace(suite, law=replace(suite.law, status=Status.BOUND_HIT))
    assert any("bound hit" in line and "continuous optimum" in line for line in edge.notices())


def test_no_pinned_asymptote_no_student_t(bundled_fit: StudyFit) -> None:
    found = forecast_intervals(bundled_fit.isoflop, [1e22], suites=[ADAMH_SUITE], methods=("student-t",))
    row = found.rows()[1]
    assert row["status"] == "needs a pinned asymptote"
    assert np.isnan([row["low"], row["point"], row["high"]]).all()


def test_a_reference_law_on_its_bound_says_so(bundled_fit: StudyFit) -> None:
    """Losses that fall as a power of compute without a floor."""
    isoflop = bundled_fit.isoflop
    straight = IsoflopFit(
        tuple(
            replace(fit, loss_star=3 * (fit.bucket / 1e20) ** -0.05 - 1e-2 * k)
            for k, fit in enumerate(isoflop.of(ADAMH_SUITE))
        )
    )
    (suite,) = forecast_intervals(straight, [1e22], methods=("student-t",)).suites
    assert suite.reference_law.status is Status.BOUND_HIT
    assert suite.rows()[0]["status"] == Status.BOUND_HIT.label
    assert sum("bound hit" in line for line in suite.notices()) == 2


def test_a_pin_by_suite(bundled_fit: StudyFit) -> None:
    found = forecast_intervals(
        bundled_fit.isoflop, [1e22], methods=("student-t",), draws=DRAWS, pinned={ADAMC_SUITE: 1.3}
    )
    assert [suite.status[1][0] for suite in found.suites] == [Status.NOT_PINNED, Status.FITTED]


def test_a_pinned_asymptote_that_the_optima_reject_is_told(bundled_fit: StudyFit) -> None:
    """By the ratio of the sums of squares, the pinned law's from NumPy, and SciPy's quantile of F."""
    compute, loss, _ = bundled_fit.isoflop.optima(ADAMH_SUITE)
    rejected = []
    for pinned in (1.2, 1.42):
        found = forecast_intervals(
            bundled_fit.isoflop, [1e22], suites=[ADAMH_SUITE], methods=("student-t",), pinned=pinned
        )
        (suite,) = found.suites
        line = np.polyfit(np.log(compute), np.log(loss - pinned), 1)
        score = np.mean((np.log(loss - pinned) - np.polyval(line, np.log(compute))) ** 2)
        freedom = len(loss) - 3
        rejected.append((score / suite.law.score - 1) * freedom > stats.f.ppf(0.95, 1, freedom))
        assert any("outside the 95 % profile interval" in line for line in found.notices()) == rejected[-1]
    assert rejected == [True, False]


def test_suites_and_pins_that_do_not_fit_are_refused(bundled_fit: StudyFit) -> None:
    with pytest.raises(ValueError, match="not below the smallest optimum"):
        forecast_intervals(bundled_fit.isoflop, pinned=2.9)
    with pytest.raises(ValueError, match="Nobody: no fitted IsoFLOP budget"):
        forecast_intervals(bundled_fit.isoflop, suites=["Nobody"])


def test_exact_resamples_are_counted(bundled_fit: StudyFit) -> None:
    methods = ("percentile", "parametric")
    found = forecast_intervals(bundled_fit.isoflop, suites=[ADAMH_SUITE], methods=methods, draws=DRAWS, exact=True)
    assert [row["draws"] for row in found.rows()[:3]] == [DRAWS, 1716, DRAWS]
    assert "every resample" in "".join(found.settings())


# Figure


def test_the_fan_draws_every_interval_and_run(bundled: IntervalsFit) -> None:
    drawing = draw_answer(bundled)
    assert set(drawing.documents) == {"forecast-fan", "forecast-fan-mobile"}
    assert not drawing.failed
    assert not drawing.undrawn
    for name, document in drawing.documents.items():
        to_plotly(document)
        document_json(document)
        assert figure_title(name) != name
    document = drawing.documents["forecast-fan"]
    for column, suite in enumerate(bundled.suites):
        panel = [trace for trace in document["data"] if trace["xaxis"] == f"x{2 * column + 2}"]
        whiskers = {trace["name"]: trace for trace in panel if "error_y" in trace}
        assert list(whiskers) == [INTERVAL_NAMES[method] for method in suite.methods]
        forecast = suite.law.loss_at(suite.targets)
        places = set()
        for m, method in enumerate(suite.methods):
            trace = whiskers[INTERVAL_NAMES[method]]
            bars = trace["error_y"]
            np.testing.assert_allclose(trace["y"] + bars["array"], residual_percent(suite.high[m], forecast))
            np.testing.assert_allclose(trace["y"] - bars["arrayminus"], residual_percent(suite.low[m], forecast))
            assert f"{suite.low[m, 0]:.4f} to {suite.high[m, 0]:.4f}" in trace["text"][0]
            places.add(float(trace["x"][0]))
        assert len(places) == len(suite.methods)
        assert suite.targets[0] not in places
        runs = next(trace for trace in panel if trace.get("name") == "held-out run, by seed")
        finished = [run for run in bundled.held_out.runs if run.suite == suite.suite and run.finished]
        expected = residual_percent(
            np.array([run.loss for run in finished]), suite.law.loss_at(np.array([run.budget for run in finished]))
        )
        np.testing.assert_allclose(runs["y"], expected)
        low, high = document["layout"][f"yaxis{2 * column + 2}"]["range"]
        assert low < expected.min()
        assert high > expected.max()
    entries = [trace["name"] for trace in document["data"] if trace.get("showlegend", True)]
    assert len(entries) == len(set(entries))
    labels = [label["text"] for label in document["layout"]["annotations"]]
    assert sum("Run Diverged" in label for label in labels) == 1


def test_bands_lie_between_a_methods_ends(bundled: IntervalsFit) -> None:
    suite = bundled.suites[0]
    data = build_forecast_fan(bundled)["data"]
    places = [place for place, trace in enumerate(data) if trace.get("fill") == "tonexty"]
    upper = [data[place] for place in places]
    assert {trace["legendgroup"] for trace in upper} == {"reference", "profile", "hierarchical"}
    for place, trace in zip(places, upper, strict=True):
        lower = data[place - 1]
        assert lower["legendgroup"] == trace["legendgroup"]
        assert np.all(np.asarray(lower["y"]) <= np.asarray(trace["y"]))
    m = suite.methods.index("hierarchical")
    expected = residual_percent(suite.fan_high[m], suite.law.loss_at(suite.fan))
    np.testing.assert_allclose(upper[0]["y"], expected)


def test_methods_without_an_interval_and_laws_on_a_bound_are_told(bundled: IntervalsFit) -> None:
    suite = changed(bundled.suites[0], "student-t", low=np.nan, high=np.nan, status=(Status.NOT_PINNED,) * 3)
    suite = replace(suite, law=replace(suite.law, status=Status.BOUND_HIT))
    document = build_forecast_fan(IntervalsFit((suite,), bundled.held_out))
    to_plotly(document)
    entries = [trace["name"] for trace in document["data"] if trace.get("showlegend", True)]
    assert INTERVAL_NAMES["student-t"] not in entries
    assert Status.BOUND_HIT.label in document["layout"]["annotations"][0]["text"]
    hovers = [trace["hovertemplate"] for trace in document["data"] if "error_y" in trace]
    assert all(Status.BOUND_HIT.label in hover for hover in hovers)


def test_the_mobile_fan_stacks_the_same_traces(bundled: IntervalsFit) -> None:
    wide = build_forecast_fan(bundled)
    narrow = build_forecast_fan_mobile(wide)
    assert narrow["data"] is wide["data"]
    layout = narrow["layout"]
    domains = [layout[f"yaxis{number}"]["domain"] for number in ("", "2", "3", "4")]
    ends = [end for domain in domains[::-1] for end in domain]
    assert ends == sorted(ends)
    assert all(layout[f"xaxis{number}"]["domain"] == [0.0, 1.0] for number in ("", "2", "3", "4"))
    assert layout["yaxis3"]["title"] == layout["yaxis"]["title"]
    assert layout["height"] > 660


def test_a_study_without_held_out_runs_has_a_fan(bundled: IntervalsFit) -> None:
    suite = bundled.suites[0]
    for held_out in (None, replace(bundled.held_out, runs=())):
        to_plotly(build_forecast_fan(IntervalsFit((suite,), held_out)))
    odd = replace(bundled.held_out, runs=(HeldOutRun("a", suite.suite, "<b>", 1e22, 2.4, True),))
    names = [trace.get("text") for trace in build_forecast_fan(IntervalsFit((suite,), odd))["data"]]
    assert ["&lt;b&gt;"] in names


def test_no_law_no_fan(bundled: IntervalsFit) -> None:
    suite = bundled.suites[0]
    flat = replace(suite, law=replace(suite.law, status=Status.LOSS_DOES_NOT_FALL))
    with pytest.raises(NothingToDraw, match="loss does not fall"):
        build_forecast_fan(IntervalsFit((flat,)))


# Command


def test_tables_settings_and_notices(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--suite", ADAMH_SUITE, "--targets", "1e22", "--level", "0.9") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert f"90 % intervals, {ADAMH_SUITE}" in said.out
    assert ADAMC_SUITE not in said.out.split("How:")[0]
    for method in ("reference", *INTERVAL_METHODS):
        assert f"  {method}: " in said.out
    assert "needs a pinned asymptote" in said.out
    assert "Simulated data: no number" in said.out


def test_json_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--methods", "percentile", "student-t", "--pin", "1.3", "--targets", "1e21", "1e23", "--exact")
    assert command("--json", *options) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["simulated"] is True
    assert found["notices"] == []
    assert {part["table"] for part in found["skipped"]} == {"runs"} and found["missing"] == []
    suites = found["intervals"]["suites"]
    assert [suite["law"]["series"] for suite in suites] == [ADAMH_SUITE, ADAMC_SUITE]
    assert suites[0]["methods"] == ["reference", "percentile", "student-t"]
    assert suites[0]["n_draws"] == [DRAWS, 1716, 0]
    assert np.shape(suites[0]["low"]) == (3, 2)
    assert suites[0]["pinned"] == 1.3
    assert command(*options, "--out", str(tmp_path)) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"forecast-fan.json", "forecast-fan-mobile.json"}


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--pin", "2.9"), 1, "pinned asymptote 2.9 is not below the smallest optimum"),
        (("--pin", "-1"), 1, "at least 0"),
        (("--pin", "1.2", "--metric", "C4 loss"), 1, "belongs to 'C4 loss'"),
        (("--suite", "Nobody"), 1, "no suite 'Nobody'"),
        (("--format", "png"), 1, "--out"),
        (("--level", "95"), 2, "share between 0 and 1"),
        (("--methods", "magic"), 2, "magic"),
        (("--draws", "1e9"), 1, "draws must be from 1 to"),
    ],
)
def test_bad_input_is_told(options: tuple[str, ...], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        ended = command("--methods", "student-t", *options)
    except SystemExit as end:
        ended = end.code
    assert ended == code
    assert words in capsys.readouterr().err
