"""Caches in, tidy tables out."""

from delphi_jax.io.study import load_study

__all__ = ["load_study"]
