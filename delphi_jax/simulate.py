"""A simulated study: every table that the toolkit reads, drawn from closed forms with known parameters.

No number in it was measured. Tables are the same bytes on every machine: one NumPy PCG64 stream, normal and
uniform draws only, and every value rounded to 8 significant digits, far above the last-digit differences
between mathematical libraries.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from delphi_jax.definition import delphi
from delphi_jax.formulas import law_loss, richards
from delphi_jax.heuristics import Cell, HyperParameter, SweepDesign
from delphi_jax.model_names import model_name
from delphi_jax.status import InputError
from delphi_jax.tasks import Task
from delphi_jax.text import scientific

__all__ = ["GENERATOR_VERSION", "is_simulated", "simulate_study", "write_study"]

GENERATOR_VERSION = 1
"""Raised whenever the same seed gives other tables."""

Row = dict[str, Any]

_DIGITS = 8
_PROVENANCE = "provenance.json"
_README = "README.md"

_BUDGETS = (3e18, 9e18, 2e19, 3e19, 9e19, 2e20, 3e20)
_HELD_OUT = (1e21, 1e22, 1e23)
_HELD_OUT_SHAPES = {1e21: (2560, 27), 1e22: (3840, 38), 1e23: (5376, 54)}
_SEEDS = ("", "seed42-", "seed1337-")
_VOCABULARY = 128_000

# Compute-optimal loss L_inf + A*(C/1e20)**-alpha per suite, nats; AdamH is a little better throughout.
_LAWS = {"adamh": (1.45, 1.585, 0.098), "adamc": (1.43, 1.640, 0.095)}
_LOSS_NOISE = {"adamh": 0.0025, "adamc": 0.008}
# Loss beside the optimum: curvature*d**2 + skew*d**3 with d = log10(T/T*), T* = tokens*(C/1e20)**exponent.
_CURVATURE = 0.165
_SKEW = 0.012
_OPTIMAL_TOKENS = (1.25e10, 0.52)

# Models of the external evaluations: organisation--id as run names write them, and capability from 0 to 1.
_EXTERNAL_MODELS = (
    ("Qwen--Qwen3-0-6B-Base", 0.40),
    ("Qwen--Qwen3-1-7B-Base", 0.60),
    ("Qwen--Qwen3-4B-Base", 0.77),
    ("Qwen--Qwen3-8B-Base", 0.88),
    ("Qwen--Qwen3-14B-Base", 1.00),
    ("meta-llama--Llama-2-7b-hf", 0.33),
    ("meta-llama--Llama-2-13b-hf", 0.42),
    ("meta-llama--Llama-3-1-8B", 0.63),
    ("meta-llama--Llama-3-2-1B", 0.20),
    ("meta-llama--Llama-3-2-3B", 0.47),
    ("allenai--OLMo-2-1124-7B", 0.55),
    ("allenai--OLMo-2-1124-13B", 0.65),
    ("marin-community--marin-8b-base", 0.67),
    ("google--gemma-3-4b-pt", 0.51),
)

# Soft metric over compute: floor + amplitude*(C/1e20)**-alpha.
_SOFT_LAWS = {
    ("mmlu", 0): (0.16, 1.07, 0.094),
    ("mmlu", 5): (0.16, 1.03, 0.098),
    ("humaneval", 10): (0.30, 0.525, 0.165),
    ("gsm8k", 5): (0.27, 0.455, 0.170),
}
# Soft metric of the external models: from the weakest (capability 0) to the strongest (capability 1).
_EXTERNAL_SOFT = {"mmlu": (1.42, 0.36), "humaneval": (0.92, 0.35), "gsm8k": (0.93, 0.30)}
# Richards curve from the soft to the hard metric: k, x0, v, ceiling. The steep curve of MMLU saturates at a
# positive log-loss, so its asymptote is inverted; GSM8K's saturates below zero bits per byte and is clamped.
_CURVES = {
    "mmlu": (13.0, -0.76, 0.9, 0.86),
    "humaneval": (9.0, -0.50, 2.0, 0.72),
    "gsm8k": (8.5, -0.46, 1.2, 0.90),
}


def simulate_study(seed: int = 0) -> dict[str, list[Row]]:
    """Rows of the eight tables by table name, drawn with ``seed``; nothing in them was measured.

    Two suites of IsoFLOP runs at seven budgets with held-out runs beyond, one of which diverged, a sweep of
    23 of its 24 cells, and downstream evaluations of the runs and of external models.

    Examples:

    >>> import delphi_jax as dj
    >>> tables = dj.simulate_study(seed=0)
    >>> {name: len(rows) for name, rows in tables.items() if not name.endswith("external")}
    {'runs': 238, 'hparam_sweep': 915, 'mmlu': 20, 'humaneval': 10, 'gsm8k': 10}
    """
    rng, design = np.random.Generator(np.random.PCG64(seed)), delphi().sweep
    runs = [*_isoflop_runs(rng, "adamh"), *_isoflop_runs(rng, "adamc"), *_held_out_runs(rng)]
    study = {
        "runs": _shuffled(rng, runs),
        design.table: _shuffled(rng, _sweep_trials(rng, design)),
    }
    for task in delphi().tasks:
        rows = [row for shot in _shots(task) for row in _evals(rng, task, shot)]
        study[task.table] = _shuffled(rng, rows) if task.shot_column else rows
        study[task.external_table] = _external_evals(rng, task)
    return {table: [_rounded(row) for row in rows] for table, rows in study.items()}


def write_study(out: Path, seed: int = 0) -> list[Path]:
    """Write the simulated study as a data folder with a README and ``provenance.json``; returns the files.

    The folder appears whole or not at all. An ``out`` that exists is replaced only if it is empty or holds
    an unchanged simulated study; anything else raises InputError, as does a place that cannot be written.

    Examples:

    >>> import tempfile
    >>> import delphi_jax as dj
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sorted(path.name for path in dj.write_study(folder))[-3:]
    ['mmlu_external.json', 'provenance.json', 'runs.json']
    """
    out = Path(out)
    replace = out.exists()
    if replace and not _replaceable(out):
        raise InputError(f"{out}: holds something else than an unchanged simulated study; choose a new folder")
    files = _documents(seed)
    target = out.resolve()
    partial = target.with_name(f".{target.name}.partial")
    retired = target.with_name(f".{target.name}.retired")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for leftover in (partial, retired):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir()
        for name, content in files.items():
            (partial / name).write_bytes(content)
        if replace:
            target.rename(retired)
        partial.rename(target)
        shutil.rmtree(retired, ignore_errors=True)
    except OSError as error:
        if retired.exists() and not target.exists():
            retired.rename(target)
        shutil.rmtree(partial, ignore_errors=True)
        raise InputError(f"{out}: cannot be written ({error.strerror or error})") from None
    return [out / name for name in files]


def _isoflop_runs(rng: np.random.Generator, suite: str) -> list[Row]:
    rows = []
    suffix = {"adamh": "adamh_scaling_v6", "adamc": "nemo-wider-depth-adapt"}[suite]
    for budget in _BUDGETS:
        for width in _widths(budget, suite):
            row = _run(rng, suite, budget, width, round(width / 96))
            name = f"isoflop-{scientific(budget)}-d{width}-L{round(width / 96)}-B{row.pop('batch')}-{suffix}"
            rows.append({"name": name, **row})
    if suite == "adamh":
        # One run that crashed: its last loss is no measurement of the budget.
        crashed = _run(rng, suite, 9e19, 4608, 48)
        name = f"isoflop-{scientific(9e19)}-d4608-L48-B{crashed.pop('batch')}-{suffix}"
        rows.append({"name": name, **crashed, "loss": crashed["loss"] + 0.9, "state": "crashed"})
    return rows


def _widths(budget: float, suite: str) -> list[int]:
    """Hidden dims of one budget's IsoFLOP runs; AdamC was also tried at a few that AdamH never saw."""
    optimal_tokens = _optimal_tokens(budget)
    widths = [
        width
        for width in range(512, 4224, 128 if budget < 2.5e19 else 256)
        if -0.95 < math.log10(budget / (6 * _params(width, round(width / 96)) * optimal_tokens)) < 1.1
    ]
    return [*widths, widths[-1] + 384] if suite == "adamc" and budget in (9e18, 9e19, 3e20) else widths


