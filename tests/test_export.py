"""Figure documents into files: what JSON holds, pages that work offline, files that appear whole."""

import base64
import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from delphi_jax import export
from delphi_jax.export import document_json, page_html, to_plotly, write_figures
from delphi_jax.status import InputError

NASTY = "</script><script>window.broken = 1</script><!-- & \u2028"


def picture(name="runs", **layout):
    trace = {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": np.array([1.0, 2.0, 3.0]),
        "y": np.array([3.0, 2.5, 2.25]),
    }
    return {"data": [trace], "layout": {"title": {"text": name}, **layout}}


def decoded(typed):
    array = np.frombuffer(base64.b64decode(typed["bdata"]), dtype="<" + typed["dtype"])
    return array.reshape([int(n) for n in typed["shape"].split(",")]) if "shape" in typed else array


def written(array):
    return json.loads(document_json({"data": [{"x": array}], "layout": {}}))["data"][0]["x"]


@given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=2), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_finite_floats_survive_to_the_last_bit(array):
    back = decoded(written(array))
    assert back.dtype == np.float64 and back.shape == array.shape
    assert back.tobytes() == np.ascontiguousarray(array).tobytes()


@given(hnp.arrays(np.int64, st.integers(1, 9), elements=st.integers(-(2**31) + 1, 2**31 - 1)))
def test_integers_become_a_type_that_plotly_knows(array):
    typed = written(array)
    assert typed["dtype"] == "i4"
    np.testing.assert_array_equal(decoded(typed), array)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array([1.0, np.nan, np.inf]), [1.0, None, None]),
        (np.array([2**40]), [2**40]),
        (np.array([True, False]), [True, False]),
        (np.array(["a", None], dtype=object), ["a", None]),
        (np.array([]), []),
        ([np.float64(0.5), np.int64(3), float("-inf"), float("nan")], [0.5, 3, None, None]),
        ((1, 2), [1, 2]),
    ],
)
def test_what_has_no_typed_array_is_a_plain_list(value, expected):
    assert written(value) == expected


def test_strided_arrays_are_written_in_their_own_order():
    array = np.arange(12.0).reshape(3, 4).T[::-1]
    np.testing.assert_array_equal(decoded(written(array)), array)


def test_json_is_compact_and_read_by_plotly():
    go = pytest.importorskip("plotly.graph_objects")
    figure = go.Figure(json.loads(document_json(picture())))
    np.testing.assert_array_equal(decoded(figure.to_plotly_json()["data"][0]["y"]), [3.0, 2.5, 2.25])
    assert b", " not in document_json(picture()) and b": " not in document_json(picture())


def test_to_plotly_validates():
    assert to_plotly(picture()).data[0].name == "runs"
    with pytest.raises(ValueError, match="Invalid property"):
        to_plotly(picture(no_such_part=1))


