"""Figure documents into files: plotly JSON, self-contained HTML pages, and images.

A file appears whole or not at all: it is written beside its target and then renamed over it.
"""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from delphi_jax.definition import Definition, figure_title
from delphi_jax.labels import FIGURE_FORMATS
from delphi_jax.plots.drawers import Document
from delphi_jax.plots.theme import BRAND, Theme, recolor, template
from delphi_jax.status import InputError
from delphi_jax.whole import write_whole

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "IMAGE_FORMATS",
    "Unwritten",
    "WriteReport",
    "document_json",
    "page_figure",
    "page_html",
    "plotly_js",
    "to_plotly",
    "write_figures",
]

IMAGE_FORMATS = FIGURE_FORMATS[2:]

PAGE_WIDTH, MOBILE_WIDTH, PAGE_HEIGHT = 1100, 420, 560
"""Pixels; the height is for figures whose layout leaves it to the page."""
LEAST_WIDTH, MOBILE_LEAST_WIDTH = 720, 320
"""Pixels below which a page scrolls sideways, rather than let labels overlap."""
IMAGE_SCALE = 2
IMAGE_TIMEOUT = 60.0
"""Seconds per image, and for the browser to start."""

FONT_SIZE, MOBILE_FONT_SIZE = 13, 11
PLOT_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    # It would upload the figure with its data to a server of Plotly's.
    "modeBarButtonsToRemove": ["sendChartToCloud"],
}
"""Of plotly.js, on every page."""


@dataclass(frozen=True)
class Unwritten:
    """A file that could not be written, and why."""

    figure: str
    format: str
    reason: str


@dataclass(frozen=True)
class WriteReport:
    """What :func:`write_figures` did."""

    written: tuple[Path, ...]
    unwritten: tuple[Unwritten, ...]