def _held_out_runs(rng: np.random.Generator) -> list[Row]:
    rows = []
    for budget in _HELD_OUT:
        width, depth = _HELD_OUT_SHAPES[budget]
        for seed in _SEEDS if budget < 1e23 else _SEEDS[:1]:
            row = _run(rng, "adamh", budget, width, depth)
            del row["batch"]
            name = f"adamh-scaling-ladder-nemotron-optimal-{scientific(budget)}-v5-{seed}{_tag(rng)}"
            rows.append({"name": name, **row})
        row = _run(rng, "adamc", budget, width, depth)
        del row["batch"]
        if budget == 1e23:
            row |= {"tokens": 0.61 * row["tokens"], "total_gflops": 0.61 * row["total_gflops"]}
            row |= {"loss": row["loss"] + 0.7, "state": "crashed"}
        name = f"exp2166-scaling-ladder-nemotron-validation-optimal-{scientific(budget)}-{_tag(rng)}"
        rows.append({"name": name, **row})
    return rows


def _run(rng: np.random.Generator, suite: str, budget: float, width: int, depth: int) -> Row:
    """One training run at a budget: C = 6*N*T, with the loss of its suite's law and bowl."""
    params = _params(width, depth)
    compute = budget * (1 + 2e-5 * float(rng.standard_normal()))
    tokens = compute / (6 * params)
    distance = math.log10(tokens / _optimal_tokens(budget))
    loss = float(law_loss(budget / 1e20, *_LAWS[suite])) + _CURVATURE * distance**2 + _SKEW * distance**3
    return {
        "params": float(params),
        "tokens": tokens,
        "loss": loss + _LOSS_NOISE[suite] * float(rng.standard_normal()),
        "total_gflops": compute / 1e9,
        "state": "finished",
        "batch": 2 ** min(max(round(math.log2(tokens / 2.5e8)), 3), 9),
    }


