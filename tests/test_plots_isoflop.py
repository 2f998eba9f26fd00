"""The scaling-law figures, without pixels: golden pictures, the mends, and studies with parts missing."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from delphi_jax.export import document_json, to_plotly, write_figures
from delphi_jax.plots.asymptote import build_scaling_law_asymptote
from delphi_jax.plots.drawers import NothingToDraw
from delphi_jax.plots.isoflop import build_isoflop_parabolas
from delphi_jax.plots.ladder import build_ladder, build_ladder_mobile
from delphi_jax.plots.lucky_seeds import build_lucky_seeds
from delphi_jax.plots.overtraining import build_overtraining_forecast
from delphi_jax.plots.theme import CYCLE
from delphi_jax.results import (
    BootstrapFit,
    HeldOutFit,
    HeldOutRun,
    Interval,
    IsoflopFit,
    LawFit,
    OvertrainingFit,
    OvertrainingScale,
    ParabolaFit,
    SeedDeviation,
    SeedFit,
)
from delphi_jax.status import Status
from tests.delphi import ADAMC_SUITE, ADAMH_SUITE

BUDGETS = (3e18, 1.8e19, 9e19, 3e20)
L_INF, A, ALPHA = 1.3, 110.0, 0.09
CURVATURE = 0.2
TOKEN_SLOPE, TOKEN_INTERCEPT = 0.55, -1.0
SCALES = (0.5, 2.0, 10.0)
UNKNOWN = "Suite <b>&amp;"


def law_at(compute):
    return L_INF + A * np.asarray(compute, dtype=float) ** -ALPHA


def optimal_tokens(compute):
    return 10.0 ** (TOKEN_INTERCEPT + TOKEN_SLOPE * np.log10(compute))


def parabola(suite, bucket, status=Status.FITTED):
    """Five runs on an exact parabola about the law's optimum; an unfitted one has runs but no numbers."""
    tokens = optimal_tokens(bucket) * np.array([3.0, 0.3, 1.0, 0.6, 2.0])
    x_star, loss_star = np.log10(optimal_tokens(bucket)), float(law_at(bucket))
    loss = loss_star + CURVATURE * (np.log10(tokens) - x_star) ** 2
    runs = ParabolaFit(suite, bucket, tokens, tokens * 0 + 1e8, loss, status)
    if not status.usable:
        return runs
    b, c = -2 * CURVATURE * x_star, loss_star + CURVATURE * x_star**2
    return replace(
        runs,
        a=CURVATURE,
        b=b,
        c=c,
        vertex_log_tokens=x_star,
        log_tokens_star=x_star,
        tokens_star=float(optimal_tokens(bucket)),
        loss_star=loss_star,
        params_star=1e8,
        curvature_under=CURVATURE / 2,
        curvature_over=CURVATURE * 2,
        one_sided=(True, True),
    )


def law(suite, status=Status.FITTED, budgets=BUDGETS):
    numbers = {"L_inf": L_INF, "A": A, "alpha": ALPHA} if status.usable else {}
    return LawFit(suite, "free", np.array(budgets), law_at(budgets), status, **numbers)


def isoflop(suites=(ADAMH_SUITE, ADAMC_SUITE), budgets=BUDGETS):
    return IsoflopFit(tuple(parabola(suite, bucket) for suite in sorted(suites) for bucket in budgets))


def run(budget, percent, suite=ADAMH_SUITE, seed="default", finished=True):
    loss = float(law_at(budget)) * (1 + percent / 100)
    return HeldOutRun(f"run-{budget:.0e}-{seed}", suite, seed, budget, loss, finished)


def held_out(*runs):
    suites = {ADAMH_SUITE, ADAMC_SUITE}
    runs = runs or (
        run(1e21, 0.4, seed="42"),
        run(1e21, 0.6),
        run(1e22, -0.26),
        run(1e21, 1.0, ADAMC_SUITE),
        run(1e23, 30.0, ADAMC_SUITE, finished=False),
    )
    return HeldOutFit(runs, {suite: law(suite) for suite in suites})


