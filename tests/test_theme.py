"""Themes against published colour science, and figures in them: every colour has a role, the brand stays as it is."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from delphi_jax import StudyFit, draw_figures, write_figures
from delphi_jax.cli import main
from delphi_jax.export import document_json, page_html, to_plotly
from delphi_jax.plots.theme import (
    BRAND,
    THEMES,
    TRANSPARENT,
    Theme,
    color_map,
    recolor,
    rgba,
    template,
    theme_from,
)
from delphi_jax.plots.vision import (
    DEFICIENCIES,
    LEAST_CONTRAST,
    LEAST_DIFFERENCE,
    color_conflicts,
    color_difference,
    contrast,
    luminance,
    seen_lab,
)

COLOR = re.compile(r"#[0-9A-Fa-f]{3,8}\b|(?:rgb|hsl)a?\([^)]*\)")
NAMED = {"black", "white", "red", "green", "blue", "grey", "gray", "orange", "yellow"}

# Sharma, Wu and Dalal (2005), table 1: two CIELAB colours and their CIEDE2000.
SHARMA = """
50.0000 2.6772 -79.7751 50.0000 0.0000 -82.7485 2.0425
50.0000 3.1571 -77.2803 50.0000 0.0000 -82.7485 2.8615
50.0000 2.8361 -74.0200 50.0000 0.0000 -82.7485 3.4412
50.0000 -1.3802 -84.2814 50.0000 0.0000 -82.7485 1.0000
50.0000 -1.1848 -84.8006 50.0000 0.0000 -82.7485 1.0000
50.0000 -0.9009 -85.5211 50.0000 0.0000 -82.7485 1.0000
50.0000 0.0000 0.0000 50.0000 -1.0000 2.0000 2.3669
50.0000 -1.0000 2.0000 50.0000 0.0000 0.0000 2.3669
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0009 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0010 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0011 7.2195
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0012 7.2195
50.0000 -0.0010 2.4900 50.0000 0.0009 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0010 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0011 -2.4900 4.7461
50.0000 2.5000 0.0000 50.0000 0.0000 -2.5000 4.3065
50.0000 2.5000 0.0000 73.0000 25.0000 -18.0000 27.1492
50.0000 2.5000 0.0000 61.0000 -5.0000 29.0000 22.8977
50.0000 2.5000 0.0000 56.0000 -27.0000 -3.0000 31.9030
50.0000 2.5000 0.0000 58.0000 24.0000 15.0000 19.4535
50.0000 2.5000 0.0000 50.0000 3.1736 0.5854 1.0000
50.0000 2.5000 0.0000 50.0000 3.2972 0.0000 1.0000
50.0000 2.5000 0.0000 50.0000 1.8634 0.5757 1.0000
50.0000 2.5000 0.0000 50.0000 3.2592 0.3350 1.0000
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
"""


def suites(theme: Theme, n: int = 8) -> dict[str, str]:
    return {f"suite {place}": color for place, color in enumerate(theme.cycle[:n])}


@pytest.fixture(scope="module")
def documents(golden_fit: StudyFit) -> dict[str, Any]:
    """The study's figures; those of the answers are walked in the tests of the report."""
    return draw_figures(golden_fit).documents


def colors_of(node: Any, key: str = "") -> list[tuple[str, str]]:
    """(key, colour) of every text of a document that is a colour."""
    if isinstance(node, dict):
        return [found for name, value in node.items() for found in colors_of(value, name)]
    if isinstance(node, (list, tuple)):
        return [found for value in node for found in colors_of(value, key)]
    if isinstance(node, str) and (COLOR.search(node) or ("color" in key and node in NAMED)):
        return [(key, node)]
    return []


@pytest.mark.parametrize("line", SHARMA.strip().splitlines())
def test_differences_equal_the_published_ones(line: str) -> None:
    numbers = np.array(line.split(), dtype=float)
    assert color_difference(numbers[:3], numbers[3:6]) == pytest.approx(numbers[6], abs=5e-5)
    assert color_difference(numbers[3:6], numbers[:3]) == pytest.approx(numbers[6], abs=5e-5)


