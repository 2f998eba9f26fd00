"""The benchmarks' own sums: comparisons on hand-made sessions, floors counted by hand and by XLA, exponents."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import floors, growth, report
from benchmarks.compare import compare, drift, spread
from benchmarks.measure import peak_memory
from benchmarks.saved import SavedError, load
from delphi_jax.batch import asymptote_grid
from delphi_jax.export import to_plotly
from delphi_jax.kernels import process, richards
from delphi_jax.kernels.bootstrap import bootstrap_laws
from delphi_jax.kernels.parabola import fit_parabolas
from delphi_jax.kernels.power_law import fit_free_laws

MACHINE = {"processor": "A", "cores": 2, "jax": "1.0"}
ROUNDS = (1.00, 1.02, 0.98, 1.01, 0.99)


def _benchmark(name: str = "grid search", rounds: Any = ROUNDS, **info: Any) -> dict[str, Any]:
    base = {"kind": "kernel", "name": name, "size": "7", "failures": 0, "baseline_share": 1.0}
    baseline = {"baseline_seconds": 10.0, "baseline_rounds": [10.0, 10.1, 9.9, 10.0, 10.0]}
    stats = {"data": list(rounds), "median": float(np.median(rounds))}
    return {"stats": stats, "extra_info": base | baseline | info}


def _growth(axis: str, side: str, amount: int, seconds: float) -> dict[str, Any]:
    info = {"kind": "growth", "axis": axis, "side": side, "amount": amount, "size": f"{amount} {axis}"}
    return _benchmark(f"growth with {axis}, {side}", [seconds] * 5) | {
        "extra_info": info | {"name": f"growth with {axis}, {side}"}
    }


@pytest.fixture
def save(tmp_path: Path) -> Any:
    def write(name: str, *benchmarks: dict[str, Any], machine: Any = MACHINE, controls: Any = (0.1, 0.1)) -> Path:
        rates = {"operations": 1e10, "bytes": 1e9}
        session = {"scale": "small", "machine": machine, "controls": list(controls), "rates": rates}
        path = tmp_path / name
        path.write_text(json.dumps({"benchmarks": list(benchmarks), "session": session}))
        return path

    return write


def _only_change(old: Path, new: Path) -> Any:
    (change,) = compare(load(old), load(new)).changes
    return change


# Comparisons


def test_spread_of_a_normal_sample_is_its_standard_deviation():
    logs = np.random.default_rng(0).normal(-3, 0.05, 20_001)
    assert spread(np.exp(logs)) == pytest.approx(0.05, rel=0.03)
    # One wild round in five does not widen it.
    assert spread([*np.exp([0.0, 0.1, -0.1, 0.05]), 100.0]) < 0.2


def test_drift_is_the_range_of_the_control():
    assert drift([0.2, 0.1, 0.15]) == pytest.approx(np.log(2))
    assert drift([]) == 0


def test_a_slowdown_within_noise_is_not_flagged(save):
    old = save("old.json", _benchmark())
    change = _only_change(old, save("new.json", _benchmark(rounds=np.array(ROUNDS) * 1.03)))
    assert change.factor == pytest.approx(1.03)
    assert change.verdict == "within noise"


def test_a_slowdown_beyond_noise_is_flagged_and_its_inverse_is_not(save):
    old, new = save("old.json", _benchmark()), save("new.json", _benchmark(rounds=np.array(ROUNDS) * 1.2))
    change = _only_change(old, new)
    # Both medians of |log| deviations are log(1.01), give or take; three of them at right angles.
    assert change.noise == pytest.approx(np.exp(3 * 1.4826 * 0.01 * np.sqrt(2)), rel=2e-3)
    assert change.factor == pytest.approx(1.2)
    assert change.verdict == "SLOWER"
    assert _only_change(new, old).verdict == "faster"


@pytest.mark.parametrize("controls", [(0.1, 0.13), (0.13, 0.13)], ids=["drifts", "slower throughout"])
def test_what_the_control_shows_too_is_noise(save, controls):
    old = save("old.json", _benchmark())
    new = save("new.json", _benchmark(rounds=np.array(ROUNDS) * 1.2), controls=controls)
    assert _only_change(old, new).verdict == "within noise"


def test_too_few_rounds_are_not_judged(save):
    old, new = save("old.json", _benchmark(rounds=[1.0])), save("new.json", _benchmark(rounds=[5.0]))
    change = _only_change(old, new)
    assert change.factor == 5
    assert change.verdict.startswith("not judged")


def test_different_machines_are_compared_by_their_ratios_alone(save, capsys):
    old = save("old.json", _benchmark(), _benchmark("study", baseline_seconds=None, baseline_rounds=[]))
    fast = {"baseline_seconds": 1.0, "baseline_rounds": [1.0, 1.01, 0.99, 1.0, 1.0]}
    rounds = np.array(ROUNDS) / 10
    new = save(
        "new.json",
        _benchmark(rounds=rounds, **fast),
        _benchmark("study", rounds=rounds, baseline_seconds=None, baseline_rounds=[]),
        machine=MACHINE | {"processor": "B"},
    )
    found = compare(load(old), load(new))
    (change,) = found.changes
    assert not found.in_seconds
    assert found.differences == ("processor: A then, B now",)
    assert change.factor == pytest.approx(1.0)
    assert change.verdict == "within noise"
    assert found.left_out == (("study: 7", "no baseline to take a ratio to"),)
    assert report.main([str(old), str(new)]) == 0
    printed = capsys.readouterr().out
    assert "Seconds do not compare (processor: A then, B now)" in printed
    assert "Not compared: study: 7" in printed


def test_a_slower_ratio_on_another_machine_is_flagged(save):
    new = save("new.json", _benchmark(rounds=np.array(ROUNDS) * 2), machine=MACHINE | {"jax": "2.0"})
    change = _only_change(save("old.json", _benchmark()), new)
    assert (change.factor, change.verdict) == (pytest.approx(2.0), "SLOWER")


def test_the_baseline_of_another_machine_has_noise_too(save):
    wild = {"baseline_seconds": 10.0, "baseline_rounds": [10.0, 15.0, 6.0, 20.0, 8.0]}
    new = save("new.json", _benchmark(rounds=np.array(ROUNDS) * 2, **wild), machine=MACHINE | {"jax": "2.0"})
    assert _only_change(save("old.json", _benchmark()), new).verdict == "within noise"


def test_benchmarks_of_one_session_alone_are_said(save):
    old, new = save("old.json", _benchmark("gone")), save("new.json", _benchmark("fresh"))
    found = compare(load(old), load(new))
    assert found.changes == ()
    assert found.left_out == (("gone: 7", "only in the old session"), ("fresh: 7", "only in the new session"))


# The printed report


def test_the_report_shows_every_kind(save, capsys):
    ratio = _benchmark(target=5, aim=8, floor_seconds=0.25, difference=1e-9, worse=0, compared=20)
    peer = _benchmark(
        "peer", kind="peer", peer_failures=3, peer_worse=2, compared=9, worse=1, largest_excess=0.5,
        peer_largest_excess=4.0,
    )  # fmt: skip
    study = _benchmark("cells", rounds=[60.0], kind="study", objective=1.5)
    memory = {"peak_bytes": 3e9, "peak_bytes_before": 1e9}
    study["extra_info"] |= {"rounds": [2.0, 2.0, 4.0], "first_call_seconds": 9.0, **memory}
    del study["extra_info"]["baseline_seconds"]
    grown = [_growth("draws", "ours", n, n * 1e-3) for n in (10, 100)]
    assert report.main([str(save("saved.json", ratio, peer, study, *grown))]) == 0
    printed = capsys.readouterr().out
    assert "| grid search: 7 | 10.0 s | 1.00 s | 10.0x | 5x (aim 8x) | 4.00x |" in printed
    assert "| peer: 7 | 10.0 s | 1.00 s | 10.0x | 3 | 2 of 9 | 4 | 1 of 9 | 0.5 |" in printed
    # The inner rounds of a study count, not the process around them.
    assert "| cells: 7 | 2.00 s |  | 9.00 s | 3.00 GB | 1.00 GB | 1.5 | 0 |" in printed
    assert "| draws | ours | 10: 10 ms, 100: 100 ms | 1.00 |" in printed
    assert "scale small, processor A, cores 2, jax 1.0, control varied by 1x, attainable 10 GFLOP/s, 1 GB/s" in printed


def test_a_slowdown_is_no_failure(save, capsys):
    old, new = save("old.json", _benchmark()), save("new.json", _benchmark(rounds=np.array(ROUNDS) * 9))
    assert report.main([str(old), str(new)]) == 0
    assert "1 of 1 slower beyond noise." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read"),
        ("{", "is not JSON"),
        ("[]", "was not saved by these benchmarks"),
        ('{"benchmarks": []}', "was not saved by these benchmarks (no 'session')"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error(tmp_path, capsys, content, words):
    path = tmp_path / "saved.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SavedError, match=re.escape(str(path))):
        load(path)
    for main in (report.main, growth.main):
        assert main([str(path)]) == 1
        captured = capsys.readouterr()
        assert words in captured.err and captured.out == ""


def test_no_saved_file_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert report.main([]) == 1
    assert "--benchmark-json=FILE" in capsys.readouterr().err


# Growth


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5])
def test_the_exponent_of_a_power_law(power):
    sizes = np.array([1e3, 3e3, 1e4])
    assert growth.exponent(sizes, 1e-6 * sizes**power) == pytest.approx(power, abs=1e-12)


def test_the_exponent_is_that_of_the_largest_decade():
    sizes = np.geomspace(1, 1e4, 9)
    seconds = np.maximum(1.0, sizes / 1e3) ** 2
    assert growth.exponent(sizes, seconds) == pytest.approx(2.0)


def test_no_exponent_without_two_sizes_in_a_decade():
    assert growth.exponent([10, 1000], [1.0, 2.0]) is None
    assert growth.exponent([], []) is None


def test_the_figure_shows_the_measurements_and_no_others(save, tmp_path, capsys):
    ours = [_growth("draws", "ours", n, 1e-5 * n**1.5) for n in (1000, 10_000, 100)]
    saved = save("saved.json", *ours, _growth("draws", "baseline", 100, 2.0), _growth("cells", "ours", 4, 0.5))
    document = growth.build_growth(load(saved).benchmarks)
    traces = {(trace["name"], trace["yaxis"]): (trace["x"], trace["y"]) for trace in document["data"]}
    assert traces == {
        ("Ours", "y"): ([100, 1000, 10_000], [pytest.approx(1e-5 * n**1.5) for n in (100, 1000, 10_000)]),
        ("Baseline, small sizes only", "y"): ([100], [2.0]),
        ("Ours", "y4"): ([4], [0.5]),
    }
    titles = [note["text"] for note in document["layout"]["annotations"]]
    assert titles == ["ours n^1.50, baseline", "not measured", "not measured", "ours"]
    assert len(to_plotly(document).data) == 3
    assert growth.main([str(saved), "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"how-cost-grows.html", "how-cost-grows.json"}
    assert "| draws | ours | 100: 10 ms, 1,000: 316 ms, 10,000: 10 s | 1.50 |" in capsys.readouterr().out


def test_a_session_without_growth_draws_nothing(save, tmp_path, capsys):
    assert growth.main([str(save("saved.json", _benchmark())), "--out", str(tmp_path / "out")]) == 1
    assert "holds no benchmarks of growth" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# Floors


def test_work_adds_up():
    work = floors.total([floors.Work(simple=1, quotients=2), 3 * floors.Work(functions=1, bytes=8)])
    assert work == floors.Work(simple=1, quotients=2, functions=3, bytes=24)
    assert work.operations == 1 + 4 * 2 + 8 * 3
    # 33 operations at 11 a second; 24 bytes at 4 a second.
    assert work.seconds(floors.Rates(operations=11, bytes=100)) == 3
    assert work.seconds(floors.Rates(operations=1000, bytes=4)) == 6


def test_free_laws_counted_by_hand():
    """One series of two points at one grid value."""
    points = 2 * (1 + 1 + 2 + 2)  # L - L_inf; the sums of y, of y*dx, of y*y
    value = 1 + 1 + 6 + 1  # mean, slope, score, comparison
    series = 2 * (1 + 1 + 2 + 1) + 2  # mean of x, dx, the sum of its squares, smallest loss; log A
    moved = 2 * (8 + 8 + 1) + (8 + 8) + 7 * 8  # x, loss, mask; grid and profile; seven numbers
    expected = floors.Work(simple=points + value + series, quotients=2, functions=2 + 1, bytes=moved)
    assert floors.free_laws(1, 2, 1) == expected
    assert floors.free_laws(6, 2, 5).operations == 6 * floors.free_laws(1, 2, 5).operations


def test_inversion_dominates_a_large_process():
    """N^3 for the inverse and 2 N^3 for its product with a derivative, per evaluation."""
    work = floors.processes(2, 10_000, 5, evaluations=3)
    assert work.operations == pytest.approx(2 * 3 * 3 * 10_000**3, rel=0.01)


def test_a_dependence_is_a_correlation_per_pair_and_value():
    work = floors.dependence(1, 1000, 5, 80)
    # A square root, an exponential and eight simple operations each, and one of the triangular product; the factor.
    expected = 5 * 80 * 1000**2 * (4 + 8 + 8 + 1) + 2 / 3 * 1000**3
    assert work.operations == pytest.approx(expected, rel=0.01)


def _nbytes(*trees: Any) -> int:
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(trees))


def _cases() -> dict[str, tuple[Any, tuple[Any, ...], floors.Work]]:
    """Kernels on full rows, of real points alone: (kernel, arguments, floor)."""
    rng = np.random.default_rng(0)
    B, P, G, R = 5, 8, 40, 30
    x, loss, mask = np.sort(rng.uniform(40, 47, (B, P))), rng.uniform(2, 3, (B, P)), np.ones((B, P), dtype=bool)
    counts = rng.multinomial(P, np.full(P, 1 / P), size=R).astype(float)
    return {
        "free laws": (
            fit_free_laws,
            (x, loss, mask, asymptote_grid(loss.min(axis=1), G)),
            floors.free_laws(B, P, G),
        ),
        "bootstrap": (
            bootstrap_laws,
            (x[0], loss[0], mask[0], counts, asymptote_grid(loss[0], G)),
            floors.bootstrap(R, P, G),
        ),
        "parabolas": (fit_parabolas, (x, loss, x, mask), floors.parabolas(B, P)),
    }


def _compiled(name: str) -> tuple[Any, int, floors.Work]:
    """The compiled kernel, the bytes of its arguments and results, and its floor."""
    kernel, arguments, work = _cases()[name]
    with jax.enable_x64(True):
        compiled = jax.jit(kernel.__wrapped__).lower(*arguments).compile()
        return compiled, _nbytes(arguments, compiled(*arguments)), work


@pytest.mark.parametrize("name", ["free laws", "parabolas"])
def test_operations_against_xla(name):
    """XLA counts what the compiled kernel does: no less than the floor, and not many times more."""
    compiled, moved, work = _compiled(name)
    cost = compiled.cost_analysis()
    # XLA counts masks, selections and searches too.
    assert 1 <= cost["flops"] / (work.simple + work.quotients) <= 6
    assert work.functions <= cost.get("transcendentals", 0) <= 2 * work.functions
    assert work.bytes == moved


def test_bytes_of_the_bootstrap():
    _, moved, work = _compiled("bootstrap")
    assert work.bytes == moved


def test_bootstrap_counted_by_hand():
    """Two points, one grid value, three draws."""
    # The larger point's draws see one logarithm, the smaller point's see two; and A = exp(log A) per draw.
    assert floors.bootstrap(3, 2, 1).functions == 1 + 2 + 3
    per_draw = 2 * (2 + 2 + 2) + 9 + 2 * 11 + 4  # three weighted sums; slope, score, comparison; the chosen line
    assert floors.bootstrap(4, 2, 1).simple - floors.bootstrap(3, 2, 1).simple == per_draw


def test_evaluations_are_those_of_every_lane():
    module = SimpleNamespace(refine=lambda lanes: SimpleNamespace(evaluations=lanes))

    def run() -> jax.Array:
        return module.refine(jnp.array([3, 4, 5])).evaluations + jax.vmap(lambda lane: module.refine(lane).evaluations)(
            jnp.array([1, 2, 3])
        )

    assert floors.evaluations(module, "refine", run, problems=6) == (12 + 6) / 6
    # What the benchmarks count in: renamed, they would find nothing.
    assert callable(richards._refine) and callable(process._ascend)


def test_peak_memory_is_in_bytes():
    held = np.ones(5_000_000)
    assert held.nbytes < peak_memory() < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