def laws(*suites):
    return {suite: law(suite) for suite in suites or (ADAMH_SUITE, ADAMC_SUITE)}


def seed_fit():
    empty = np.empty(0)
    intervals = (Interval(2.7, 2.75, 2.8), Interval(2.4, 2.5, 2.6))
    bootstrap = BootstrapFit(
        ADAMH_SUITE,
        np.array([1e21, 1e22]),
        Status.FITTED,
        np.zeros(0, dtype=int),
        empty,
        empty,
        empty,
        empty,
        np.empty((0, 2)),
        intervals,
        (2.5, 50.0, 97.5),
        100,
        0,
    )
    lines = (
        SeedDeviation(1e21, 2.75, ("default", "9", "42"), np.array([0.1, 0.2, 0.3]), -0.5, 0.75),
        SeedDeviation(1e22, 2.5, (), np.empty(0), -1.5, 1.25),
    )
    return SeedFit(ADAMH_SUITE, law(ADAMH_SUITE), bootstrap, lines)


def overtraining():
    """Penalties that keep a share of the law's fall, so that the crossings have a closed form."""
    compute = 10.0 ** np.linspace(np.log10(BUDGETS[0]), 26, 800)
    lines = []
    for scale in SCALES:
        share = 0.02 * abs(np.log10(scale))
        target = float(law_at(1e23)) - L_INF
        equivalent = (target / (A * (1 + share))) ** (-1 / ALPHA)
        lines.append(
            OvertrainingScale(
                scale,
                Status.FITTED,
                law_at(BUDGETS) + share,
                L_INF + A * (1 + share) * compute**-ALPHA,
                equivalent,
                scale * float(optimal_tokens(equivalent)),
                100 * (equivalent - 1e23) / 1e23,
            )
        )
    fits = tuple(parabola(ADAMH_SUITE, bucket) for bucket in BUDGETS)
    return OvertrainingFit(
        ADAMH_SUITE, 1e23, fits, law(ADAMH_SUITE), TOKEN_SLOPE, TOKEN_INTERCEPT, compute, tuple(lines)
    )


def unreached(fit, scale):
    def lost(line):
        if line.scale != scale:
            return line
        end = float(fit.compute[-1])
        tokens = scale * float(optimal_tokens(end))
        return replace(
            line,
            status=Status.NOT_REACHED,
            loss=line.loss + 1,
            compute_equivalent=end,
            tokens_equivalent=tokens,
            overhead=99900.0,
        )

    return replace(fit, scales=tuple(lost(line) for line in fit.scales))


def every_document():
    study = isoflop(), laws(), held_out()
    ladder = build_ladder(*study, ADAMH_SUITE)
    return {
        "isoflop-parabolas": build_isoflop_parabolas(study[0]),
        "scaling-law-asymptote": build_scaling_law_asymptote(*study),
        "first-ladder": build_ladder(*study, ADAMC_SUITE),
        "delphi-ladder": ladder,
        "delphi-ladder-mobile": build_ladder_mobile(ladder),
        "lucky-seeds": build_lucky_seeds(seed_fit()),
        "overtraining-forecast": build_overtraining_forecast(overtraining()),
        "unreached": build_overtraining_forecast(unreached(overtraining(), 10.0)),
        "one-suite": build_isoflop_parabolas(isoflop([ADAMC_SUITE])),
    }


@pytest.mark.parametrize("name", every_document())
def test_plotly_accepts_every_document(name):
    document = every_document()[name]
    figure = to_plotly(document)
    assert len(figure.data) == len(document["data"]) > 0
    assert len(figure.frames) == len(document.get("frames", ()))
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert {"template", "width", "font"}.isdisjoint(document["layout"])