def test_differences_of_arrays_are_those_of_their_rows() -> None:
    pairs = np.array([line.split() for line in SHARMA.strip().splitlines()], dtype=float)
    together = color_difference(pairs[:, :3], pairs[:, 3:6])
    np.testing.assert_allclose(together, pairs[:, 6], atol=5e-5)


def test_contrasts_are_those_of_the_guidelines() -> None:
    # Black on white is 21:1 by definition; #777777 and #767676 on white are the best known pair about 4.5.
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21.0)
    assert contrast("#FFFFFF", "#FFFFFF") == 1.0
    assert contrast("#767676", "#FFFFFF") == contrast("#FFFFFF", "#767676") == pytest.approx(4.54, abs=0.005)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.005)
    assert [luminance(color) for color in ("#FF0000", "#00FF00", "#0000FF")] == pytest.approx([0.2126, 0.7152, 0.0722])


def test_lab_is_that_of_the_standard_primaries() -> None:
    # CIELAB of sRGB's corners under D65, as tabulated by Lindbloom.
    assert seen_lab("#FFFFFF") == pytest.approx([100, 0, 0], abs=0.01)
    assert seen_lab("#000000") == pytest.approx([0, 0, 0], abs=1e-9)
    assert seen_lab("#FF0000") == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    assert seen_lab("#00FF00") == pytest.approx([87.73, -86.18, 83.18], abs=0.02)
    assert seen_lab("#0000FF") == pytest.approx([32.30, 79.19, -107.86], abs=0.02)


@pytest.mark.parametrize("kind", DEFICIENCIES)
def test_deficiencies_keep_grey_and_lose_their_own_axis(kind: str) -> None:
    np.testing.assert_allclose(DEFICIENCIES[kind].sum(axis=1), 1.0, atol=2e-6)
    for grey in ("#000000", "#808080", "#FFFFFF"):
        np.testing.assert_allclose(seen_lab(grey, kind), seen_lab(grey), atol=1e-3)
    # A dichromat's colours fill a plane: the matrix has one small singular value.
    values = np.linalg.svd(DEFICIENCIES[kind], compute_uv=False)
    assert values[2] < 0.13 * values[0]


def test_red_and_green_are_confused_by_those_who_lack_a_cone_for_them() -> None:
    red, green = "#B5563C", "#7A7A2E"
    said = color_conflicts({"first": red, "second": green}, THEMES["light"])
    assert len(said) == 1 and said[0].startswith("first (#B5563C) and second (#7A7A2E) look alike under ")
    assert "deuteranopia" in said[0] and "normal" not in said[0] and "tritanopia" not in said[0]


def test_a_colour_that_fades_into_the_page_is_said_by_name() -> None:
    (said,) = color_conflicts({"pale": "#EEE8C0"}, THEMES["light"])
    assert said.startswith("pale (#EEE8C0) has a contrast of 1.") and "at least 3" in said
    assert color_conflicts({"alone": "#3964A2"}, THEMES["light"]) == []
    assert "normal vision 0.0" in color_conflicts({"a": "#3964A2", "b": "#3964A2"}, THEMES["light"])[0]


@pytest.mark.parametrize("name", ["light", "dark"])
def test_the_neutral_themes_pass_for_all_eight_colours(name: str) -> None:
    theme = THEMES[name]
    assert color_conflicts(suites(theme), theme) == []
    assert contrast(theme.ink, theme.page) > 7
    assert min(contrast(color, theme.page) for color in (theme.external, theme.leader)) > LEAST_CONTRAST
    for one, other in combinations(theme.cycle, 2):
        for kind in (None, *DEFICIENCIES):
            assert color_difference(seen_lab(one, kind), seen_lab(other, kind)) >= LEAST_DIFFERENCE


