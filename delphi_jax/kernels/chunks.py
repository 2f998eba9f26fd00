"""Batches in chunks that fit a processor's caches, and batches spread over all devices of this process."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from delphi_jax.kernels.precision import jit64

__all__ = ["in_chunks", "on_all_devices", "prepare_on_all_devices", "usable_cores"]

_WORTH_A_THREAD = 12
"""Chunks that repay a thread of their own."""
_AXIS = "problems"


def in_chunks(kernel: Callable[..., Any], size: int, *batches: Any) -> Any:
    """``kernel(*batches)``, on CPU ``size`` problems at a time; ``kernel`` takes and gives batches.

    A chunk's arrays stay in the caches, and its loops end with its own slowest problem instead of the slowest of all.
    Accelerators take the whole batch at once. The last chunk is filled up with copies of the last problem.
    """
    n = jax.tree.leaves(batches)[0].shape[0]
    if n <= size or jax.default_backend() != "cpu":
        return kernel(*batches)
    n_chunks = -(-n // size)
    missing = n_chunks * size - n

    def split(leaf: jax.Array) -> jax.Array:
        filled = jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1), mode="edge") if missing else leaf
        return jnp.reshape(filled, (n_chunks, size, *leaf.shape[1:]))

    def join(leaf: jax.Array) -> jax.Array:
        joined = leaf.reshape(n_chunks * size, *leaf.shape[2:])
        return joined[:n] if missing else joined

    return jax.tree.map(join, jax.lax.map(lambda chunk: kernel(*chunk), jax.tree.map(split, batches)))


def on_all_devices(kernel: Callable[..., Any], size: int, *arguments: Any) -> Any:
    """``jax.device_get(kernel(*arguments))`` with the problems spread over all local devices.

    ``kernel`` is decorated by ``jit64``, or calls such kernels, and treats its problems apart from one another;
    ``arguments`` are trees of NumPy arrays, [B, ...], or without axes and then the same for all problems.

    Every device takes the same whole number of chunks of ``size`` problems, filled up with copies of the last
    problem. On CPU a chunk is computed as on one device, so that the numbers depend on how many there are by rounding
    at most. A single chunk stays on one device, which is faster; a default device that the caller has set takes the
    whole batch. Filling up and cutting back are done here, outside the program: its devices exchange nothing and never
    wait.

    A large batch on the only device of a CPU is cut likewise, and its parts run side by side in threads.
    """
    parts = _parts(size, arguments)
    n, arguments = _n_problems(arguments), _filled(parts, arguments)
    if parts.number == 1:
        return jax.tree.map(lambda leaf: leaf[:n], jax.device_get(kernel(*arguments)))
    if parts.devices:
        results = jax.device_get(_sharded(kernel, parts.devices)(*arguments))
        return jax.tree.map(lambda leaf: leaf[:n], results)

    def run(part: int) -> Any:
        own = slice(part * parts.length, (part + 1) * parts.length)
        return jax.device_get(kernel(*_batched(lambda leaf: leaf[own], arguments)))

    with ThreadPoolExecutor(parts.number) as pool:
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:n], *pool.map(run, range(parts.number)))


def prepare_on_all_devices(kernel: Callable[..., Any], size: int, *arguments: Any) -> None:
    """``kernel.prepare`` for an :func:`on_all_devices` to come, for arguments of these shapes, if it takes one part."""
    parts = _parts(size, arguments)
    if parts.number == 1:
        kernel.prepare(*_filled(parts, arguments))


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Parts(NamedTuple):
    """How a batch is cut: ``number`` parts of ``length`` problems, one for each of ``devices`` if there are any."""

    number: int
    length: int
    devices: tuple[jax.Device, ...]


def _parts(size: int, arguments: Any) -> _Parts:
    n = _n_problems(arguments)
    n_chunks = -(-n // size)
    devices = jax.local_devices() if jax.config.jax_default_device is None else []
    spread = len(devices) > 1
    threads = min(usable_cores(), n_chunks // _WORTH_A_THREAD) if _only_cpu(devices) else 1
    share = -(-n_chunks // max(1, len(devices) if spread else threads))
    number = -(-n_chunks // share)
    return _Parts(number, share * size if n > size else n, tuple(devices[:number]) if spread else ())


def _n_problems(arguments: Any) -> int:
    return next(len(leaf) for leaf in jax.tree.leaves(arguments) if np.ndim(leaf))


def _filled(parts: _Parts, arguments: Any) -> Any:
    """``arguments`` of whole parts, with copies of the last problem at the end."""
    n, total = _n_problems(arguments), parts.number * parts.length
    return arguments if total == n else _batched(lambda leaf: leaf[np.minimum(np.arange(total), n - 1)], arguments)


def _only_cpu(devices: list[jax.Device]) -> bool:
    return len(devices) == 1 and devices[0].platform == "cpu"


def _batched(change: Callable[[Any], Any], arguments: Any) -> Any:
    """``arguments`` with every leaf that has a batch axis changed."""
    return jax.tree.map(lambda leaf: change(np.asarray(leaf)) if np.ndim(leaf) else leaf, arguments)


@functools.cache
def _sharded(kernel: Any, devices: tuple[jax.Device, ...]) -> Callable[..., Any]:
    """``kernel`` as one program in which every device runs it on its own part of the batch."""
    mesh = Mesh(np.array(devices), (_AXIS,))

    def sharded(*arguments: Any) -> Any:
        specs = jax.tree.map(lambda leaf: PartitionSpec(_AXIS) if leaf.ndim else PartitionSpec(), arguments)
        # Loops start from constants and end apart on every device, which the check of replication does not allow.
        spread = jax.shard_map(kernel, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(_AXIS), check_vma=False)
        return spread(*arguments)

    sharded.__name__ = kernel.__name__
    return jit64(cpu_options=getattr(kernel, "cpu_options", None))(sharded)