def test_golden_pictures(golden_dir, golden_fit, tmp_path):
    """Leaf by leaf against the reference; only the hover of the sub-optimal curve is mended."""
    study = golden_fit
    parts = study.isoflop, study.laws, study.held_out
    wide = {
        "first-ladder": build_ladder(*parts, ADAMC_SUITE),
        "delphi-ladder": build_ladder(*parts, ADAMH_SUITE),
    }
    documents = wide | {
        "isoflop-parabolas": build_isoflop_parabolas(study.isoflop),
        "scaling-law-asymptote": build_scaling_law_asymptote(*parts),
        "lucky-seeds": build_lucky_seeds(study.seeds),
        "overtraining-forecast": build_overtraining_forecast(study.overtraining),
    }
    documents |= {f"{name}-mobile": build_ladder_mobile(document) for name, document in wide.items()}
    assert write_figures(documents, tmp_path, ["json"]).unwritten == ()
    tool = golden_dir.parent.parent / "tools" / "compare_figures.py"
    command = [
        sys.executable,
        tool,
        golden_dir / "figures",
        tmp_path,
        "--only",
        *documents,
    ]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert f"{len(documents)} of {len(documents)} figures match" in done.stdout


def test_parabolas_are_drawn_over_the_observed_tokens():
    fit = isoflop([ADAMH_SUITE]).parabolas[1]
    runs, curve, optimum = build_isoflop_parabolas(isoflop([ADAMH_SUITE]))["data"][3:6]
    np.testing.assert_array_equal(runs["x"], fit.tokens)
    assert len(curve["x"]) == 200
    np.testing.assert_allclose(curve["x"][[0, -1]], [fit.tokens.min(), fit.tokens.max()], rtol=1e-12)
    np.testing.assert_allclose(curve["y"], np.polyval([fit.a, fit.b, fit.c], np.log10(curve["x"])), rtol=1e-12)
    assert (optimum["x"], optimum["y"]) == ([fit.tokens_star], [fit.loss_star])


def test_one_legend_entry_per_budget_even_where_the_first_suite_lacks_it():
    fits = list(isoflop().parabolas)
    fits[1] = parabola(ADAMH_SUITE, BUDGETS[1], Status.TOO_FEW_POINTS)
    data = build_isoflop_parabolas(IsoflopFit(tuple(fits)))["data"]
    assert len(data) == 3 * 7
    entries = [trace["name"] for trace in data if trace["showlegend"]]
    assert sorted(entries) == ["1.8e+19", "3e+18", "3e+20", "9e+19"]
    assert [trace["xaxis"] for trace in data if trace["name"] == "1.8e+19"] == ["x2"] * 3


def test_colours_stay_when_a_bucket_or_a_suite_could_not_be_fitted():
    thin = tuple(
        parabola(fit.suite, fit.bucket, Status.TOO_FEW_POINTS)
        if fit.bucket == BUDGETS[0] or fit.suite == ADAMH_SUITE
        else fit
        for fit in isoflop().parabolas
    )
    study = IsoflopFit(thin)
    panel = build_isoflop_parabolas(study)
    assert [trace["marker"]["color"] for trace in panel["data"][::3]] == list(CYCLE[1:4])
    assert panel["layout"]["xaxis"]["domain"] == [0.0, 1.0] and "xaxis2" not in panel["layout"]
    assert build_scaling_law_asymptote(study, {}, None)["data"][0]["marker"]["color"] == CYCLE[1]
    ladder = build_ladder(study, {}, None, ADAMC_SUITE)
    assert ladder["data"][-1]["marker"]["color"] == CYCLE[1]


