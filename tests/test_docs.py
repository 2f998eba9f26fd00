"""The API reference builds without a warning and names everything public."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

import delphi_jax

pytest.importorskip("pdoc", reason="pdoc is not installed")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every page by its path. Warnings are errors here, those of pdoc too."""
    from docs.build import build

    out = tmp_path_factory.mktemp("reference")
    build(out)
    return {path.relative_to(out).as_posix(): path.read_text() for path in out.rglob("*.html")}


def test_every_public_name_has_an_entry_with_its_words(pages: dict[str, str]) -> None:
    page = pages["delphi_jax.html"]
    sections = dict(re.findall(r'<section id="(\w+)">(.*?)(?=<section id=|\Z)', page, re.DOTALL))
    assert set(sections) >= set(delphi_jax.__all__)
    for name in filter(lambda name: callable(getattr(delphi_jax, name)), delphi_jax.__all__):
        words = unescape(re.sub(r"<[^>]+>", "", sections[name]))
        # The first word of the docstring, as far as it is no markup.
        first = re.search(r"[A-Z][a-z]+", getattr(delphi_jax, name).__doc__)
        assert first is not None
        assert first[0] in words, name


def test_formulas_are_as_in_the_source(pages: dict[str, str]) -> None:
    words = unescape(re.sub(r"<[^>]+>", "", pages["delphi_jax.html"]))
    assert "L(C) = L_inf + A*C**-alpha" in words
    for name in delphi_jax.__all__:
        text = getattr(delphi_jax, name).__doc__.partition("Examples:")[0]
        for product in re.findall(r"[\w)]\*{1,2}[\w(-]+", text):
            assert product in words, (name, product)


def test_every_module_asked_for_has_a_page(pages: dict[str, str]) -> None:
    from docs.build import PAGES

    assert set(pages) == {"index.html", *(f"{name.replace('.', '/')}.html" for name in PAGES)}
    assert "delphi_jax.html" in pages["index.html"]


def test_roles_are_shown_as_what_they_name(pages: dict[str, str]) -> None:
    for path, page in pages.items():
        assert not re.findall(r":(?:mod|func|data|class|meth|attr|exc):", page), path
        assert "~delphi_jax" not in page
    page = pages["delphi_jax.html"]
    # Of fit_laws: a role in the docstring has become a link to the entry that it names.
    assert '<code><a href="#fit_law">fit_law()</a></code>' in page


def test_signatures_are_as_short_as_in_the_source(pages: dict[str, str]) -> None:
    page = pages["delphi_jax.html"]
    start = page.index('<section id="fit_law">')
    signature = re.sub(r"<[^>]+>", "", page[start : page.index("docstring", start)])
    assert "compute: ArrayLike" in signature
    assert "L_inf: float | PinnedAsymptote | None = None" in signature
    assert '<a href="#PinnedAsymptote">PinnedAsymptote</a>' in page
    assert "_NestedSequence" not in page


def test_pages_are_the_same_on_every_machine(pages: dict[str, str]) -> None:
    for path, page in pages.items():
        assert str(Path(delphi_jax.__file__).parents[1]) not in page, path
        assert not re.findall(r"object at 0x[0-9a-f]+", page), path
