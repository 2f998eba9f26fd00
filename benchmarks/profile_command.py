"""Where the time of ``delphi-jax figures`` goes: ``python -m benchmarks.profile_command [rounds]``.

Prints two Markdown tables for the bundled study: the stages of one run from the start of the process to its end,
with an empty and with a filled folder of compiled programs, and what each program costs before it can be kept. The fits
of a run share the processor in threads, so the programs are measured in runs of their own, one after the other.
Medians over ``rounds`` (default 3) fresh processes.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, environment

__all__ = ["main"]

_EVENTS = {
    "jaxpr_trace_duration": "trace",
    "jaxpr_to_mlir_module_duration": "lower",
    "backend_compile_duration": "compile",
}
_COMPUTE = "of the fit: computing alone"


def main() -> None:
    if "--child" in sys.argv:
        _child(Path(sys.argv[2]), float(sys.argv[3]), serial=sys.argv[4] == "serial")
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for _ in range(rounds):
            for kind in ("serial", "threads"):
                shutil.rmtree(cache, ignore_errors=True)
                runs[f"{kind}, empty"].append(_process(cache, kind))
                runs[f"{kind}, filled"].append(_process(cache, kind))
    print("| stage | empty cache | filled cache |", "| --- | ---: | ---: |", sep="\n")
    for stage in runs["threads, empty"][0]["stages"]:
        kind = "serial" if stage == _COMPUTE else "threads"
        cells = [_median(runs[f"{kind}, {cache}"], "stages", stage) for cache in ("empty", "filled")]
        print(f"| {stage} |", " | ".join(cells), "|")
    print("\n| program | trace | lower | compile |", "| --- | ---: | ---: | ---: |", sep="\n")
    for program in runs["serial, empty"][0]["programs"]:
        cells = [_median(runs["serial, empty"], "programs", program, step) for step in _EVENTS.values()]
        print(f"| {program} |", " | ".join(cells), "|")


def _median(runs: list[dict[str, Any]], *path: str) -> str:
    values = []
    for run in runs:
        value: Any = run
        for key in path:
            value = value[key]
        values.append(value)
    return f"{1e3 * statistics.median(values):.0f} ms"


def _process(cache: Path, kind: str) -> dict[str, Any]:
    started = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.profile_command", "--child", str(cache), repr(started), kind],
        cwd=ROOT,
        env=environment(),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    ended = time.time()
    run = json.loads(done.stdout)
    run["stages"]["end the process"] = ended - run.pop("ended")
    run["stages"]["whole run"] = ended - started
    return run


def _child(cache: Path, started: float, *, serial: bool) -> None:
    """The steps of the command, in its order, with a clock between them."""
    stages: dict[str, float] = {}
    last = started

    def lap(stage: str) -> None:
        nonlocal last
        now = time.time()
        stages[stage] = now - last
        last = now

    gc.disable()
    lap("start Python")
    import numpy  # noqa: F401

    lap("import NumPy")
    from delphi_jax.draw import draw_figures, parts_for
    from delphi_jax.export import write_figures
    from delphi_jax.io import load_study

    lap("import the package's own tables, plots and files")
    study = load_study(ROOT / "data")
    lap("read and check the tables (imports pydantic)")
    import jax

    lap("import JAX")
    from delphi_jax import programs
    from delphi_jax.fit import study as fits

    programs.keep_programs(cache)
    lap("import fits and kernels, start JAX")
    spent: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))

    def listen(event: str, seconds: float, **about: Any) -> None:
        step = _EVENTS.get(event.rsplit("/", 1)[-1])
        if step:
            spent[about["fun_name"].removeprefix("jit(").removesuffix(")")][step] += seconds

    jax.monitoring.register_event_duration_secs_listener(listen)
    if serial:
        pool = fits.ThreadPoolExecutor
        fits.ThreadPoolExecutor = lambda *_, **__: pool(1)
        programs._Programs.prepare = lambda *_: None
    fit = fits.fit_study(study, parts_for(study.definition.figure_titles, study.definition))
    lap("fit: make or load the programs, compute")
    drawing = draw_figures(fit)
    lap("draw")
    write_figures(drawing.documents, cache.parent / "figures", ["json"])
    lap("write")
    if serial:
        fits.fit_study(study, parts_for(study.definition.figure_titles, study.definition))
    lap(_COMPUTE)
    # Traces within a program count as the program's: only those that reach the compiler are listed.
    made = {name: steps for name, steps in spent.items() if "compile" in steps}
    print(json.dumps({"stages": stages, "programs": made, "ended": time.time()}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