def test_a_suite_known_only_from_held_out_runs_keeps_its_place_in_the_colours():
    runs = held_out(run(1e21, 0.5, ADAMC_SUITE), run(1e21, 0.5, ADAMH_SUITE))
    figure = build_scaling_law_asymptote(isoflop([ADAMC_SUITE]), laws(ADAMC_SUITE), runs)
    assert figure["data"][0]["marker"]["color"] == CYCLE[1]
    held = [trace for trace in figure["data"] if "held-out" in trace["hovertemplate"]]
    assert [trace["marker"]["color"] for trace in held] == [CYCLE[0], CYCLE[1]]


@pytest.mark.parametrize("status", [Status.CLIPPED_TO_EDGE, Status.CURVATURE_NOT_POSITIVE])
def test_an_optimum_that_is_no_minimum_says_so(status):
    fits = list(isoflop([ADAMH_SUITE]).parabolas)
    fits[2] = replace(fits[2], status=status)
    data = build_isoflop_parabolas(IsoflopFit(tuple(fits)))["data"]
    optima = [trace for trace in data if trace.get("marker", {}).get("symbol") == "x"]
    hovers = [trace["hovertemplate"] for trace in optima]
    assert [status.label in hover for hover in hovers] == [False, False, True, False]


def test_a_law_on_a_bound_says_so_in_every_figure_that_uses_it():
    bound = law(ADAMH_SUITE, Status.BOUND_HIT)
    found = {ADAMH_SUITE: bound, ADAMC_SUITE: law(ADAMC_SUITE)}
    note = f"law: {Status.BOUND_HIT.label}"
    asymptote = build_scaling_law_asymptote(isoflop(), found, held_out())
    assert [note in trace.get("name", "") for trace in asymptote["data"][:4]] == [True, False, False, False]
    assert [note in trace["hovertemplate"] for trace in asymptote["data"][:4]] == [False, True, False, False]
    for suite, said in ((ADAMH_SUITE, True), (ADAMC_SUITE, False)):
        ladder = build_ladder(isoflop(), found, held_out(), suite)
        assert (note in ladder["layout"]["annotations"][1]["text"]) == said
        assert any(note in trace.get("hovertemplate", "") for trace in ladder["data"]) == said
    assert note in build_lucky_seeds(replace(seed_fit(), law=bound))["layout"]["annotations"][0]["text"]
    forecast = build_overtraining_forecast(replace(overtraining(), law=bound))
    assert note in forecast["layout"]["annotations"][0]["text"]
    assert all(note in frame["layout"]["annotations"][0]["text"] for frame in forecast["frames"])
    for figure in every_document().values():
        assert note not in document_json(figure).decode()


def test_names_from_data_cannot_inject_markup():
    figures = [
        build_isoflop_parabolas(isoflop([UNKNOWN])),
        build_scaling_law_asymptote(isoflop([UNKNOWN]), laws(UNKNOWN), held_out(run(1e21, 1.0, UNKNOWN))),
    ]
    for figure in figures:
        text = document_json(figure).decode()
        assert "Suite &lt;b&gt;&amp;amp;" in text
        assert "<b>" not in text


def test_asymptote_orders_optima_and_laws_then_means_then_diverged_runs():
    figure = build_scaling_law_asymptote(isoflop(), laws(), held_out())
    kinds = [trace["hovertemplate"].split("<br>")[0] for trace in figure["data"]]
    assert kinds == [
        f"{ADAMH_SUITE} (IsoFLOP optimum)",
        f"{ADAMH_SUITE} fit",
        f"{ADAMC_SUITE} (IsoFLOP optimum)",
        f"{ADAMC_SUITE} fit",
        f"{ADAMH_SUITE} (held-out optimal)",
        f"{ADAMC_SUITE} (held-out optimal)",
        f"{ADAMC_SUITE} (diverged mid-run)",
    ]
    np.testing.assert_allclose(figure["data"][1]["y"], law_at(figure["data"][1]["x"]), rtol=1e-12)
    means = figure["data"][4]
    np.testing.assert_allclose(means["y"], law_at([1e21, 1e22]) * [1.005, 0.9974], rtol=1e-12)
    diverged = figure["data"][6]
    assert (diverged["x"], diverged["text"], diverged["marker"]["symbol"]) == (
        [1e23],
        "Run Diverged",
        "x-thin",
    )


