"""The devices that a bootstrap study runs on: all of this host, or of every host of a cluster."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from delphi_jax.kernels.chunks import usable_cores

__all__ = [
    "AXIS",
    "chunk_memory",
    "first_process",
    "free_memory",
    "from_first_process",
    "join_cluster",
    "over_processes",
    "spread",
    "use_all_cores",
]

AXIS = "draws"
"""The one axis of a mesh."""

_MOST_CPU_DEVICES = 32
"""Each holds a histogram of its own: more would take gigabytes."""

_SHARE = 1 / 8
_MOST_ON_CPU = 2**28
"""Bytes for the draws at hand on all CPU devices together: larger batches leave the caches and gain nothing."""

_ASSUMED_MEMORY = 8 << 30
"""Bytes, where neither the device nor the system tells."""

_PATIENCE = 60.0
"""Seconds in which process 0 of a cluster must answer: hosts may start one after the other."""

_BETWEEN_TRIES = 0.2
_HIGHEST_PORT = 65535


def use_all_cores() -> None:
    """Let JAX see a CPU device per core that this process may use, because a bootstrap's loops run on one core each.

    For a command that owns its process, not for a library. Devices that were already asked for
    (``jax_num_cpu_devices``, ``XLA_FLAGS``) or are in use stay.
    """
    asked = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not asked and jax.config.jax_num_cpu_devices < 0:
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", min(usable_cores(), _MOST_CPU_DEVICES))


def join_cluster(coordinator: str | None = None, processes: int | None = None, process_id: int | None = None) -> None:
    """Make this process one of a cluster's, so that ``jax.devices()`` are those of all its hosts.

    With no argument the cluster is the one that Slurm or Open MPI started this process in; else ``coordinator``
    (host:port of process 0), the number of ``processes`` and this one's ``process_id``, counted from 0. Before JAX is
    used. Raises ValueError for some of the three without the others, and where there is no cluster, and RuntimeError
    where nothing answers at ``coordinator`` within a minute. Processes that do not all come within JAX's time limit
    (five minutes) cannot be caught: JAX then ends this process itself.
    """
    given = (coordinator, processes, process_id)
    if any(part is None for part in given) and any(part is not None for part in given):
        raise ValueError("a cluster needs all of coordinator (host:port), number of processes and process id, or none")
    if coordinator is not None:
        host, _, port = coordinator.rpartition(":")
        if not (host and port.isdecimal() and int(port) <= _HIGHEST_PORT):
            raise ValueError(f"the coordinator must be given as host:port, got {coordinator!r}")
        if not 0 <= process_id < processes:
            raise ValueError(f"the process id must be from 0 to {processes - 1}, got {process_id}")
        if process_id != 0:
            _await_answer(host.strip("[]"), int(port))
    try:
        jax.distributed.initialize(coordinator, processes, process_id)
    except (ValueError, KeyError) as error:
        if coordinator is not None:
            raise ValueError(f"cannot join the cluster at {coordinator}: {error}") from error
        raise ValueError(
            "no cluster found: start with srun (Slurm) or mpirun (Open MPI), or give coordinator, number of processes "
            "and process id"
        ) from error


def _await_answer(host: str, port: int) -> None:
    """Until something takes connections there: JAX says nothing while it waits, and then aborts."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection((host, port), timeout=max(end - time.monotonic(), _BETWEEN_TRIES)).close()
            return
        except OSError as error:
            if time.monotonic() >= end:
                raise RuntimeError(
                    f"nothing answers at {host}:{port} ({error}): start process 0 first, or check the address"
                ) from error
        time.sleep(_BETWEEN_TRIES)


def first_process() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def from_first_process(value: int) -> int:
    """``value`` of the first process, in every process. All of them must call this."""
    return int(over_processes(lambda values: values.sum(axis=0), np.int64(value if first_process() else 0)))


def over_processes(combine: Callable[[Any], Any], tree: Any) -> Any:
    """``combine`` of the trees of NumPy arrays of all processes, [processes, ...]. All of them must call this.

    The arrays go over one device of each process. Devices of one process exchange nothing: on CPU such an exchange
    can wait for a thread that other work holds, and for ever.
    """
    if jax.process_count() == 1:
        return combine(jax.tree.map(lambda leaf: np.asarray(leaf)[None], tree))
    firsts = {device.process_index: device for device in reversed(jax.devices())}
    devices = [firsts[process] for process in sorted(firsts)]
    everywhere = NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec())
    with jax.enable_x64(True):
        spread_out = jax.tree.map(lambda leaf: spread(devices, lambda _: leaf), tree)
        return jax.device_get(jax.jit(combine, out_shardings=everywhere)(spread_out))


def spread(devices: Sequence[jax.Device], part: Callable[[int], Any]) -> jax.Array:
    """``part(i)`` on the i-th of ``devices``, of all hosts: [devices, ...]. Only asked for those of this process."""
    here = [i for i, device in enumerate(devices) if device.process_index == jax.process_index()]
    parts = {i: np.asarray(part(i)) for i in here}
    shape = (len(devices), *parts[here[0]].shape)
    sharding = NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec(AXIS))
    # Copies, because programs may write over what they are given.
    return jax.make_array_from_callback(shape, sharding, lambda index: parts[index[0].start or 0][None].copy())


def chunk_memory() -> float:
    """Bytes that the draws at hand may take on one device: a share of its memory."""
    stats = _device_memory()
    if stats is not None:
        return _SHARE * stats["bytes_limit"]
    return min(_SHARE * _system_memory(), _MOST_ON_CPU) / jax.local_device_count()


def free_memory() -> int:
    """Bytes that are free on a device where it tells, else all of this host's."""
    stats = _device_memory()
    return _system_memory() if stats is None else stats["bytes_limit"] - stats.get("bytes_in_use", 0)


def _device_memory() -> dict[str, int] | None:
    """What a device says of its memory; None where it does not tell."""
    stats = jax.local_devices()[0].memory_stats()
    return stats if stats and "bytes_limit" in stats else None


def _system_memory() -> int:
    """Bytes of memory of this host."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return _ASSUMED_MEMORY
