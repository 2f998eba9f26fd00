"""The law's profile intervals as library and command, and their figure."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

from delphi_jax.answers import draw_answer
from delphi_jax.cli import main
from delphi_jax.export import to_plotly
from delphi_jax.fit.law import fit_law
from delphi_jax.fit.law_intervals import law_study, profile_intervals
from delphi_jax.plots.drawers import NothingToDraw
from delphi_jax.plots.law_profile import build_law_profile, build_law_profile_mobile
from delphi_jax.results.law import Objective, PinnedAsymptote
from delphi_jax.status import Bound, Status
from tests.delphi import ADAMC_SUITE, ADAMH_SUITE, LOSS

DATA = Path(__file__).parents[1] / "data"
BUDGETS = np.array([3e18, 9e18, 2e19, 3e19, 9e19, 2e20, 3e20])
TARGETS = np.array([1e21, 1e23])


def noisy(L_inf: float, seed: int, noise: float = 4e-4, budgets: np.ndarray = BUDGETS) -> tuple[np.ndarray, np.ndarray]:
    gap = 90.0 * budgets**-0.09
    return budgets, L_inf + gap * np.exp(noise * np.random.default_rng(seed).standard_normal(len(budgets)))


SERIES = {"one": noisy(1.3, 1), "two": noisy(1.5, 2), "on zero": noisy(0.0, 3, noise=2e-2)}


def profile_score(compute: np.ndarray, loss: np.ndarray, L_inf: float) -> float:
    """Mean squared residual of the best line through log(L - L_inf), by NumPy."""
    x, y = np.log(compute), np.log(loss - L_inf)
    return float(np.mean((y - np.polyval(np.polyfit(x, y, 1), x)) ** 2))


def interval_of_asymptote(compute: np.ndarray, loss: np.ndarray, level: float) -> tuple[float, float, float]:
    """(optimum, low, high) by SciPy."""
    best = optimize.minimize_scalar(
        lambda L: profile_score(compute, loss, L),
        bounds=(0, loss.min() - 1e-9),
        method="bounded",
        options={"xatol": 1e-12},
    )
    dof = len(loss) - 3
    limit = best.fun * (1 + stats.f.ppf(level, 1, dof) / dof)

    def over(L: float) -> float:
        return profile_score(compute, loss, L) - limit

    return best.x, optimize.brentq(over, 0, best.x), optimize.brentq(over, best.x, loss.min() - 1e-9)


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("name", ["one", "two"])
def test_the_asymptote_and_its_interval_are_those_of_scipy(name: str, level: float) -> None:
    found = profile_intervals(SERIES, TARGETS, level=level)[name]
    best, low, high = interval_of_asymptote(*SERIES[name], level)
    np.testing.assert_allclose([found.law.L_inf, found.low[0], found.high[0]], [best, low, high], rtol=1e-5)
    assert found.status is Status.FITTED
    assert found.low_bound == found.high_bound == (Bound.NONE,) * 4


def test_a_pinned_law_has_the_interval_of_linear_regression() -> None:
    compute, loss = SERIES["one"]
    pinned = PinnedAsymptote(1.25, LOSS)
    found = profile_intervals({"one": (compute, loss)}, TARGETS, asymptote=pinned, metric=LOSS)["one"]
    line = stats.linregress(np.log(compute), np.log(loss - 1.25))
    half = stats.t.ppf(0.975, len(loss) - 2) * line.stderr
    np.testing.assert_allclose([found.low[1], found.high[1]], [-line.slope - half, -line.slope + half], rtol=1e-8)
    x = np.log(compute)
    error = np.sqrt(np.sum((np.log(loss - 1.25) - line.intercept - line.slope * x) ** 2) / (len(x) - 2))
    for place, target in enumerate(np.log(TARGETS)):
        width = error * np.sqrt(1 / len(x) + (target - x.mean()) ** 2 / np.sum((x - x.mean()) ** 2))
        ends = line.intercept + line.slope * target + np.array([-1, 1]) * stats.t.ppf(0.975, len(x) - 2) * width
        np.testing.assert_allclose([found.low[2 + place], found.high[2 + place]], 1.25 + np.exp(ends), rtol=1e-8)


def test_one_series_shares_its_asymptote_with_itself() -> None:
    series = {"one": SERIES["one"]}
    free, shared = (profile_intervals(series, TARGETS, asymptote=which)["one"] for which in ("free", "shared"))
    np.testing.assert_allclose(shared.estimates, free.estimates, rtol=1e-8)
    np.testing.assert_allclose(shared.low, free.low, rtol=1e-6)
    np.testing.assert_allclose(shared.high, free.high, rtol=1e-6)


def test_a_huber_function_without_outliers_is_the_square() -> None:
    wide = Objective("huber", "log", delta=1.0)
    squared, huber = (profile_intervals(SERIES, TARGETS, objective=each)["two"] for each in (None, wide))
    np.testing.assert_allclose(huber.estimates, squared.estimates, rtol=1e-6)
    np.testing.assert_allclose([huber.low, huber.high], [squared.low, squared.high], rtol=1e-5)


def test_an_end_on_a_bound_names_it_in_table_notices_and_figure() -> None:
    study = law_study(SERIES, TARGETS, metric=LOSS)
    found = next(each for each in study.intervals if each.law.series == "on zero")
    assert found.low[0] == 0.0
    assert found.low_bound[0] is Bound.NO_ASYMPTOTE
    assert found.rows()[0]["low end cut by"] == Bound.NO_ASYMPTOTE.label
    assert any(
        "on zero are cut by bounds" in sentence and "L_inf by L_inf = 0" in sentence for sentence in study.notices()
    )
    told = next(each for each in study.to_dict()["intervals"] if each["law"]["series"] == "on zero")
    assert told["low_bound"] == [bound.label for bound in found.low_bound]
    hovers = [
        trace["hovertemplate"] for trace in build_law_profile(study)["data"] if "on zero" in trace["hovertemplate"]
    ]
    assert any("cut by L_inf = 0" in hover for hover in hovers)


def test_too_few_budgets_have_a_status_and_no_interval() -> None:
    compute, loss = SERIES["one"]
    found = profile_intervals({"three": (compute[:3], loss[:3]), "none": ([], [])}, TARGETS)
    assert found["three"].status is Status.TOO_FEW_POINTS
    assert np.isnan(found["three"].low).all() and np.isnan(found["three"].high).all()
    assert found["none"].status is Status.NO_DATA


def test_a_pinned_asymptote_above_a_loss_is_a_status_and_one_of_another_metric_an_error() -> None:
    found = profile_intervals(SERIES, TARGETS, asymptote=PinnedAsymptote(3.4, LOSS), metric=LOSS)["one"]
    assert found.status is Status.ASYMPTOTE_ABOVE_LOSS
    assert np.isnan(found.estimates[1:]).all() and np.isnan(found.low[1:]).all()
    with pytest.raises(ValueError, match="belongs to 'bits per byte', the series to 'Paloma macro loss'"):
        profile_intervals(SERIES, TARGETS, asymptote=PinnedAsymptote(1.0, "bits per byte"), metric=LOSS)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ({"level": 1.0}, "level must lie between 0 and 1"),
        ({"targets": [1e21, -1.0]}, "targets must be finite positive"),
        ({"asymptote": "shared", "objective": Objective("squared", "loss")}, "residuals of log"),
    ],
)
def test_bad_arguments(argument: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        profile_intervals(SERIES, **argument)


def test_the_profile_is_that_of_pinned_regressions_and_touches_one_at_the_optimum() -> None:
    study = law_study({"one": SERIES["one"]}, TARGETS)
    profile, law = study.profiles["one"], study.intervals[0].law
    expected = [profile_score(*SERIES["one"], L) for L in profile.L_inf]
    np.testing.assert_allclose(profile.ratio * law.score, expected, rtol=1e-7)
    assert profile.ratio.min() >= 1.0
    np.testing.assert_allclose(profile.limit, 1 + stats.f.ppf(0.95, 1, 4) / 4, rtol=1e-10)


def test_figures_are_stacked_alike_and_accepted_by_plotly() -> None:
    study = law_study(SERIES, TARGETS, metric=LOSS)
    drawing = draw_answer(study)
    assert list(drawing.documents) == ["law-profile", "law-profile-mobile"]
    assert not drawing.failed
    for document in drawing.documents.values():
        to_plotly(document)
    wide = drawing.documents["law-profile"]
    assert build_law_profile_mobile(wide)["data"] is wide["data"]
    bars = [trace for trace in wide["data"] if trace["mode"] == "lines+markers"]
    for bar, each in zip(bars, study.intervals, strict=True):
        assert bar["x"] == [each.low[0], each.high[0]]
    with pytest.raises(NothingToDraw, match="pinned"):
        build_law_profile(replace(study, profiles={}))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("programs") / "cache")


def run(*arguments: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as text:
        assert main(["law", "--data", str(DATA), *arguments]) == 0
    return text.getvalue()


def test_command_prints_tables_and_one_json_object(cache: str, tmp_path: Path) -> None:
    text = run("--cache-dir", cache)
    for words in (ADAMH_SUITE, ADAMC_SUITE, "optimum", "grid", "loss at 1e+23 FLOPs", "Simulated data"):
        assert words in text
    document = json.loads(run("--cache-dir", cache, "--json", "--out", str(tmp_path)))
    assert set(document) == {"law", "simulated", "skipped", "missing", "notices"}
    assert set(document["law"]) >= {"intervals", "reference", "profiles"}
    assert {part["table"] for part in document["skipped"]} == {"runs"} and document["missing"] == []
    intervals = document["law"]["intervals"]
    assert [each["law"]["series"] for each in intervals] == [ADAMH_SUITE, ADAMC_SUITE]
    for each in intervals:
        law = each["law"]
        again = fit_law(law["compute"], law["loss"], method="optimum")
        np.testing.assert_allclose([law["L_inf"], law["alpha"]], [again.L_inf, again.alpha], rtol=1e-7)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["law-profile-mobile.json", "law-profile.json"]


def test_compiled_for_the_command_the_numbers_are_those_of_the_library(cache: str) -> None:
    """Unoptimised programs round otherwise: a search must not depend on that."""
    document = json.loads(run("--cache-dir", cache, "--json", "--loss-function", "huber", "--residual", "loss"))
    for each in document["law"]["intervals"]:
        law = each["law"]
        compute, loss = np.array(law["compute"]), np.array(law["loss"])
        residual = np.abs(loss - law["L_inf"] - law["A"] * compute ** -law["alpha"])
        reached = np.mean(np.where(residual <= 1e-3, residual**2 / 2, 1e-3 * (residual - 5e-4)))
        np.testing.assert_allclose(law["score"], reached, rtol=1e-6)
        assert reached <= least_huber(compute, loss) * (1 + 1e-9)


def least_huber(compute: np.ndarray, loss: np.ndarray, delta: float = 1e-3) -> float:
    """The least mean Huber function of the loss found by lines through two points at many exponents, polished."""
    x = np.log(compute) - np.log(compute).mean()

    def score(theta: np.ndarray) -> float:
        residual = np.abs(loss - theta[0] - theta[1] * np.exp(-theta[2] * x))
        return float(np.mean(np.where(residual <= delta, residual**2 / 2, delta * (residual - delta / 2))))

    starts = []
    for alpha in np.geomspace(0.02, 1.0, 200):
        power = np.exp(-alpha * x)
        for i in range(len(x)):
            for j in range(i):
                A = (loss[i] - loss[j]) / (power[i] - power[j])
                if A > 0 and loss[i] - A * power[i] >= 0:
                    starts.append(np.array([loss[i] - A * power[i], A, alpha]))
    starts = sorted(starts, key=score)[:3]
    return min(
        optimize.minimize(
            score, start, method="Nelder-Mead", options={"xatol": 1e-12, "fatol": 1e-18, "maxiter": 4000}
        ).fun
        for start in starts
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "nobody"], "there is no suite 'nobody'; the suites are"),
        (["--asymptote", "1.3", "--metric", "bpb"], "belongs to 'bpb'"),
        (["--asymptote", "shared", "--residual", "loss"], "residuals of log(L - L_inf) only"),
    ],
)
def test_bad_input_is_said(arguments: list[str], words: str, cache: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["law", "--data", str(DATA), "--cache-dir", cache, *arguments]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("argument", [["--asymptote", "none"], ["--level", "95"], ["--delta", "-1"]])
def test_bad_usage(argument: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["law", *argument]) == 2
    assert argument[0] in capsys.readouterr().err