def test_a_law_that_was_not_fitted_is_not_drawn():
    failed = laws() | {ADAMH_SUITE: law(ADAMH_SUITE, Status.NO_GRID_VALUE_FITS)}
    figure = build_scaling_law_asymptote(isoflop(), failed, None)
    assert [trace["mode"] for trace in figure["data"]] == ["markers", "markers", "lines"]
    runs = replace(held_out(), laws=failed)
    ladder = build_ladder(isoflop(), failed, runs, ADAMH_SUITE)
    assert not any("scaling-law fit" in trace.get("hovertemplate", "") for trace in ladder["data"])
    assert not any("%" in label["text"] for label in ladder["layout"]["annotations"])
    for document in (figure, ladder):
        assert b"null" not in document_json(document)


def test_the_compute_axis_reaches_every_held_out_run():
    assert build_scaling_law_asymptote(isoflop(), laws(), None)["layout"]["xaxis"]["range"][1] == 23.12
    far = held_out(run(1e24, 0.1))
    figure = build_scaling_law_asymptote(isoflop(), laws(), far)
    assert figure["layout"]["xaxis"]["range"][1] == pytest.approx(24.12)
    assert figure["data"][1]["x"][-1] == pytest.approx(1e24)


def test_ladder_callouts():
    ladder = build_ladder(isoflop(), laws(), held_out(), ADAMH_SUITE)
    titles, sides, callouts = (ladder["layout"]["annotations"][part] for part in (slice(2), slice(2, 4), slice(4, 9)))
    assert [label["text"] for label in titles + sides] == [
        "IsoFLOP parabolas per compute bucket",
        "Scaling law + held-out validation",
        "fit ← ",
        " → extrapolation",
    ]
    assert [label["text"] for label in callouts] == ["0.5% worse", "0.3% better"]
    assert [label["x"] for label in callouts] == [21.0, 22.0]
    assert 10 ** callouts[0]["y"] == pytest.approx(float(law_at(1e21)) * 1.005)
    assert [label["xanchor"] for label in callouts] == ["left", "right"]
    first = build_ladder(isoflop(), laws(), held_out(), ADAMC_SUITE)
    assert [label["text"] for label in first["layout"]["annotations"][4:]] == ["1.0% worse", "Run Diverged"]


def test_the_mobile_ladder_is_the_same_picture_stacked():
    wide = build_ladder(isoflop(), laws(), held_out(), ADAMH_SUITE)
    before = json.dumps(wide["layout"])
    mobile = build_ladder_mobile(wide)
    assert mobile["data"] is wide["data"]
    assert json.dumps(wide["layout"]) == before
    layout = mobile["layout"]
    assert layout["height"] == 660 and "height" not in wide["layout"]
    assert layout["xaxis"]["domain"] == layout["xaxis2"]["domain"] == [0.0, 1.0]
    assert layout["yaxis"]["domain"][0] > layout["yaxis2"]["domain"][1]
    assert [title["x"] for title in layout["annotations"][:2]] == [0.5, 0.5]
    assert layout["annotations"][2:] == wide["layout"]["annotations"][2:]


def test_lucky_seeds_sorts_seeds_and_draws_every_band():
    figure = build_lucky_seeds(seed_fit())
    assert figure["data"][0]["text"] == ["42", "9", "default"]
    np.testing.assert_array_equal(figure["data"][0]["x"], [0.3, 0.2, 0.1])
    zero, *bands = figure["layout"]["shapes"]
    assert (zero["x0"], zero["x1"], zero["y1"]) == (0, 0, 1.5)
    assert [(band["x0"], band["x1"]) for band in bands] == [(-0.5, 0.75), (-1.5, 1.25)]
    assert [(band["y0"] + band["y1"]) / 2 for band in bands] == [0, 1]
    assert figure["layout"]["yaxis"]["ticktext"] == ["C = 1e+21 FLOPs", "C = 1e+22 FLOPs"]
    assert figure["data"][-2]["name"].startswith("Forecast 2.5–97.5% CI")


