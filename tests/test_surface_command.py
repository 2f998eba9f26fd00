"""``delphi-jax surface`` and its figure."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from delphi_jax.answers import draw_answer
from delphi_jax.cli import main
from delphi_jax.export import to_plotly
from delphi_jax.fit.surface_study import fit_study_surfaces
from delphi_jax.io import load_study
from delphi_jax.plots.drawers import NothingToDraw
from delphi_jax.plots.surface import build_loss_surface, build_loss_surface_mobile
from delphi_jax.results.surface import SurfaceBootstrap, SurfaceFit, SurfaceObjective, SurfaceStudy
from delphi_jax.status import Status
from tests.delphi import ADAMC_SUITE, ADAMH_SUITE

DATA = Path(__file__).parents[1] / "data"
TRUTH = {"E": 1.7, "A": 400.0, "B": 410.0, "a": 0.34, "b": 0.28}


def surface(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    return TRUTH["E"] + TRUTH["A"] / n ** TRUTH["a"] + TRUTH["B"] / d ** TRUTH["b"]


def study(*statuses: Status) -> SurfaceStudy:
    """A surface per status, with runs a known percentage off it."""
    n, d = np.array([1e8, 3e8, 1e9, 3e9, 1e10, 2e8]), np.array([3e10, 1e10, 2e10, 6e10, 1e10, 9e9])
    off = np.array([0.0, 1.0, -2.0, 0.5, 0.0, 0.25])
    loss = surface(n, d) * (1 + off / 100)
    fits = []
    for place, status in enumerate(statuses):
        numbers = TRUTH if status.usable else {}
        fits.append(SurfaceFit(f"suite <{place}>", n, d, loss, SurfaceObjective(), status, **numbers))
    nothing = np.empty(0)
    return SurfaceStudy(
        tuple(
            SurfaceBootstrap(fit, fit.status, nothing, *(nothing,) * 7, {}, nothing, nothing, (), (2.5, 50.0, 97.5), 0)
            for fit in fits
        )
    )


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict, Path]:
    """Tables, JSON and figures of the bundled study."""
    import contextlib
    import io

    out = tmp_path_factory.mktemp("surface")
    cache = str(out / "cache")
    asked = ["surface", "--data", str(DATA), "--draws", "40", "--at", "1e9", "2e10", "--cache-dir", cache]
    texts = []
    for extra in ([], ["--json", "--out", str(out)]):
        with contextlib.redirect_stdout(io.StringIO()) as text:
            assert main([*asked, *extra]) == 0
        texts.append(text.getvalue())
    return texts[0], json.loads(texts[1]), out


def test_tables_name_every_quantity_its_draws_and_the_provenance(printed: tuple[str, dict, Path]) -> None:
    text, said, _ = printed
    assert {part["table"] for part in said["skipped"]} == {"runs"} and said["missing"] == []
    for words in (
        ADAMH_SUITE,
        ADAMC_SUITE,
        "b/(a+b)",
        "loss at N=1e+09, D=2e+10",
        "draws on a bound",
        "Simulated data",
    ):
        assert words in text


def test_json_holds_the_numbers_of_the_library(printed: tuple[str, dict, Path]) -> None:
    _, document, out = printed
    found = fit_study_surfaces(load_study(DATA, tables={"runs"}).runs, at=[(1e9, 2e10)], draws=40)
    assert document["simulated"] is True
    for given, each in zip(document["surfaces"], found.bootstraps, strict=True):
        assert given["point"]["series"] == each.point.series
        np.testing.assert_allclose(given["point"]["E"], each.point.E, rtol=1e-7)
        np.testing.assert_allclose(given["a"], each.a, rtol=1e-5)
        low, _, high = (given["loss_intervals"][0][end] for end in ("low", "median", "high"))
        assert low < each.point.loss_at(1e9, 2e10) < high
    assert sorted(path.name for path in out.glob("*.json")) == ["loss-surface-mobile.json", "loss-surface.json"]


def test_a_suite_without_runs_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["surface", "--data", str(DATA), "--suite", "nobody", "--no-cache"]) == 1
    assert "no IsoFLOP runs of nobody; the suites that have some are Delphi" in capsys.readouterr().err


@pytest.mark.parametrize("argument", [["--delta", "0"], ["--at", "1e9", "-1"], ["--loss-function", "cubic"]])
def test_bad_arguments_are_bad_usage(argument: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["surface", *argument]) == 2
    assert argument[0] in capsys.readouterr().err


def test_contours_runs_and_path_are_those_of_the_surface() -> None:
    figure = build_loss_surface(study(Status.FITTED))
    contour, compute, path, runs = figure["data"]
    np.testing.assert_allclose(contour["z"], surface(contour["x"][None, :], contour["y"][:, None]), rtol=1e-12)
    np.testing.assert_allclose(runs["marker"]["color"], [0.0, 1.0, -2.0, 0.5, 0.0, 0.25], atol=1e-10)
    drawn = np.isfinite(compute["x"])
    np.testing.assert_allclose(6 * (compute["x"] * compute["y"])[drawn], compute["customdata"][drawn], rtol=1e-12)
    assert set(np.log10(compute["customdata"]).round(9)) == {19.0, 20.0, 21.0}
    scale = figure["layout"]["coloraxis"]
    assert (scale["cmin"], scale["cmax"]) == pytest.approx((-2.0, 2.0))
    # Moving along a hyperbola of equal N*D away from the path raises the loss on both sides.
    best = surface(path["x"], path["y"])
    for factor in (0.99, 1.01):
        assert np.all(surface(path["x"] * factor, path["y"] / factor) > best)
    low, high = (10.0 ** np.array(figure["layout"]["yaxis"]["range"])).tolist()
    assert np.all((path["y"] >= low * (1 - 1e-9)) & (path["y"] <= high * (1 + 1e-9)))


def test_a_surface_on_a_bound_says_so_and_one_without_a_term_has_no_path() -> None:
    figure = build_loss_surface(study(Status.FITTED, Status.BOUND_HIT))
    titles = [title["text"] for title in figure["layout"]["annotations"]]
    assert titles == ["suite &lt;0&gt;", f"suite &lt;1&gt;, surface: {Status.BOUND_HIT.label}"]
    one = study(Status.BOUND_HIT).bootstraps[0]
    flat = SurfaceStudy((replace(one, point=replace(one.point, B=0.0, b=np.nan)),))
    assert [trace.get("name") for trace in build_loss_surface(flat)["data"]] == [
        None,
        "equal compute (6ND)",
        "IsoFLOP runs",
    ]
    hovers = [trace["hovertemplate"] for trace in figure["data"][4:] if trace.get("name") != "equal compute (6ND)"]
    assert len(hovers) == 3 and all(Status.BOUND_HIT.label in hover for hover in hovers)


def test_a_suite_without_a_surface_is_left_out_and_all_of_them_are_said() -> None:
    figure = build_loss_surface(study(Status.TOO_FEW_POINTS, Status.FITTED))
    assert len(figure["layout"]["annotations"]) == 1
    with pytest.raises(NothingToDraw, match="suite <0>: too few points"):
        build_loss_surface(study(Status.TOO_FEW_POINTS))


def test_the_mobile_figure_is_the_same_picture_stacked() -> None:
    wide = build_loss_surface(study(Status.FITTED, Status.FITTED))
    mobile = build_loss_surface_mobile(wide)
    assert mobile["data"] is wide["data"]
    layout = mobile["layout"]
    assert layout["xaxis"]["domain"] == layout["xaxis2"]["domain"] == [0.0, 1.0]
    assert layout["yaxis"]["domain"][0] > layout["yaxis2"]["domain"][1]


def test_plotly_accepts_both() -> None:
    drawing = draw_answer(study(Status.FITTED, Status.BOUND_HIT))
    assert list(drawing.documents) == ["loss-surface", "loss-surface-mobile"]
    assert not drawing.failed
    for document in drawing.documents.values():
        to_plotly(document)
