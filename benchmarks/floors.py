"""What each kernel must do at least: operations and bytes, counted from the sizes, and seconds at this machine's rates.

A floor is the larger of operations over the rate of arithmetic and bytes over the rate of memory (the roofline of
Williams, Waterman and Patterson 2009, Communications of the ACM 52(4)). The rates are measured in the same session: a
float64 matrix product, and a sum of two arrays far larger than the caches.

Operations are those of the method (one logarithm per grid value and point, and so on), at real points only, with every
quantity that does not change computed once. They are weighted as is usual for counts that no compiler can shift
(Dongarra, performance evaluation tutorial at SC97, netlib.org): add, subtract, multiply and compare 1; divide and
square root 4; exponential and logarithm 8. A kernel that skips work, say grid values that cannot win, can go below.

Bytes are inputs read once and results written once, in the types of the kernels (8 bytes a number or status, 1 a flag).
No working set is added: kernels work in chunks meant to stay in the caches, and where one does not, that traffic is its
own doing and shows as distance from the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import timed

__all__ = [
    "Rates",
    "Work",
    "attainable",
    "bootstrap",
    "dependence",
    "evaluations",
    "free_laws",
    "parabolas",
    "processes",
    "richards",
    "total",
]

_MATRIX = 1024
_LONG = 2**24
"""Numbers per array of the memory test: 128 MiB each."""
_REPEATS = 5


@dataclass(frozen=True)
class Rates:
    """What the machine attains."""

    operations: float
    """Floating-point operations per second."""
    bytes: float
    """Bytes per second, reads and writes together."""


@dataclass(frozen=True)
class Work:
    """What must be done; a sum of parts and a multiple of one are work too."""

    simple: float = 0.0
    """Additions, subtractions, multiplications, comparisons."""
    quotients: float = 0.0
    """Divisions and square roots."""
    functions: float = 0.0
    """Exponentials and logarithms."""
    bytes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.simple + other.simple,
            self.quotients + other.quotients,
            self.functions + other.functions,
            self.bytes + other.bytes,
        )

    def __rmul__(self, times: float) -> Work:
        return Work(times * self.simple, times * self.quotients, times * self.functions, times * self.bytes)

    @property
    def operations(self) -> float:
        """Weighted sum, see the module."""
        return self.simple + 4 * self.quotients + 8 * self.functions

    def seconds(self, rates: Rates) -> float:
        """The floor: no less than arithmetic and no less than memory takes."""
        return max(self.operations / rates.operations, self.bytes / rates.bytes)


def total(parts: Iterable[Work]) -> Work:
    """All of ``parts``."""
    return sum(parts, start=Work())


def attainable() -> Rates:
    """The rates of this machine now, best of a few runs each."""
    with jax.enable_x64(True):
        matrix = jnp.ones((_MATRIX, _MATRIX))
        product = jax.jit(jnp.matmul)
        fastest = _fastest(lambda: product(matrix, matrix))
        long = jnp.ones(_LONG)
        triad = jax.jit(lambda a, b: a + 3.0 * b)
        return Rates(2 * _MATRIX**3 / fastest, 3 * long.nbytes / _fastest(lambda: triad(long, long)))


def _fastest(work: Callable[[], jax.Array]) -> float:
    jax.block_until_ready(work())
    return min(timed(lambda: jax.block_until_ready(work()))[0] for _ in range(_REPEATS))


def free_laws(series: int, points: int, asymptotes: int) -> Work:
    """Grid search: per grid value the mean, slope and squares of log(L - L_inf), in one pass over the points."""
    # Subtract, log, and three sums: of y, of y*dx, of y^2. Then mean, slope, score in six, and is it the best so far.
    per_value = points * Work(simple=6, functions=1) + Work(simple=9)
    per_series = asymptotes * per_value + points * Work(simple=5) + Work(simple=2, quotients=2, functions=1)
    moved = Work(bytes=points * 17 + asymptotes * 16 + 7 * 8)
    return series * (per_series + moved)


def bootstrap(draws: int, points: int, asymptotes: int) -> Work:
    """Logarithms once per possible smallest point; per draw and grid value three weighted sums over the points."""
    # Below a draw's smallest point lies none of its points.
    table = asymptotes * (points * (points + 1) / 2 * Work(simple=8, functions=1) + points * Work(simple=4))
    per_draw = (
        asymptotes * (points * Work(simple=6) + Work(simple=9))
        + points * Work(simple=11)
        + Work(simple=4, quotients=2, functions=1)
    )
    moved = Work(bytes=8 * points * asymptotes + 17 * points + draws * (8 * points + 5 * 8))
    return table + draws * per_draw + moved


def richards(problems: int, points: int, evaluations: float) -> Work:
    """``evaluations`` of the curve with its four derivatives and one damped step, per problem.

    The coarse grid that the starts come from is left out.
    """
    # u, softplus and sigmoid, power, residual; 4 derivatives; 4 sums for the gradient and 10 for the Hessian.
    per_point = Work(simple=43, quotients=1, functions=3)
    step = Work(simple=54, quotients=8, functions=2)
    moved = Work(bytes=17 * points + 8 + 8 * 8 + 5 * 8 + 4 + 8)
    return problems * (evaluations * (points * per_point + step) + moved)


def processes(cells: int, trials: int, features: int, evaluations: float) -> Work:
    """``evaluations`` of the likelihood with gradient and Hessian, per cell.

    The correlation and its two derivatives per pair; N^3 operations to invert (Golub and Van Loan, Matrix Computations,
    section 4.2), 2 N^3 for the product of inverse and derivative, and ten products of N^2.
    """
    pairs = trials * (trials - 1) / 2
    once = pairs * Work(simple=3 * features, quotients=1)
    per_evaluation = (
        pairs * Work(simple=15, functions=1)
        + Work(simple=3 * trials**3 + 20 * trials**2)
        + trials * Work(quotients=1, functions=1)
        + Work(functions=2)
    )
    moved = Work(bytes=trials * (8 * features + 9) + 3 * 8 + 2 + 3 * 8 + 8)
    return cells * (once + evaluations * per_evaluation + moved)


def dependence(cells: int, trials: int, features: int, values: int) -> Work:
    """One correlation per trial, trial, feature and value, and one triangular product per feature and value."""
    pairs = trials * (trials - 1) / 2
    factor = pairs * Work(simple=3 * features + 5, quotients=1, functions=1) + Work(simple=2 * trials**3 / 3)
    prior = pairs * Work(simple=9, quotients=1, functions=1)
    cross = trials**2 * Work(simple=8, quotients=1, functions=1) + trials * Work(simple=2)
    whitened = Work(simple=trials**2 + 4 * trials, quotients=1)
    moved = Work(bytes=trials * (8 * features + 9) + 2 * 8 + features * values * 3 * 8)
    return cells * (factor + features * (prior + values * (cross + whitened)) + moved)


def parabolas(groups: int, runs: int) -> Work:
    """Means, seven moments, two one-sided curvatures and the squared residuals, in a few passes over the runs."""
    per_group = runs * Work(simple=35) + Work(simple=30, quotients=7)
    moved = Work(bytes=25 * runs + 11 * 8 + 2)
    return groups * (per_group + moved)


def evaluations(module: Any, loop: str, run: Callable[[], Any], problems: int) -> float:
    """Mean evaluations per problem that ``run`` spends in the function ``loop`` of a kernel's module.

    The kernels do not report them: for this one run ``loop`` is replaced by itself and a note of the evaluations in
    the state that it returns. ``run`` must call the undecorated kernel.
    """
    counts: list[float] = []
    original = getattr(module, loop)

    def counted(*args: Any) -> Any:
        state = original(*args)
        jax.debug.callback(lambda n: counts.append(float(np.sum(n))), state.evaluations)
        return state

    with jax.enable_x64(True), mock.patch.object(module, loop, counted):
        jax.block_until_ready(jax.jit(run)())
        jax.effects_barrier()
    return sum(counts) / problems