def stops(figure):
    """(scale, circles, curve, marker, connector, label) of the base picture and of every slider stop."""
    places = figure["frames"][0]["traces"]
    parts = [figure["data"][place] for place in places]
    active = figure["layout"]["sliders"][0]["active"]
    yield SCALES[active], parts[:-3], *parts[-3:], figure["layout"]["annotations"][0]["text"]
    for scale, frame in zip(SCALES, figure["frames"], strict=True):
        assert frame["traces"] == places
        yield scale, frame["data"][:-3], *frame["data"][-3:], frame["layout"]["annotations"][0]["text"]


def test_hovers_of_the_sub_optimal_curve_are_true_at_every_stop():
    fit = overtraining()
    figure = build_overtraining_forecast(fit)
    by_scale = {line.scale: line for line in fit.scales}
    for scale, circles, curve, marker, connector, label in stops(figure):
        assert len(curve["customdata"]) >= len(curve["x"]) == len(curve["y"])
        compute = curve["customdata"][: len(curve["x"])]
        np.testing.assert_allclose(curve["x"], scale * optimal_tokens(compute), rtol=1e-12)
        share = 0.02 * abs(np.log10(scale))
        np.testing.assert_allclose(curve["y"], L_INF + A * (1 + share) * compute**-ALPHA, rtol=1e-12)
        target = law_at(1e23)
        assert curve["y"][-2] > target >= curve["y"][-1]
        equivalent = marker["customdata"][0][0]
        assert marker["x"] == [pytest.approx(scale * optimal_tokens(equivalent))]
        assert L_INF + A * (1 + share) * equivalent**-ALPHA == pytest.approx(marker["y"][0])
        assert connector["x"] == [pytest.approx(optimal_tokens(1e23)), marker["x"][0]]
        assert [circle["x"][0] for circle in circles] == pytest.approx(list(scale * optimal_tokens(np.array(BUDGETS))))
        assert label.endswith(f"{by_scale[scale].overhead:+.1f}% compute to match")


def test_the_slider_starts_at_twice_the_optimal_tokens():
    figure = build_overtraining_forecast(overtraining())
    slider = figure["layout"]["sliders"][0]
    assert slider["active"] == SCALES.index(2.0)
    assert [step["label"] for step in slider["steps"]] == ["0.5×", "2×", "10×"]
    assert [step["args"][0][0] for step in slider["steps"]] == [frame["name"] for frame in figure["frames"]]
    assert figure["layout"]["annotations"] == figure["frames"][1]["layout"]["annotations"]
    without_two = overtraining()
    without_two = replace(without_two, scales=without_two.scales[::2])
    assert build_overtraining_forecast(without_two)["layout"]["sliders"][0]["active"] == 0


def test_a_loss_that_is_not_reached_is_said_not_to_be():
    fit = unreached(overtraining(), 10.0)
    figure = build_overtraining_forecast(fit)
    *_, (scale, _, curve, marker, connector, label) = stops(figure)
    assert scale == 10.0
    assert label == "10× overtrained<br>forecast loss not reached by 1e+26 FLOPs"
    assert marker["x"] == marker["y"] == marker["customdata"] == connector["x"] == connector["y"] == []
    assert len(curve["x"]) == len(curve["customdata"]) == len(fit.compute)
    assert "99900" not in document_json(figure).decode()
    layout = figure["frames"][-1]["layout"]
    assert 10 ** layout["annotations"][0]["x"] == pytest.approx(optimal_tokens(1e23))
    assert 10 ** layout["xaxis"]["range"][1] >= curve["x"][-1]


