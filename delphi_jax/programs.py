"""Compiled kernels kept on disk between runs of the command.

JAX's persistent compilation cache saves compiling, but a kernel must be traced and lowered before it can be
looked up there, which takes longer than all fits of a study. Here the executables themselves are kept, by JAX's own
serialisation, under a key that holds everything that they depend on. The two do not mix: an executable that came
out of JAX's cache serialises without its code, so that cache stays off.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pickle
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import serialize_executable

import delphi_jax
from delphi_jax.kernels.precision import OLD_EMITTERS, run_kernels_with
from delphi_jax.whole import write_whole

__all__ = ["keep_programs"]

# For a study, compiling takes far longer than running. XLA's older emitters compile in two thirds of the time, and
# without optimisation in a fifth, at two to eight times the run time: worth it where a kernel runs for milliseconds.
_UNOPTIMISED = OLD_EMITTERS | {"xla_backend_optimization_level": 0}
_OPTIONS = {"fit_processes": OLD_EMITTERS | {"xla_backend_optimization_level": 1}, "partial_dependence": {}}
"""XLA's options on CPU for the kernels that run longer; all others are :data:`_UNOPTIMISED`."""


def keep_programs(folder: Path) -> None:
    """Keep the compiled kernels of this process in ``folder``, and take them from there.

    Switches JAX's own compilation cache off: for a command that owns its process, not for a library. Whoever can
    write to ``folder`` can run code as its reader, so it is made for its owner alone. Raises OSError where it
    cannot be made, or where others can write to it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = folder.stat()
    if os.name == "posix" and (owner.st_uid != os.getuid() or owner.st_mode & 0o022):
        raise PermissionError(errno.EPERM, "others can write to it: give a folder that is yours alone", str(folder))
    jax.config.update("jax_enable_compilation_cache", False)
    run_kernels_with(_Programs(folder))


class _Programs:
    """Runs kernels from executables in memory, else on disk, else freshly compiled and kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[tuple[Any, ...], jax.stages.Compiled] = {}
        self._world = _world()

    def __call__(self, name: str, jitted: Callable[[], Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Executables want arrays of the very type that they were compiled for: no weakly typed numbers.
        args, kwargs = jax.tree.map(
            lambda leaf: leaf if isinstance(leaf, jax.Array) else np.asarray(leaf), (args, kwargs)
        )
        leaves, tree = jax.tree.flatten((args, kwargs))
        key = (name, tree, *((leaf.shape, leaf.dtype.name) for leaf in leaves))
        if key in self._loaded:
            return self._loaded[key](*args, **kwargs)
        digest = hashlib.sha256(f"{self._world}\n{key}".encode()).hexdigest()
        path = self._folder / f"{name}-{digest[:32]}.program"
        # A program that is absent, damaged or does not run is compiled anew: the numbers are the same.
        with contextlib.suppress(Exception):
            program = serialize_executable.deserialize_and_load(*pickle.loads(path.read_bytes()))
            result = jax.block_until_ready(program(*args, **kwargs))
            self._loaded[key] = program
            return result
        program = self._loaded[key] = _compile(name, jitted(), args, kwargs)
        with contextlib.suppress(Exception):
            write_whole(path, pickle.dumps(serialize_executable.serialize(program)))
        return program(*args, **kwargs)


def _compile(name: str, jitted: Any, args: Any, kwargs: Any) -> jax.stages.Compiled:
    lowered = jitted.lower(*args, **kwargs)
    if jax.default_backend() == "cpu":
        # The options are XLA's own and may go: then the kernel compiles in the usual time.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            return lowered.compile(compiler_options=_OPTIONS.get(name, _UNOPTIMISED))
    return lowered.compile()


def _world() -> str:
    """All that an executable depends on beside its kernel's name and arguments."""
    backend = jax.devices()[0].client
    sources = sorted(Path(delphi_jax.__file__).parent.glob("kernels/*.py"))
    sources += [Path(delphi_jax.__file__).parent / name for name in ("formulas.py", "status.py")]
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    devices = [(device.device_kind, device.id) for device in jax.devices()]
    return repr((jax.__version__, backend.platform, backend.platform_version, devices, _processor(), _flags(), code))


def _processor() -> str:
    """The processor and its instruction sets: an executable of another may crash here."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return repr(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))


def _flags() -> str:
    """Environment variables that change what XLA compiles."""
    return repr(sorted(item for item in os.environ.items() if item[0].startswith(("XLA_", "JAX_"))))
