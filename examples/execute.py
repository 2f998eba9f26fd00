"""Run the example notebooks and keep what they show: ``python -m examples.execute`` (needs the extra [images]).

Cells run in this process, in the notebook's folder; what ends a cell is shown by IPython's formatters, as in Jupyter.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from IPython.core.formatters import DisplayFormatter

from delphi_jax.export import PAGE_WIDTH

__all__ = ["EXAMPLES", "RENDERERS", "executed", "main"]

EXAMPLES = tuple(sorted(Path(__file__).parent.glob("*.ipynb")))
RENDERERS = "plotly_mimetype+svg"
"""Of plotly: a figure that notebooks make interactive, and a drawing for where they cannot."""
_SVG = "image/svg+xml"


def executed(notebook: Path, renderers: str = RENDERERS) -> nbformat.NotebookNode:
    """The notebook with the outputs of a fresh run; an error in a cell is raised."""
    import plotly.io as pio

    book = nbformat.read(notebook, as_version=4)
    names: dict[str, Any] = {"__name__": "__main__"}
    before = pio.renderers.default
    pio.renderers["svg"].width, pio.renderers["svg"].height = PAGE_WIDTH, None  # the height is the figure's own
    try:
        pio.renderers.default = renderers
        with _inside(notebook.parent):
            for place, cell in enumerate((cell for cell in book.cells if cell.cell_type == "code"), start=1):
                cell.execution_count = place
                cell.outputs = _run(cell.source, f"{notebook.name}[{place}]", names, place)
    finally:
        pio.renderers.default = before
    return book


def _run(source: str, where: str, names: dict[str, Any], place: int) -> list[nbformat.NotebookNode]:
    """The outputs of one cell: what it prints, and the value of its last line."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(ast.Module(body, []), where, "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), where, "eval"), names)
    outputs = []
    if text := printed.getvalue():
        outputs.append(nbformat.v4.new_output("stream", name="stdout", text=text))
    if value is not None:
        outputs.append(nbformat.v4.new_output("execute_result", data=_shown(value, place), execution_count=place))
    return outputs


def _shown(value: Any, place: int) -> dict[str, Any]:
    """``value`` by MIME type, as a notebook shows it."""
    if not hasattr(value, "_repr_mimebundle_"):
        return DisplayFormatter().format(value)[0]
    # Formatters would let a figure display itself, which needs a running shell; this is what it would publish.
    data = value._repr_mimebundle_()
    if drawn := re.search(r'id="defs-(\w+)"', data.get(_SVG, "")):
        # Names of clip paths are drawn at random, and would change with every run.
        data[_SVG] = data[_SVG].replace(drawn[1], f"cell{place}")
    return data


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def main() -> None:
    """Run every example and write it with its outputs."""
    for notebook in EXAMPLES:
        nbformat.write(executed(notebook), notebook)


if __name__ == "__main__":
    main()