class Page(HTMLParser):
    """Scripts with their attributes and texts, and every address that the page would fetch."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.scripts, self.addresses, self.title, self._inside = [], [], "", ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self._inside = tag
        self.addresses += [value for key, value in attrs if key in ("src", "href")]
        if tag == "script":
            self.scripts.append([dict(attrs), ""])

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1][1] += data
        elif self._inside == "title":
            self.title += data


def test_a_page_needs_no_network_and_data_cannot_break_out_of_its_script():
    document = picture(NASTY)
    page = Page(page_html("isoflop-parabolas", document).decode())
    assert page.addresses == []
    assert page.title == "Where the compute-optimal point of each budget lies"
    library, data, start = page.scripts
    assert "plotly.js" in library[1][:200]
    assert "newPlot" in start[1] and len(start[1]) < 1000
    assert json.loads(data[1])["data"] == json.loads(document_json(document))["data"]
    assert json.loads(data[1])["layout"]["title"]["text"] == NASTY


def test_a_page_supplies_what_the_document_leaves_to_its_host():
    layout = json.loads(Page(page_html("x", picture()).decode()).scripts[1][1])["layout"]
    assert {"template", "font", "height"} <= set(layout)
    own = json.loads(Page(page_html("x", picture(height=660)).decode()).scripts[1][1])["layout"]
    assert own["height"] == 660
    pytest.importorskip("plotly.graph_objects").Figure({"data": [], "layout": layout})


def test_pages_run_in_a_browser_without_network(tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        pytest.skip("no Chromium or Chrome to open the page with")
    write_figures({"nasty": picture(NASTY)}, tmp_path, ["html"])
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_context(offline=True).new_page()
        troubles, requests = [], []
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto((tmp_path / "nasty.html").as_uri())
        tab.wait_for_selector("#figure .main-svg")
        assert tab.evaluate("document.getElementById('figure').data[0].name") == NASTY
        assert tab.evaluate("window.broken === undefined")
        assert tab.locator("#figure .point").count() == 3
        browser.close()
    assert troubles == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_files_are_named_after_their_figures_and_the_report_lists_them(tmp_path):
    out = tmp_path / "deep" / "er"
    report = write_figures({"a": picture(), "b-mobile": picture()}, out, ["json", "html"])
    assert {path.name for path in report.written} == {"a.json", "a.html", "b-mobile.json", "b-mobile.html"}
    assert {path.name for path in out.iterdir()} == {path.name for path in report.written}
    assert report.unwritten == ()


@pytest.mark.parametrize("name", ["../escape", "/abs", "a/b", "..", "", "A", "a b", "a\n", "-a", "a.json"])
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    with pytest.raises(ValueError, match="no figure name"):
        write_figures({name: picture()}, tmp_path / "out", ["json"])
    assert list(tmp_path.iterdir()) == []


def test_unknown_format(tmp_path):
    with pytest.raises(ValueError, match=r"gif.*choose from json, html, png, svg, pdf"):
        write_figures({"a": picture()}, tmp_path, ["json", "gif"])


def test_a_folder_that_cannot_be_created_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot create the output folder"):
        write_figures({"a": picture()}, tmp_path / "file" / "out", ["json"])


def test_one_bad_figure_does_not_stop_the_others(tmp_path):
    bad = picture() | {"data": [{"x": object()}]}
    report = write_figures({"bad": bad, "good": picture()}, tmp_path, ["json", "html"])
    assert {path.name for path in report.written} == {"good.json", "good.html"}
    assert {(line.figure, line.format) for line in report.unwritten} == {("bad", "json"), ("bad", "html")}
    assert "not JSON serializable" in report.unwritten[0].reason
    assert {path.name for path in tmp_path.iterdir()} == {"good.json", "good.html"}


def test_a_write_that_breaks_off_leaves_the_old_file_and_no_scraps(tmp_path, monkeypatch):
    write_figures({"a": picture("old")}, tmp_path, ["json"])
    before = (tmp_path / "a.json").read_bytes()

    def full_disk(path, content):
        with open(path, "wb") as stream:
            stream.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    report = write_figures({"a": picture("new")}, tmp_path, ["json"])
    assert report.written == ()
    assert report.unwritten[0].reason == "No space left on device"
    assert (tmp_path / "a.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_rename_that_fails_leaves_the_old_file_and_no_scraps(tmp_path, monkeypatch):
    write_figures({"a": picture("old")}, tmp_path, ["json"])
    before = (tmp_path / "a.json").read_bytes()

    def refuse(source, target):
        assert Path(source).parent == tmp_path
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    report = write_figures({"a": picture("new")}, tmp_path, ["json"])
    assert report.unwritten[0].reason == "Permission denied"
    assert (tmp_path / "a.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_images_without_kaleido_say_so_and_the_rest_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    report = write_figures({"a": picture(), "b": picture()}, tmp_path, ["json", "png", "svg"])
    assert {path.name for path in report.written} == {"a.json", "b.json"}
    assert len(report.unwritten) == 4
    assert all("[images]" in line.reason for line in report.unwritten)


def test_images_without_a_browser_say_so_and_the_rest_is_written(tmp_path, monkeypatch):
    pytest.importorskip("kaleido")
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no-browser"))
    report = write_figures({"a": picture()}, tmp_path / "out", ["json", "pdf"])
    assert [path.name for path in report.written] == ["a.json"]
    assert [(line.figure, line.format) for line in report.unwritten] == [("a", "pdf")]
    assert "BROWSER_PATH" in report.unwritten[0].reason


def test_images_are_drawn_where_there_is_a_browser(tmp_path):
    pytest.importorskip("kaleido")
    if shutil.which("chromium") is None and shutil.which("google-chrome") is None:
        pytest.skip("no Chromium or Chrome to draw with")
    report = write_figures({"a": picture(), "b-mobile": picture(height=660)}, tmp_path, ["png", "svg"])
    assert report.unwritten == ()
    header = (tmp_path / "b-mobile.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(header[i : i + 4], "big") for i in (16, 20))
    assert (width, height) == (export.MOBILE_WIDTH * export.IMAGE_SCALE, 660 * export.IMAGE_SCALE)
    assert (tmp_path / "a.svg").read_text().startswith("<svg")


def test_exporting_json_loads_no_heavy_library():
    code = (
        "import sys, delphi_jax.export as e; e.document_json({'data': [], 'layout': {}});"
        "print([m for m in ('plotly', 'pandas', 'scipy', 'jax', 'kaleido', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