def test_a_cost_that_is_not_known_is_not_drawn():
    fit = overtraining()
    nothing = {"compute_equivalent": np.nan, "tokens_equivalent": np.nan, "overhead": np.nan}
    last = replace(fit.scales[-1], status=Status.CURVATURE_NOT_POSITIVE, loss=np.full(800, np.nan), **nothing)
    fit = replace(fit, scales=(*fit.scales[:-1], last))
    figure = build_overtraining_forecast(fit)
    *_, (_, circles, curve, marker, connector, label) = stops(figure)
    assert label == "10× overtrained<br>compute to match not known<br>parabolas: curvature not positive"
    assert len(circles) == len(BUDGETS)
    assert not any(part[axis] for part in (curve, marker, connector) for axis in ("x", "y"))
    low, high = figure["frames"][-1]["layout"]["xaxis"]["range"]
    assert low < np.log10(optimal_tokens(1e23)) < high
    alone = build_overtraining_forecast(replace(fit, scales=(last,)))
    assert np.isfinite(alone["layout"]["xaxis"]["range"]).all()


def test_few_draws_are_said_to_be_why_no_seed_is_drawn():
    seeds = seed_fit()
    few = replace(seeds, bootstrap=replace(seeds.bootstrap, status=Status.BEYOND_DRAWS))
    with pytest.raises(NothingToDraw, match="too few draws for an interval: take more draws"):
        build_lucky_seeds(few)


def test_the_token_axis_holds_the_compute_to_match_marker():
    for frame in build_overtraining_forecast(overtraining())["frames"]:
        low, high = frame["layout"]["xaxis"]["range"]
        assert low < np.log10(frame["data"][-2]["x"][0]) < high


def test_one_sided_parabolas_meet_at_the_optimum():
    fit = overtraining().parabolas[0]
    curve = build_overtraining_forecast(overtraining())["data"][1]
    x = np.log10(curve["x"])
    assert x[0] == pytest.approx(np.log10(fit.tokens.min()) - 0.02)
    side = np.where(x < fit.log_tokens_star, fit.curvature_under, fit.curvature_over)
    np.testing.assert_allclose(curve["y"], fit.loss_star + side * (x - fit.log_tokens_star) ** 2, rtol=1e-12)


@pytest.mark.parametrize(
    ("build", "what"),
    [
        (lambda: build_isoflop_parabolas(None), "3 IsoFLOP runs"),
        (lambda: build_isoflop_parabolas(IsoflopFit(())), "3 IsoFLOP runs"),
        (
            lambda: build_isoflop_parabolas(IsoflopFit((parabola(ADAMH_SUITE, 3e18, Status.TOO_FEW_POINTS),))),
            "3 IsoFLOP runs",
        ),
        (lambda: build_scaling_law_asymptote(None, {}, None), "under 3 sweep runs"),
        (lambda: build_ladder(isoflop([ADAMH_SUITE]), laws(), None, ADAMC_SUITE), "Cautious AdamC"),
        (lambda: build_ladder(None, {}, None, ADAMH_SUITE), "AdamH"),
        (lambda: build_lucky_seeds(None), "finished held-out runs"),
        (lambda: build_lucky_seeds(replace(seed_fit(), budgets=())), "finished held-out runs"),
        (
            lambda: build_lucky_seeds(replace(seed_fit(), law=law(ADAMH_SUITE, Status.TOO_FEW_POINTS))),
            "4 or more budgets",
        ),
        (lambda: build_overtraining_forecast(None), "2 or more budgets"),
        (
            lambda: build_overtraining_forecast(
                replace(overtraining(), law=law(ADAMH_SUITE, Status.NO_GRID_VALUE_FITS))
            ),
            "scaling law",
        ),
    ],
)
def test_a_figure_without_data_says_what_is_missing(build, what):
    with pytest.raises(NothingToDraw, match=what):
        build()