def _params(width: int, depth: int) -> int:
    """Parameters of a transformer with tied attention and MLP sizes, and separate embeddings in and out."""
    return 12 * depth * width**2 + 2 * _VOCABULARY * width


def _optimal_tokens(budget: float) -> float:
    tokens, exponent = _OPTIMAL_TOKENS
    return tokens * (budget / 1e20) ** exponent


def _sweep_trials(rng: np.random.Generator, design: SweepDesign) -> list[Row]:
    """Trials of every sweep cell but one, which was never run: a bowl about a point near the heuristic."""
    cells = (cell for cell in design.cells if cell != (16, 256, "5B"))
    return [row for cell in cells for row in _cell_trials(rng, design, cell)]


def _cell_trials(rng: np.random.Generator, design: SweepDesign, cell: Cell) -> list[Row]:
    batch_size, hidden_dim, key = cell
    nominal_tokens = next(horizon.tokens for horizon in design.horizons if horizon.key == key)
    center = design.forward(design.heuristic_point(cell))
    best = center + np.array([0.15, 0.2, 0.3, 0.15, 0.2]) * rng.standard_normal(5)
    curvature = np.array([0.045, 0.012, 0.001, 0.010, 0.004])
    floor = (
        4.30 - 0.34 * (hidden_dim == 512) - 0.115 * math.log(nominal_tokens / 1e9) + 0.012 * math.log2(batch_size / 8)
    )
    rows = []
    for _ in range(int(rng.integers(35, 46))):
        point = center + np.array([0.75, 0.85, 1.3, 0.6, 0.75]) * rng.standard_normal(5)
        bowl = float(np.sum(curvature * (point - best) ** 2))
        fate = float(rng.random())
        loss = floor + bowl + 0.006 * float(rng.standard_normal()) + (2.5 if fate > 0.985 else 0.0)
        crashed = fate < 0.045
        # Betas stay above 0.
        inside = [min(float(x), -0.1) if h.range == "beta" else float(x) for h, x in _pairs(design, point)]
        values = {h.column: h.backward(x) for h, x in _pairs(design, inside)}
        rows.append(
            {
                design.state_column: "crashed" if crashed else "finished",
                design.batch_column: batch_size,
                design.hidden_column: hidden_dim,
                design.tokens_column: nominal_tokens * (1 + 0.008 * (2 * float(rng.random()) - 1)),
                **values,
                design.loss_column: None if crashed else loss,
            }
        )
    return rows


def _pairs(design: SweepDesign, values: Sequence[float]) -> Iterable[tuple[HyperParameter, float]]:
    return zip(design.hyper_parameters, values, strict=True)


def _shots(task: Task) -> list[int]:
    """Shot counts of the task's evaluations."""
    return [shot for key, shot in _SOFT_LAWS if key == task.key]


def _evals(rng: np.random.Generator, task: Task, shot: int) -> list[Row]:
    """One task's evaluations of the optimal run of every budget; small runs were not scored everywhere."""
    rows = []
    for budget in (*_BUDGETS, *_HELD_OUT):
        soft = float(law_loss(budget / 1e20, *_SOFT_LAWS[task.key, shot])) * (1 + 0.004 * float(rng.standard_normal()))
        name = f"delphi-{scientific(budget)}-{task.key}" + (f"-{shot}shot" if task.shot_column else "")
        row: Row = {task.run_column: name, task.budget_column: budget}
        if task.shot_column:
            row[task.shot_column] = shot
        hard = _hard(rng, task, soft)
        unscored = not task.hard_required and budget == _BUDGETS[0]
        rows.append(row | {task.soft_column: task.soft_sign * soft, task.hard_column: None if unscored else hard})
    return rows


