"""Compiled kernels kept on disk between runs of the command.

JAX's persistent compilation cache saves compiling, but a kernel must be traced and lowered before it can be
looked up there, which takes longer than all fits of a study. Here the executables themselves are kept, by JAX's own
serialisation, under a key that holds everything that they depend on. The two do not mix: an executable that came
out of JAX's cache serialises without its code, so that cache stays off.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import pickle
import platform
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import serialize_executable

import delphi_jax
from delphi_jax.kernels.precision import OLD_EMITTERS, run_kernels_with
from delphi_jax.whole import make_own_folder, write_whole

__all__ = ["keep_programs"]

# For a study, compiling takes far longer than running. XLA's older emitters compile in two thirds of the time, and
# without optimisation in a fifth, at two to eight times the run time: worth it where a kernel runs for milliseconds.
# Cutting a program into parts for several threads costs more than it gains: programs are compiled side by side.
_TOGETHER = {"xla_cpu_parallel_codegen_split_count": 1}
_UNOPTIMISED = _TOGETHER | OLD_EMITTERS | {"xla_backend_optimization_level": 0}
_OPTIMISED = _TOGETHER | {"xla_backend_optimization_level": 1}
_LONG = {"summed_covariance", "partial_dependence", "fit_ard_processes", "ard_dependence"}
"""Kernels that run longer than their compiling takes. Over several devices partial dependence is one program."""
_MANY = 1 << 16
"""Numbers in a kernel's arguments beyond which it runs longer than compiling in full takes: no fit of one study."""
_FIRST = ("fit_processes", "fit_richards", "summed_covariance", "averaged_process")
"""Kernels that are waited for longest, for their own sake or for what follows, in the order to make them in."""


def keep_programs(folder: Path) -> None:
    """Keep the compiled kernels of this process in ``folder``, and take them from there.

    Switches JAX's own compilation cache off: for a command that owns its process, not for a library. Whoever can
    write to ``folder`` can run code as its reader, so it is made for its owner alone. Raises OSError where it
    cannot be made, or where others can write to it.
    """
    make_own_folder(folder)
    jax.config.update("jax_enable_compilation_cache", False)
    run_kernels_with(_Programs(folder))


class _Program:
    """One program of a process: made once, by whichever thread wants it first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.compiled: jax.stages.Compiled | None = None
        self.trusted = False
        """Whether it was made in this process, or has run."""


class _Programs:
    """Runs kernels from executables in memory, else on disk, else freshly compiled and kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._programs: dict[tuple[Any, ...], _Program] = {}
        self._world = _world()

    def __call__(self, name: str, jitted: Callable[[], Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs = _typed((args, kwargs))
        program, path = self._place(name, args, kwargs)
        with program.lock:
            if program.compiled is None:
                _get(program, name, jitted, args, kwargs, path)
            if not program.trusted:
                # What does not run is compiled anew: the numbers are the same.
                with contextlib.suppress(Exception):
                    result = jax.block_until_ready(program.compiled(*args, **kwargs))
                    program.trusted = True
                    return result
                _make(program, name, jitted, args, kwargs, path)
        return program.compiled(*args, **kwargs)

    def prepare(self, name: str, jitted: Callable[[], Any], args: tuple[Any, ...]) -> None:
        """Make or load the program of a later call whose arguments have the shapes and types of ``args``."""
        (args,) = _typed((args,))
        program, path = self._place(name, args, {})
        with program.lock:
            if program.compiled is None:
                _get(program, name, jitted, args, {}, path)

    def _place(self, name: str, args: Any, kwargs: Any) -> tuple[_Program, Path]:
        """The program of a kernel and the shapes of its arguments, and the file that keeps it."""
        leaves, tree = jax.tree.flatten((args, kwargs))
        key = (name, tree, *((leaf.shape, leaf.dtype.name) for leaf in leaves))
        digest = hashlib.sha256(f"{self._world}\n{key}".encode()).hexdigest()
        return self._programs.setdefault(key, _Program()), self._folder / f"{name}-{digest[:32]}.program"


def _typed(arguments: Any) -> Any:
    """Executables want arrays of the very type that they were compiled for: no weakly typed numbers."""
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else np.asarray(leaf), arguments)


def _get(program: _Program, name: str, jitted: Callable[[], Any], args: Any, kwargs: Any, path: Path) -> None:
    """Load ``program`` from ``path``, or make it where there is none, or a damaged one."""
    with contextlib.suppress(Exception):
        program.compiled = _unpack(path.read_bytes())
        return
    _make(program, name, jitted, args, kwargs, path)


def _make(program: _Program, name: str, jitted: Callable[[], Any], args: Any, kwargs: Any, path: Path) -> None:
    """Compile ``program``, and keep it at ``path`` if that can be."""
    program.compiled, program.trusted = _compile(name, jitted(), args, kwargs), True
    with contextlib.suppress(Exception):
        write_whole(path, _pack(program.compiled))


def _options(name: str, jitted: Any, arguments: Any) -> dict[str, Any]:
    """How to compile a kernel for CPU: the faster, the less it will have to do."""
    if name in _LONG:
        return dict(_OPTIMISED)
    if sum(leaf.size for leaf in jax.tree.leaves(arguments)) > _MANY:
        return dict(jitted.__wrapped__.cpu_options)
    return dict(_UNOPTIMISED)


class _Turns:
    """One thread at a time, in the order of :data:`_FIRST`, the rest as they come."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[int, int]] = []
        self._taken = False
        self._numbers = itertools.count()

    @contextlib.contextmanager
    def turn(self, name: str) -> Iterator[None]:
        with self._changed:
            ticket = (_FIRST.index(name) if name in _FIRST else len(_FIRST), next(self._numbers))
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: not self._taken and min(self._waiting) == ticket)
                self._taken = True
            finally:
                # An interrupt, too, must not leave a ticket for which all others wait.
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()


_tracing = _Turns()
"""Tracing holds the interpreter: in turns, one is done early and goes on to the compiler while the next is traced."""


def _compile(name: str, jitted: Any, args: Any, kwargs: Any) -> jax.stages.Compiled:
    with _tracing.turn(name):
        lowered = jitted.lower(*args, **kwargs)
    options = _options(name, jitted, (args, kwargs)) if jax.default_backend() == "cpu" else {}
    while True:
        try:
            return lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            # The options are XLA's own and come and go: without one, the kernel compiles in a longer time.
            unknown = [option for option in options if repr(option) in str(error)]
            if not unknown:
                raise
            for option in unknown:
                del options[option]


def _pack(program: jax.stages.Compiled) -> bytes:
    """``program`` with the devices that it runs on, which its serialised form does not name."""
    devices = [device.id for device in program.runtime_executable().local_devices()]
    return pickle.dumps((devices, serialize_executable.serialize(program)))


def _unpack(kept: bytes) -> jax.stages.Compiled:
    ids, program = pickle.loads(kept)
    local = {device.id: device for device in jax.local_devices()}
    devices = [local[number] for number in ids]
    return serialize_executable.deserialize_and_load(*program, devices[0].client, devices)


def _world() -> str:
    """All that an executable depends on beside its kernel's name and arguments."""
    backend = jax.devices()[0].client
    sources = sorted(Path(delphi_jax.__file__).parent.glob("kernels/*.py"))
    sources += [Path(delphi_jax.__file__).parent / name for name in ("formulas.py", "programs.py", "status.py")]
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