def test_the_brand_passes_for_its_first_two_suites_but_for_contrast() -> None:
    said = color_conflicts(suites(BRAND, 2), BRAND)
    assert len(said) == 1 and "contrast of 2.5" in said[0]
    assert any("look alike" in sentence for sentence in color_conflicts(suites(BRAND, 4), BRAND))


def test_themes_say_whether_they_are_dark() -> None:
    assert [name for name, theme in THEMES.items() if theme.dark] == ["dark"]
    assert [theme.name for theme in THEMES.values()] == list(THEMES)


def test_every_colour_of_every_figure_has_a_role(documents: dict[str, Any]) -> None:
    known = {color: color for color in color_map(BRAND)}
    assert len(documents) == 12
    for name, document in documents.items():
        found = colors_of(document)
        assert found, name
        for key, color in found:
            assert "color" in key, (name, key, color)
            assert color == TRANSPARENT or opaque(color) in known, (name, key, color)


def opaque(color: str) -> str:
    parts = re.fullmatch(r"rgba\((\d+),(\d+),(\d+),[0-9.]+\)", color)
    return color if parts is None else "#" + "".join(f"{int(part):02X}" for part in parts.groups())


def test_the_brand_is_the_identity(documents: dict[str, Any]) -> None:
    assert color_map(BRAND) == {color: color for color in color_map(BRAND)}
    for document in documents.values():
        assert recolor(document, BRAND) is document
        twin = Theme("twin", BRAND.cycle, BRAND.ink, BRAND.page, BRAND.external, BRAND.leader)
        assert document_json(recolor(document, twin)) == document_json(document)


@pytest.mark.parametrize("name", ["light", "dark"])
def test_recoloured_figures_keep_everything_but_their_colours(documents: dict[str, Any], name: str) -> None:
    theme = THEMES[name]
    new = set(color_map(theme).values())
    for document in documents.values():
        before, after = colors_of(document), colors_of(recolor(document, theme))
        assert len(before) == len(after)
        for (key, old), (same_key, color) in zip(before, after, strict=True):
            assert key == same_key
            assert color == TRANSPARENT or (opaque(color) in new and color_map(theme)[opaque(old)] == opaque(color))
            assert old.count(",") < 3 or old.rsplit(",", 1)[1] == color.rsplit(",", 1)[1]
        blank = r'"(#[0-9A-F]{6}|rgba\([^)]*\))"'
        one, other = (document_json(each).decode() for each in (document, recolor(document, theme)))
        assert re.sub(blank, "", one) == re.sub(blank, "", other)


def test_dark_figures_have_no_dark_ink(documents: dict[str, Any]) -> None:
    dark = THEMES["dark"]
    for name, document in documents.items():
        for key, color in colors_of(recolor(document, dark)):
            if color != TRANSPARENT and opaque(color) != dark.page:
                assert contrast(opaque(color), dark.page) >= LEAST_CONTRAST, (name, key, color)
    for _, color in colors_of(template(dark)):
        assert color == TRANSPARENT or contrast(opaque(color), dark.page) >= LEAST_CONTRAST


def test_a_name_that_looks_like_a_colour_stays() -> None:
    document = {
        "data": [{"name": "#385C8F", "text": ["#385C8F"], "marker": {"color": ["#385C8F", "#385C8F"]}}],
        "layout": {"coloraxis": {"colorbar": {"title": {"text": "#385C8F"}}, "colorscale": [[0.0, "#385C8F"]]}},
        "frames": [{"data": [{"line": {"color": rgba("#385C8F", 0.5)}, "marker.line.color": "#385C8F"}]}],
    }
    blue = THEMES["dark"].accent
    assert recolor(document, THEMES["dark"]) == {
        "data": [{"name": "#385C8F", "text": ["#385C8F"], "marker": {"color": [blue, blue]}}],
        "layout": {"coloraxis": {"colorbar": {"title": {"text": "#385C8F"}}, "colorscale": [[0.0, blue]]}},
        "frames": [{"data": [{"line": {"color": rgba(blue, 0.5)}, "marker.line.color": blue}]}],
    }