def _external_evals(rng: np.random.Generator, task: Task) -> list[Row]:
    """One task's evaluations of the external models, and of in-house comma-mix runs where its table holds such."""
    rows, shots = [], {task.shot_column: max(_shots(task))} if task.shot_column else {}
    weakest, strongest = _EXTERNAL_SOFT[task.key]
    for model, capability in _EXTERNAL_MODELS:
        tag, run = _tag(rng), _tag(rng)
        soft = weakest + (strongest - weakest) * capability + 0.006 * float(rng.standard_normal())
        scores = {task.soft_column: task.soft_sign * soft, task.hard_column: _hard(rng, task, soft)}
        if task.named_by == "run":
            harness = f"lmeval_{task.key}_{max(_shots(task))}shot"
            name = f"marin-us-east5-a-gcsfuse_mount-models-{model}--{tag}_{harness}-{run}"
            rows.append({task.run_column: name, **shots, **scores})
        else:
            name = model.split("--")[-1]
            rows.append({task.run_column: name, task.display_column: model_name(name), **scores})
    if task.in_house:
        for budget, soft in ((1e19, 1.53), (3e19, 1.46), (1e20, 1.41)):
            name = f"isoflop-{scientific(budget)}-d1536-L16-B32-comma-mix-{_tag(rng)}"
            scores = {task.soft_column: task.soft_sign * soft, task.hard_column: _hard(rng, task, soft)}
            rows.append({task.run_column: name, **shots, **scores})
    return rows


def _hard(rng: np.random.Generator, task: Task, soft: float) -> float:
    """The hard metric at a soft one: whole problems solved, with the scatter of independent problems."""
    k, x0, v, ceiling = _CURVES[task.key]
    mean = float(richards(np.float64(-soft), k, x0, v, ceiling, task.floor))
    spread = 0.5 * math.sqrt(mean * (1 - mean) / task.n_problems)
    solved = round((mean + spread * float(rng.standard_normal())) * task.n_problems)
    return min(max(solved, 0), task.n_problems) / task.n_problems


def _tag(rng: np.random.Generator) -> str:
    return f"{int(rng.integers(16**6)):06x}"


def _shuffled(rng: np.random.Generator, rows: list[Row]) -> list[Row]:
    return [rows[i] for i in rng.permutation(len(rows))]


def _rounded(row: Row) -> Row:
    return {
        column: float(f"{value:.{_DIGITS - 1}e}") if isinstance(value, float) else value
        for column, value in row.items()
    }


def _documents(seed: int) -> dict[str, bytes]:
    """Every file of the data folder by name."""
    study = simulate_study(seed)
    tables = {f"{table}.json": _lines(rows) for table, rows in study.items()}
    files = {**tables, _README: _readme(seed, {table: len(rows) for table, rows in study.items()}).encode()}
    provenance = {
        "what": "simulated study: no number in these tables was measured",
        "simulated": True,
        "generator": "delphi_jax.simulate",
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "rows": {table: len(rows) for table, rows in study.items()},
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    return {**files, _PROVENANCE: (json.dumps(provenance, indent=2) + "\n").encode()}


def _lines(rows: list[Row]) -> bytes:
    """A JSON list with one compact row per line."""
    return ("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]\n").encode()


def _readme(seed: int, counts: dict[str, int]) -> str:
    table = "\n".join(f"| {name}.json | {count} |" for name, count in counts.items())
    return f"""# A simulated study

**Every number in this folder is simulated. Nothing here was measured, and nothing can be concluded from it
about any model, optimiser or benchmark, whatever the names in the tables.** The tables have the shape of a
real scaling-law study (run names, budgets, columns, gaps and crashed runs), so that every fit and figure has
something to work on.

Written by `delphi_jax.simulate.write_study` (generator version {GENERATOR_VERSION}, seed {seed}), the same
bytes on every machine; `{_PROVENANCE}` holds the SHA-256 of each file. The formulas and their parameters are
in that module.

| file | rows |
| --- | --- |
{table}
"""


def is_simulated(folder: Path) -> bool:
    """Whether a data folder says of itself, in its provenance file, that it is simulated."""
    try:
        return json.loads((folder / _PROVENANCE).read_bytes()).get("simulated") is True
    except (AttributeError, ValueError, OSError):
        return False


def _replaceable(out: Path) -> bool:
    """Whether a folder is empty, or holds exactly the files of its provenance, unchanged."""
    if not out.is_dir() or out.is_symlink():
        return False
    present = {path.name: path for path in out.iterdir()}
    if not present:
        return True
    try:
        sums = json.loads(present[_PROVENANCE].read_bytes())["sha256"]
        return set(present) == {*sums, _PROVENANCE} and all(
            hashlib.sha256(present[name].read_bytes()).hexdigest() == sums[name] for name in sums
        )
    except (KeyError, TypeError, ValueError, OSError):
        return False
