"""Float64 inside the kernels, whatever the caller's JAX configuration says."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, Protocol, TypeVar

import jax

__all__ = ["OLD_EMITTERS", "Runner", "jit64", "run_kernels_with"]

P = ParamSpec("P")
R = TypeVar("R")


class Runner(Protocol):
    """Runs a kernel in some other way than by calling it, for instance from a kept executable.

    ``jitted`` makes the jitted kernel, for the case that it is needed.
    """

    def __call__(self, name: str, jitted: Callable[[], Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...

    def prepare(self, name: str, jitted: Callable[[], Any], args: tuple[Any, ...]) -> None: ...


_runner: Runner | None = None


def run_kernels_with(runner: Runner | None) -> None:
    """Let ``runner`` run every kernel of this process that has no static arguments; None restores plain calls."""
    global _runner
    _runner = runner


OLD_EMITTERS = {"xla_cpu_use_fusion_emitters": False}
"""XLA's older code generator: on CPU it compiles faster, and makes faster code of loops of rank-one updates."""


@functools.cache
def _accepted(options: tuple[tuple[str, Any], ...]) -> dict[str, Any] | None:
    """``options`` as a mapping, or None where this backend or version of XLA has no use for them."""
    if not options or jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return dict(options)


def jit64(*static: str, cpu_options: Mapping[str, Any] | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: jit a kernel and call it with 64-bit types switched on in this thread, for this call only.

    ``static`` names the arguments that fix shapes; ``cpu_options`` are compiler options that speed it up on CPU,
    left out where XLA does not know them. Under an outer jit or vmap the kernel becomes a part of that program,
    which must be traced with 64-bit types (TypeError).
    ``kernel.prepare(...)`` lets a :class:`Runner` get the program ready for arguments of the same shapes and types.
    """

    def decorate(kernel: Callable[P, R]) -> Callable[P, R]:
        kernel.cpu_options = dict(cpu_options or {})

        @functools.cache
        def jitted() -> Any:
            options = _accepted(tuple(kernel.cpu_options.items()))
            return jax.jit(kernel, static_argnames=static, compiler_options=options)

        @functools.wraps(kernel)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs))):
                if not jax.config.jax_enable_x64:
                    raise TypeError(f"{kernel.__name__} computes in float64: trace it under jax.enable_x64(True)")
                return kernel(*args, **kwargs)
            with jax.enable_x64(True):
                if _runner is None or static:
                    return jitted()(*args, **kwargs)
                return _runner(kernel.__name__, functools.partial(jax.jit, kernel), args, kwargs)

        def prepare(*args: P.args) -> None:
            if _runner is not None and not static:
                with jax.enable_x64(True):
                    _runner.prepare(kernel.__name__, functools.partial(jax.jit, kernel), args)

        call.prepare = prepare
        return call

    return decorate