def test_templates_are_read_by_plotly(documents: dict[str, Any]) -> None:
    for theme in THEMES.values():
        figure = to_plotly(documents["lucky-seeds"] | {"layout": {"template": template(theme)}})
        assert figure.layout.template.layout.colorway == theme.cycle


def test_files_are_written_in_the_theme(documents: dict[str, Any], tmp_path: Any) -> None:
    document = documents["lucky-seeds"]
    for theme in (None, BRAND, THEMES["dark"]):
        given = () if theme is None else (theme,)
        folder = tmp_path / (theme.name if theme else "default")
        assert not write_figures({"lucky-seeds": document}, folder, ["json", "html"], *given).unwritten
        assert (folder / "lucky-seeds.html").read_bytes() == page_html("lucky-seeds", document, theme or BRAND)
        written = (folder / "lucky-seeds.json").read_bytes()
        assert written == document_json(recolor(document, theme or BRAND))
    assert (tmp_path / "default" / "lucky-seeds.json").read_bytes() == document_json(document)
    page = (tmp_path / "dark" / "lucky-seeds.html").read_text()
    assert f"background:{THEMES['dark'].page};color:{THEMES['dark'].ink}" in page


def test_the_command_draws_in_the_theme(tmp_path: Any, golden_dir: Any, capsys: Any) -> None:
    data = str(golden_dir / "data")
    for theme in ("brand", "dark"):
        out = str(tmp_path / theme)
        arguments = ["figures", "--data", data, "--only", "lucky-seeds", "--out", out, "--theme", theme, "--no-cache"]
        assert main(arguments) == 0
    read = [json.loads((tmp_path / theme / "lucky-seeds.json").read_text()) for theme in ("brand", "dark")]
    assert read[0] != read[1]
    assert json.loads(json.dumps(recolor(read[0], THEMES["dark"]))) == read[1]
    assert main(["figures", "--theme", "mauve"]) == 2
    assert "brand, light, dark" in capsys.readouterr().err.replace("'", "")


def test_an_own_theme_takes_the_rest_from_its_base() -> None:
    assert theme_from({}) == Theme(**{**vars(THEMES["light"]), "name": "own"})
    own = theme_from({"base": "dark", "ink": "#ffffff", "font": "Georgia, serif"})
    assert own.ink == "#FFFFFF" and own.font == "Georgia, serif" and own.cycle == THEMES["dark"].cycle and own.dark
    colors = [f"#{place}0{place}0{place}0" for place in range(8)]
    assert theme_from({"cycle": colors, "name": "greys"}).cycle == tuple(colors)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"paper": "#FFFFFF"}, "unknown key 'paper', expected some of base, name, cycle, ink, page"),
        ({"base": "sepia"}, "base must be one of brand, light, dark, got 'sepia'"),
        ({"base": ["dark"]}, "base must be one of brand, light, dark"),
        ({"ink": "black"}, "ink must be a colour such as \"#385C8F\", got 'black'"),
        ({"ink": "#FFF"}, "ink must be a colour"),
        ({"page": 12}, "page must be a colour"),
        ({"cycle": "#385C8F"}, "cycle must be a list of 8 colours, got a str"),
        ({"cycle": ["#385C8F"]}, "cycle must be a list of 8 colours, got a list of 1"),
        ({"cycle": [*BRAND.cycle[:7], "teal"]}, r"cycle\[7\] must be a colour"),
        ({"cycle": [*BRAND.cycle[:7], "#385c8f"]}, "#385C8F stands in it twice"),
        ({"font": ""}, "font must be a text"),
        ({"font": "x}</style><script>"}, "font must be names of fonts"),
        ({"ink": "#777777", "page": "#888888"}, "has a contrast of 1.3, expected at least 4.5"),
    ],
)
def test_an_own_theme_that_cannot_be_says_which_key_and_what_was_expected(given: dict, said: str) -> None:
    with pytest.raises(ValueError, match=f"theme: .*{said}"):
        theme_from(given)
