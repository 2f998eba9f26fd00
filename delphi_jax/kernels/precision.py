"""Float64 inside the kernels, whatever the caller's JAX configuration says."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar

import jax

__all__ = ["Runner", "jit64", "run_kernels_with"]

P = ParamSpec("P")
R = TypeVar("R")


class Runner(Protocol):
    """Runs a jitted kernel in some other way than by calling it, for instance from a kept executable."""

    def __call__(self, jitted: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...


_runner: Runner | None = None


def run_kernels_with(runner: Runner | None) -> None:
    """Let ``runner`` run every kernel of this process that has no static arguments; None restores plain calls."""
    global _runner
    _runner = runner


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
                if _runner is None or static:
                    return jitted(*args, **kwargs)
                return _runner(jitted, args, kwargs)

        return call

    return decorate
