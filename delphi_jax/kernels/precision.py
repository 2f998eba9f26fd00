"""Float64 inside the kernels, whatever the caller's JAX configuration says."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax

__all__ = ["jit64"]

P = ParamSpec("P")
R = TypeVar("R")


def jit64(*static: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: jit a kernel and call it with 64-bit types switched on in this thread, for this call only.

    ``static`` names the arguments that fix shapes. The undecorated kernel stays reachable as
    ``__wrapped__``, for composition under an outer jit or vmap.
    """

    def decorate(kernel: Callable[P, R]) -> Callable[P, R]:
        jitted: Any = jax.jit(kernel, static_argnames=static)

        @functools.wraps(kernel)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with jax.enable_x64(True):
                return jitted(*args, **kwargs)

        return call

    return decorate
