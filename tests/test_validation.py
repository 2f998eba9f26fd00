"""Leave-future-out validation: every refit as if alone, nothing from the future, and what a reader is told."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from delphi_jax.answers import draw_answer
from delphi_jax.cli import main
from delphi_jax.export import document_json, to_plotly
from delphi_jax.fit.law import fit_law
from delphi_jax.fit.validation import leave_future_out
from delphi_jax.kernels.precision import run_kernels_with
from delphi_jax.plots.drawers import NothingToDraw
from delphi_jax.plots.validation import build_leave_future_out, build_leave_future_out_mobile
from delphi_jax.results.validation import HELD_OUT, OPTIMUM, Prediction, Refit, ValidationFit
from delphi_jax.status import Status
from tests.delphi import ADAMC_SUITE, ADAMH_SUITE
from tests.tolerances import REFERENCE, TRUTH

DATA = Path(__file__).resolve().parents[1] / "data"
BUDGETS = np.array([3e18, 9e18, 2e19, 3e19, 9e19, 2e20])
LATER = np.array([1e21, 1e22])
L_INF, A, ALPHA = 1.4, 90.0, 0.09


def law_at(compute: np.ndarray) -> np.ndarray:
    return L_INF + A * compute**-ALPHA


def noisy(seed: int = 0, budgets: np.ndarray = BUDGETS) -> tuple[np.ndarray, np.ndarray]:
    return budgets, law_at(budgets) * (1 + 0.002 * np.random.default_rng(seed).normal(size=len(budgets)))


@pytest.fixture(scope="module")
def found() -> ValidationFit:
    held_out = {"a": (LATER, law_at(LATER) * 1.01)}
    return leave_future_out({"a": noisy(0), "b": noisy(1)}, held_out, L_inf=1.3)


def test_every_refit_is_that_of_its_budgets_alone(found: ValidationFit) -> None:
    series = {"a": noisy(0), "b": noisy(1)}
    expected = [
        (suite, asymptote, count)
        for suite in series
        for asymptote, least in (("free", 3), ("pinned", 2))
        for count in range(least, 7)
    ]
    assert [(r.suite, r.asymptote, r.budgets) for r in found.refits] == expected
    for refit in found.refits:
        compute, loss = (column[: refit.budgets] for column in series[refit.suite])
        alone = fit_law(compute, loss, L_inf=1.3 if refit.asymptote == "pinned" else None)
        assert refit.status is alone.status
        assert refit.last_budget == compute[-1]
        for name in ("L_inf", "A", "alpha", "score"):
            assert getattr(refit, name) == pytest.approx(getattr(alone, name), rel=REFERENCE)


def test_predictions_by_hand(found: ValidationFit) -> None:
    series = {"a": noisy(0), "b": noisy(1)}
    places = [each.refit for each in found.predictions]
    assert places == sorted(places)
    for place, refit in enumerate(found.refits):
        own = [each for each in found.predictions if each.refit == place]
        later = BUDGETS[refit.budgets :]
        held_out = LATER if refit.suite == "a" else LATER[:0]
        assert [(p.kind, p.budget) for p in own] == [*((OPTIMUM, c) for c in later), *((HELD_OUT, c) for c in held_out)]
        if refit.asymptote == "free":
            continue
        # A pinned law is a straight line in logarithms.
        compute, loss = (column[: refit.budgets] for column in series[refit.suite])
        slope, height = np.polyfit(np.log(compute), np.log(loss - 1.3), 1)
        for each in own:
            predicted = 1.3 + np.exp(height + slope * np.log(each.budget))
            seen = dict(zip(BUDGETS, series[refit.suite][1], strict=True)) | dict(
                zip(LATER, law_at(LATER) * 1.01, strict=True)
            )
            observed = seen[each.budget]
            assert each.predicted == pytest.approx(predicted, rel=REFERENCE)
            assert each.observed == pytest.approx(observed, rel=REFERENCE)
            assert each.error == pytest.approx(100 * (observed / predicted - 1), abs=100 * REFERENCE)
            assert each.distance == pytest.approx(np.log10(each.budget / compute[-1]))


def test_a_true_law_is_never_wrong() -> None:
    held_out = {"s": (LATER, law_at(LATER))}
    fit = leave_future_out({"s": (BUDGETS, law_at(BUDGETS))}, held_out, L_inf=L_INF, method="optimum")
    assert {refit.status for refit in fit.refits} == {Status.FITTED}
    assert len(fit.predictions) == sum(range(4)) + 4 * 2 + sum(range(5)) + 5 * 2
    assert max(abs(each.error) for each in fit.predictions) < 100 * TRUTH


def test_the_optimum_is_never_above_the_grid() -> None:
    series = {"a": noisy(0), "b": noisy(1)}
    grid, optimum = leave_future_out(series), leave_future_out(series, method="optimum")
    assert (grid.method, optimum.method) == ("grid", "optimum")
    assert len(grid.refits) == len(optimum.refits)
    for rough, sharp in zip(grid.refits, optimum.refits, strict=True):
        compute, loss = (column[: sharp.budgets] for column in series[sharp.suite])
        # What is minimised, from the reported numbers.
        residual = np.log(loss - sharp.L_inf) - np.log(sharp.A) + sharp.alpha * np.log(compute)
        assert np.mean(residual**2) == pytest.approx(sharp.score, rel=1e-6)
        assert sharp.score <= rough.score * (1 + REFERENCE)


@pytest.mark.parametrize("method", ["grid", "optimum"])
def test_a_law_too_steep_for_its_amplitude_predicts(method: str) -> None:
    """A = 2e18**20 cannot be written down, forecasts can."""
    budgets = 1e18 * np.array([1.0, 1.01, 1.03, 1.04, 1.06])
    loss = 1.5 + np.exp(-20 * np.log(budgets / 2e18)) / 1e6
    fit = leave_future_out({"s": (budgets, loss)}, L_inf=1.5, method=method)
    pinned = {place for place, refit in enumerate(fit.refits) if refit.asymptote == "pinned"}
    assert all(np.inf == fit.refits[place].A for place in pinned)
    assert len(fit.predictions) == 3 + 2 + 1 + 2 + 1
    assert all(abs(each.error) < (1e-9 if each.refit in pinned else 5) for each in fit.predictions)


def test_nothing_is_known_of_the_future() -> None:
    compute, loss = noisy()
    changed = loss.copy()
    # Far below everything else: any grid or scale that knew of it would move.
    changed[4] = 1.31
    before = leave_future_out({"s": (compute, loss)}, L_inf=1.3).refits
    after = leave_future_out({"s": (compute, changed)}, L_inf=1.3).refits
    for old, new in zip(before, after, strict=True):
        if old.budgets <= 4:
            assert old == new
        else:
            assert old != new


def test_the_order_of_the_input_does_not_matter() -> None:
    compute, loss = noisy()
    # A budget may have several optima.
    compute, loss = np.append(compute, 2e19), np.append(loss, 3.3)
    order = np.random.default_rng(1).permutation(len(compute))
    held_out = {"s": (LATER, law_at(LATER))}
    straight = leave_future_out({"s": (compute, loss)}, held_out, L_inf=1.2)
    shuffled = leave_future_out(
        {"s": (compute[order], loss[order])}, {"s": (LATER[::-1], law_at(LATER)[::-1])}, L_inf=1.2
    )
    assert straight.refits == shuffled.refits
    assert straight.predictions == shuffled.predictions
    assert max(refit.budgets for refit in straight.refits) == len(BUDGETS)


def test_held_out_runs_that_are_not_later_are_said() -> None:
    early = np.array([1e18, 2e19, 5e19])
    fit = leave_future_out({"s": noisy()}, {"s": (early, law_at(early))})
    assert {each.budget for each in fit.predictions if each.kind == HELD_OUT} == {5e19}
    assert fit.unpredicted == {"s": 2}
    assert any("are not predicted: 2" in sentence for sentence in fit.notices())


def test_refits_without_a_law_are_listed_without_numbers() -> None:
    rising = np.array([3.0, 3.1, 3.2, 3.0, 2.7, 2.5])
    fit = leave_future_out({"s": (BUDGETS, rising)})
    first, *_, last = fit.refits
    assert not first.status.usable and last.status.usable
    assert np.isnan([first.L_inf, first.A, first.alpha, first.score]).all()
    row = next(row for row in fit.rows() if row["budgets"] == 3)
    assert row["status"] == first.status.label
    assert np.isnan([row[name] for name in ("target (FLOPs)", "predicted", "observed", "error (%)")]).all()
    assert len([row for row in fit.rows() if row["budgets"] == 3]) == 1
    failed = [r.budgets for r in fit.refits if r.status is first.status]
    assert any(f"{len(failed)} of 4 refits (first {', '.join(map(str, failed))} budgets)" in s for s in fit.notices())
    assert {fit.refits[each.refit].budgets for each in fit.predictions}.isdisjoint(failed)


def test_too_few_budgets() -> None:
    fit = leave_future_out({"s": noisy(0, BUDGETS[:2])}, {"s": (LATER, law_at(LATER))}, L_inf=1.3)
    free, pinned = fit.refits
    assert (free.asymptote, free.budgets, free.status) == ("free", 2, Status.TOO_FEW_POINTS)
    assert np.isnan(free.L_inf)
    assert pinned.status is Status.FITTED
    assert {each.refit for each in fit.predictions} == {1}
    assert fit.status is Status.TOO_FEW_POINTS


def test_a_bound_is_said_where_it_is_used() -> None:
    straight = 40 * BUDGETS**-0.06
    fit = leave_future_out({"s": (BUDGETS, straight)})
    assert {refit.status for refit in fit.refits} == {Status.BOUND_HIT}
    assert {refit.L_inf for refit in fit.refits} == {0.0}
    assert {row["status"] for row in fit.rows()} == {Status.BOUND_HIT.label}
    assert any("bound hit" in sentence for sentence in fit.notices())
    document = build_leave_future_out(fit)
    drawn = [trace for trace in document["data"] if trace["mode"] == "markers" and trace.get("text")]
    assert drawn and all(trace["marker"]["symbol"].endswith("-open") for trace in drawn)
    assert all("bound hit" in trace["hovertemplate"] for trace in drawn)


def test_a_pinned_asymptote_above_a_loss() -> None:
    compute, loss = noisy()
    fit = leave_future_out({"s": (compute, loss)}, L_inf=float(loss[3]))
    pinned = {refit.budgets: refit for refit in fit.refits if refit.asymptote == "pinned"}
    assert [pinned[count].status.usable for count in range(2, 7)] == [True, True, False, False, False]
    assert np.isnan(pinned[4].alpha)
    assert pinned[4].status is Status.ASYMPTOTE_ABOVE_LOSS
    assert any("is not below what was seen at 3e+19, 9e+19, 2e+20" in sentence for sentence in fit.notices())


def test_nothing_to_predict() -> None:
    fit = leave_future_out({"s": noisy(0, BUDGETS[:3])})
    assert fit.predictions == () and fit.rows() == [] and fit.summary() == []
    assert any("nothing later than its 3 budgets" in sentence for sentence in fit.notices())
    with pytest.raises(NothingToDraw, match="4 budgets"):
        build_leave_future_out(fit)


def test_the_summary_by_hand() -> None:
    refits = (Refit("s", "free", 3, 1e20, Status.FITTED, 1.0, 10.0, 0.1, 0.0),)
    near, far = (1e21, 1.0, -2.0), (2e21, np.log10(20), 3.0)
    predictions = tuple(
        Prediction(0, kind, budget, distance, 1.0, 1.0, error)
        for kind, (budget, distance, error) in (
            # A decade by way of logarithms may end above 1.
            (OPTIMUM, (3e20, 0.6, 1.0)),
            (OPTIMUM, (1e21, 1.0 + 1e-13, -2.0)),
            (HELD_OUT, near),
            (HELD_OUT, far),
            (HELD_OUT, (3e21, 1.5, -1.0)),
            (HELD_OUT, (1e24, 4.0, 7.0)),
        )
    )
    fit = ValidationFit(Status.FITTED, refits, predictions, {}, "grid", 400, {})
    rows = [tuple(row.values())[2:] for row in fit.summary()]
    assert rows == [
        ("optimum", "0.5 to 1", 2, -0.5, 1.5, -2.0),
        ("held-out", "0.5 to 1", 1, -2.0, 2.0, -2.0),
        ("held-out", "1 to 2", 2, 1.0, 2.0, 3.0),
        ("held-out", "over 3", 1, 7.0, 7.0, 7.0),
    ]


def test_asymptotes_by_suite() -> None:
    fit = leave_future_out({"a": noisy(0), "b": noisy(1)}, L_inf={"b": 1.1})
    assert {(r.suite, r.L_inf) for r in fit.refits if r.asymptote == "pinned"} == {("b", 1.1)}
    assert fit.pinned == {"b": 1.1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"held_out": {"x": (LATER, law_at(LATER))}}, "no optima of \\['x'\\]"),
        ({"L_inf": {"x": 1.0}}, "no optima of \\['x'\\]"),
        ({"L_inf": float("nan")}, "L_inf must be a finite number"),
        ({"method": "guess"}, "method must be"),
        ({"L_inf": -0.5}, "L_inf must be a finite number"),
        ({"held_out": {"s": (LATER, law_at(LATER)[:1])}}, "s, held out: compute and loss"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        leave_future_out({"s": noisy()}, **arguments)


def test_no_points_is_an_error() -> None:
    with pytest.raises(ValueError, match="s: no points"):
        leave_future_out({"s": ([], [])})


def test_the_figure_draws_every_prediction(found: ValidationFit) -> None:
    document = build_leave_future_out(found)
    to_plotly(document)
    marks = [trace for trace in document["data"] if trace["mode"] == "markers" and trace.get("text")]
    drawn = sorted((x, y) for trace in marks for x, y in zip(trace["x"], trace["y"], strict=True))
    assert drawn == sorted((each.distance, each.error) for each in found.predictions)
    assert len(document["layout"]["shapes"]) == 4
    titles = [note["text"] for note in document["layout"]["annotations"]]
    assert titles == ["a, free asymptote", "a, pinned to 1.3", "b, free asymptote", "b, pinned to 1.3"]
    colors = {trace["legendgroup"]: trace["marker"]["color"] for trace in marks}
    assert len(set(colors.values())) == len(colors) == 5
    symbols = {trace["marker"]["symbol"].removesuffix("-open") for trace in marks}
    assert symbols == {"circle", "diamond"}
    assert all("<extra></extra>" in trace["hovertemplate"] for trace in marks)


def test_the_mobile_figure_stacks_the_panels(found: ValidationFit) -> None:
    wide = build_leave_future_out(found)
    mobile = build_leave_future_out_mobile(wide)
    assert mobile["data"] is wide["data"]
    domains = [mobile["layout"][f"yaxis{n}"]["domain"] for n in ("", "2", "3", "4")]
    assert all(low < high for low, high in domains)
    assert all(upper[0] > lower[1] for upper, lower in pairwise(domains))
    assert domains[0][1] == pytest.approx(1) and domains[-1][0] == pytest.approx(0)
    assert {tuple(mobile["layout"][f"xaxis{n}"]["domain"]) for n in ("", "2", "3", "4")} == {(0.0, 1.0)}
    to_plotly(mobile)


def test_names_are_escaped_and_refits_without_a_law_are_noted() -> None:
    rising = np.array([3.0, 3.1, 3.2, 3.0, 2.7, 2.5])
    document = build_leave_future_out(leave_future_out({"<b>": (BUDGETS, rising)}))
    texts = [note["text"] for note in document["layout"]["annotations"]]
    assert texts[0].startswith("&lt;b&gt;, ")
    assert any(text.startswith("no law from the first 3") for text in texts)


def test_it_prints_and_becomes_json(found: ValidationFit) -> None:
    assert "bound hit" in repr(found) or "fitted" in repr(found)
    assert len(found.to_frame()) == len(found.predictions)
    numbers = json.loads(found.to_json())
    assert len(numbers["predictions"]) == len(found.predictions)
    assert numbers["predictions"][0]["distance"] == found.predictions[0].distance
    drawing = draw_answer(found)
    assert set(drawing.documents) == {"leave-future-out", "leave-future-out-mobile"}
    for document in drawing.documents.values():
        assert json.loads(document_json(document))
    assert replace(found, predictions=()).rows() == []


class TestCommand:
    @pytest.fixture(autouse=True)
    def plain_kernels(self) -> object:
        yield
        run_kernels_with(None)

    def test_tables_and_figures(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "out"
        arguments = ["validate", "--data", str(DATA), "--pin", "1.44", "--no-cache", "--out", str(out)]
        assert main(arguments) == 0
        said = capsys.readouterr()
        assert said.err == ""
        for words in ("Refits", "Predictions", "Errors by distance", "Simulated data", "bound hit", "held-out"):
            assert words in said.out
        assert {path.name for path in out.iterdir()} == {"leave-future-out.json", "leave-future-out-mobile.json"}

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["validate", "--data", str(DATA), "--suite", ADAMH_SUITE, "--no-cache", "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["simulated"] is True
        assert {part["table"] for part in said["skipped"]} == {"runs"} and said["missing"] == []
        assert {refit["suite"] for refit in said["validation"]["refits"]} == {ADAMH_SUITE}
        assert {row["kind"] for row in said["summary"]} == {OPTIMUM, HELD_OUT}

    def test_bad_input(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["validate", "--data", str(DATA), "--pin", "-1", "--no-cache"]) == 1
        assert "--pin" in capsys.readouterr().err
        assert main(["validate", "--data", str(DATA), "--suite", "nobody", "--no-cache"]) == 1
        assert ADAMC_SUITE in capsys.readouterr().err
