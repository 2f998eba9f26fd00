"""Build the API reference from the docstrings: ``python -m docs.build [OUT]`` (needs the extra [docs]).

OUT is ``build/docs`` by default. The first page holds the public names; the others hold what a study file says and what
is asked for by module.
"""

from __future__ import annotations

import re
import sys
import typing
from pathlib import Path
from typing import Any

import pdoc
import pdoc.doc
import pdoc.doc_types
import pdoc.render
import pdoc.render_helpers
from jinja2 import pass_context
from jinja2.runtime import Context

import delphi_jax

__all__ = ["PAGES", "build"]

PAGES = (
    "delphi_jax",
    "delphi_jax.definition",
    "delphi_jax.tasks",
    "delphi_jax.heuristics",
    "delphi_jax.tables",
    "delphi_jax.labels",
    "delphi_jax.plots.theme",
    "delphi_jax.fetch.columns",
    "delphi_jax.fetch.files",
    "delphi_jax.fetch.hf",
    "delphi_jax.fetch.wandb",
)
"""Modules with a page each."""

_ROLE = re.compile(r":(mod|func|data|class|meth|attr|exc):`~?([\w.]+)`")


_PUBLIC = re.compile(rf"(?<![\w.])(?:{'|'.join(delphi_jax.__all__)})(?!\w)")
"""Names that have an entry: pdoc makes links of those that are written in full."""


_PRODUCT = re.compile(r"`+[^`]*`+|\*\*|(?<=[\w)\]])\*(?=[\w(])| \* ")
"""Asterisks of formulas, which Markdown would take for emphasis, and code, in which it does not."""


@pass_context
def _to_markdown(context: Context, docstring: str) -> str:
    """A docstring as Markdown: pdoc's own, but a role shows the last part of what it names, unless that is a module."""
    words, title, examples = _ROLE.sub(_named, docstring).replace(r"\|", "|").partition("\nExamples:\n")
    words = _PRODUCT.sub(lambda found: found[0] if found[0][0] == "`" else found[0].replace("*", r"\*"), words)
    return pdoc.render_helpers.to_markdown_with_context(context, words + title + examples)


def _named(role: re.Match[str]) -> str:
    kind, name = role.groups()
    shown = name if kind == "mod" else name.rsplit(".", 1)[-1]
    return f"`{shown}{'()' if kind in ('func', 'meth') else ''}`"


class _AsWritten:
    """An annotation as the source writes it: what its names stand for would fill half a page."""

    def __init__(self, annotation: str) -> None:
        self.text = _PUBLIC.sub(r"delphi_jax.\g<0>", annotation)

    def __repr__(self) -> str:
        return self.text


def _annotation(annotation: Any, *where: Any) -> Any:
    """Stands in for pdoc's evaluation of the ``annotation`` of a thing."""
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    return _AsWritten(annotation) if isinstance(annotation, str) else annotation


def build(out: Path) -> None:
    """Write the reference, ``index.html`` first, into the folder ``out``."""
    pdoc.render.configure(docformat="restructuredtext", show_source=False, footer_text=delphi_jax.__version__)
    pdoc.render.env.filters["to_markdown"] = _to_markdown
    pdoc.doc.safe_eval_type = pdoc.doc_types.safe_eval_type = _annotation
    pdoc.pdoc(*PAGES, output_directory=out)


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else "build/docs"))