def document_json(document: Document) -> bytes:
    """``document`` as compact plotly JSON: numeric arrays typed (base64), non-finite numbers as null.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> compute = np.logspace(18, 20, 7)
    >>> loss = 2 + 1000 * compute**-0.2
    >>> drawing = dj.draw_answer(dj.leave_future_out({"one": (compute, loss)}))
    >>> dj.document_json(drawing.documents["leave-future-out"])[:18]
    b'{"data":[{"type":"'
    """
    return json.dumps(_plain(document), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def to_plotly(document: Document) -> go.Figure:
    """``document`` as a plotly figure, validated by plotly.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> compute = np.logspace(18, 20, 7)
    >>> loss = 2 + 1000 * compute**-0.2
    >>> drawing = dj.draw_answer(dj.leave_future_out({"one": (compute, loss)}))
    >>> figure = dj.to_plotly(drawing.documents["leave-future-out"])
    >>> figure.layout.xaxis.title.text
    'Decades beyond the last fitted budget'
    """
    import plotly.graph_objects as go

    return go.Figure(document)


def page_figure(name: str, document: Document, theme: Theme = BRAND) -> go.Figure:
    """``document`` as a plotly figure that looks in a notebook as it does on its page."""
    figure = _on_paper(name, document, theme)
    if name.endswith("-mobile"):
        figure["layout"] |= {"width": MOBILE_WIDTH}
    return to_plotly(figure)


def page_html(name: str, document: Document, theme: Theme = BRAND, definition: Definition | None = None) -> bytes:
    """A page that shows ``document`` without a network: plotly.js, theme and data are inside.

    ``definition`` is that of the study (Delphi), which names its figures.
    """
    # In JSON a "<" can only stand within a string: escaped there, no "</script>" can end the element early.
    figure = _themed(name, document, theme) | {"config": PLOT_CONFIG}
    data = document_json(figure).replace(b"<", rb"\u003c")
    mobile = name.endswith("-mobile")
    width, least = (MOBILE_WIDTH, MOBILE_LEAST_WIDTH) if mobile else (PAGE_WIDTH, LEAST_WIDTH)
    title = html.escape(figure_title(name, definition))
    colors = {"background": theme.page, "ink": theme.ink, "accent": theme.accent}
    style = _STYLE.format(**colors, font=theme.font, width=width, least=least)
    head = _HEAD.format(title=title, style=style)
    return b"".join([head.encode(), plotly_js(), _BODY.encode(), data, _FOOT.encode()])


def write_figures(
    documents: Mapping[str, Document],
    out: Path,
    formats: Collection[str],
    theme: Theme = BRAND,
    definition: Definition | None = None,
) -> WriteReport:
    """Write every document as ``out/<name>.<format>`` in the colours of ``theme``, creating ``out`` where needed.

    ``definition`` is that of the study (Delphi), which names its figures.

    A file that cannot be written does not stop the others: it is listed in the report with its reason.
    Raises :class:`ValueError` for an unknown format or a name that is no plain figure name, and
    :class:`InputError` where the folder cannot be created.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> compute = np.logspace(18, 20, 7)
    >>> loss = 2 + 1000 * compute**-0.2
    >>> import tempfile
    >>> from pathlib import Path
    >>> drawing = dj.draw_answer(dj.leave_future_out({"one": (compute, loss)}))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = dj.write_figures(drawing.documents, Path(folder), ["html"])
    >>> [path.name for path in report.written], report.unwritten
    (['leave-future-out.html', 'leave-future-out-mobile.html'], ())
    """
    for form in formats:
        if form not in FIGURE_FORMATS:
            raise ValueError(f"unknown format {form!r}: choose from {', '.join(FIGURE_FORMATS)}")
    for name in documents:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
            raise ValueError(f"{name!r} is no figure name: only lower-case letters, digits and single dashes")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create the output folder {out}: {error.strerror}; choose another") from error

    written: list[Path] = []
    unwritten: list[Unwritten] = []
    for name, form, content in _render(documents, formats, theme, definition):
        target = out / f"{name}.{form}"
        try:
            if isinstance(content, Exception):
                raise content
            write_whole(target, content)
        except Exception as error:
            unwritten.append(Unwritten(name, form, _reason(error)))
        else:
            written.append(target)
    return WriteReport(tuple(written), tuple(unwritten))


def _render(
    documents: Mapping[str, Document], formats: Collection[str], theme: Theme, definition: Definition | None
) -> Iterator[tuple[str, str, bytes | Exception]]:
    """(figure, format, content or what went wrong) of every file that was asked for."""
    for name, document in documents.items():
        for form, render in (("json", _figure_json), ("html", page_html)):
            if form in formats:
                try:
                    yield name, form, render(name, document, theme, definition)
                except Exception as error:
                    yield name, form, error
    jobs = [(name, form) for name in documents for form in IMAGE_FORMATS if form in formats]
    if jobs:
        contents = _render_images(documents, jobs, theme)
        yield from ((name, form, content) for (name, form), content in zip(jobs, contents, strict=True))


def _figure_json(name: str, document: Document, theme: Theme, definition: Definition | None) -> bytes:
    return document_json(recolor(document, theme))


def _plain(node: Any) -> Any:
    """``node`` as JSON holds it: arrays typed where all their numbers are finite, else lists with nulls."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_plain(value) for value in node]
    if isinstance(node, np.ndarray):
        return _typed(node)
    if isinstance(node, np.generic):
        return _plain(node.item())
    if isinstance(node, float) and not math.isfinite(node):
        return None
    return node


def _typed(array: NDArray[Any]) -> Any:
    """``array`` as plotly.js reads it: {"dtype", "bdata"[, "shape"]}; it knows no 64-bit integers."""
    if array.size == 0:
        return array.tolist()
    if array.dtype.kind in "iu" and np.abs(array).max() < 2**31:
        array = array.astype("<i4")
    elif array.dtype.kind == "f" and np.isfinite(array).all():
        array = array.astype("<f4" if array.dtype == np.float32 else "<f8")
    else:
        return _plain(array.tolist())
    typed = {"dtype": array.dtype.str[1:], "bdata": base64.b64encode(array.tobytes()).decode()}
    return typed if array.ndim == 1 else typed | {"shape": ", ".join(map(str, array.shape))}


def _themed(name: str, document: Document, theme: Theme) -> Document:
    """``document`` in the colours of ``theme``, with what it leaves to its host: template, font, height."""
    document = recolor(document, theme)
    size = MOBILE_FONT_SIZE if name.endswith("-mobile") else FONT_SIZE
    host = {
        "template": template(theme),
        "font": {"family": theme.font, "color": theme.ink, "size": size},
        "height": PAGE_HEIGHT,
    }
    return document | {"layout": host | document["layout"]}


def _on_paper(name: str, document: Document, theme: Theme) -> Document:
    """As :func:`_themed`, on the theme's page rather than on that of a host."""
    figure = _themed(name, document, theme)
    figure["layout"] |= {"paper_bgcolor": theme.page}
    return figure


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def plotly_js() -> bytes:
    """The plotly.js that ships with plotly, read without importing it."""
    from importlib.util import find_spec

    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("HTML pages need plotly, whose plotly.js they carry: install plotly")
    return (Path(spec.origin).parent / "package_data" / "plotly.min.js").read_bytes()


def _render_images(
    documents: Mapping[str, Document], jobs: list[tuple[str, str]], theme: Theme
) -> list[bytes | Exception]:
    """One image, or what went wrong, per (figure, format); all in one browser, which kaleido drives."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    try:
        import kaleido
        from choreographer.errors import ChromeNotFoundError
    except ModuleNotFoundError:
        hint = "images need kaleido 1 or newer: install delphi-jax with its extra [images]"
        return [ModuleNotFoundError(hint)] * len(jobs)

    async def image(browser: Any, name: str, form: str) -> bytes | Exception:
        try:
            figure = _on_paper(name, documents[name], theme)
            size = {
                "width": MOBILE_WIDTH if name.endswith("-mobile") else PAGE_WIDTH,
                "height": figure["layout"]["height"],
                "scale": IMAGE_SCALE,
            }
            return await browser.calc_fig(json.loads(document_json(figure)), opts=size | {"format": form})
        except Exception as error:
            return error

    async def images() -> list[bytes | Exception]:
        # kaleido takes the browser at BROWSER_PATH, or else looks for one. No MathJax: it would be fetched.
        async with kaleido.Kaleido(n=1, timeout=IMAGE_TIMEOUT, mathjax=False) as browser:
            return [await image(browser, name, form) for name, form in jobs]

    try:
        # In a thread of its own, because a notebook's thread already runs an event loop.
        with ThreadPoolExecutor(max_workers=1) as pool:
            deadline = IMAGE_TIMEOUT * (1 + len(jobs))
            return pool.submit(lambda: asyncio.run(asyncio.wait_for(images(), deadline))).result()
    except ChromeNotFoundError:
        hint = "images need Chrome or Chromium: install one, or set BROWSER_PATH to its executable"
        return [FileNotFoundError(hint)] * len(jobs)
    except Exception as error:
        hint = f"the browser that draws images did not run ({type(error).__name__}): try another BROWSER_PATH"
        return [RuntimeError(hint)] * len(jobs)


_STYLE = """\
body{{margin:0;background:{background};color:{ink};font-family:{font}}}
main{{max-width:{width}px;margin:0 auto;padding:16px 12px}}
h1{{font-size:1.25rem;font-weight:600;margin:8px 4px 12px;border-left:4px solid {accent};padding-left:10px}}
.scroll{{overflow-x:auto}}
#figure{{min-width:{least}px}}"""

_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main><h1>{title}</h1><div class="scroll"><div id="figure"></div></div></main>
<script>"""

_BODY = """</script>
<script type="application/json" id="document">"""

_FOOT = """</script>
<script>
const figure = JSON.parse(document.getElementById("document").textContent);
// Over a narrow figure the mode bar would cover the dropdowns and take their clicks.
const displayModeBar = document.getElementById("figure").clientWidth < 600 ? false : "hover";
Plotly.newPlot("figure", { ...figure, config: { ...figure.config, displayModeBar } });
</script>
</body>
</html>
"""
