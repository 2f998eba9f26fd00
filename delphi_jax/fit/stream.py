"""Bootstrap studies of any number of draws: in constant memory, on every device of every host, resumable.

Where the distinct resamples of a series are few, all of them are fitted once and draws are counted over that table
("table"); else draws are made, fitted and counted as they come ("stream"). "exact" weighs the table with the
probabilities themselves and draws nothing.
"""

from __future__ import annotations

import functools
import hashlib
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as Spec
from numpy.typing import ArrayLike, NDArray

from delphi_jax import __version__
from delphi_jax.batch import asymptote_grid, pad
from delphi_jax.checkpoint import check_writable, digest, read_state, write_state
from delphi_jax.definition import delphi
from delphi_jax.devices import AXIS, chunk_memory, first_process, from_first_process, over_processes, spread
from delphi_jax.fit.law import BOOTSTRAP_GRID, PERCENTILES, checked_series, enough_draws, one_law, refuse_draws
from delphi_jax.kernels.stream import (
    BIN_BITS,
    BLOCK,
    MAX_DRAWS,
    OCTAVES,
    Forecasts,
    Problem,
    Tally,
    bin_edges,
    empty_tally,
    forecast_draws,
    tally_blocks,
)
from delphi_jax.labels import BOOTSTRAP_METHODS
from delphi_jax.resamples import n_resamples, resample_counts, resample_probabilities, weighted_percentiles
from delphi_jax.results import BootstrapStudy, Floats, Interval
from delphi_jax.status import InputError, Status

__all__ = ["bootstrap_study", "choose_method", "counted_percentiles"]

_MOST_POINTS = 12
"""Series of up to so many points have a table: 1352078 resamples, which take half a gigabyte."""

_ROOM_ABOVE = 4
"""Octaves of the histogram above the largest loss; the others are below."""

_MOST_AT_ONCE = 2**20
"""Draws of a chunk: beyond, no device is busier."""

_SAME_DATA = 1e-9
"""Relative: hosts that differ in more have read other data."""

_AHEAD = 2
"""Steps that the devices have before them when the host waits for an earlier one."""

_FIRST_READ = 5
"""The step after which the state is read first; from then on the time between readings is kept."""

Integers = NDArray[np.int64]
Progress = Callable[[int, int], None]


def bootstrap_study(
    compute: ArrayLike,
    loss: ArrayLike,
    targets: Sequence[float] | None = None,
    *,
    draws: float | None = None,
    seed: int | None = None,
    method: str | None = None,
    percentiles: tuple[float, float, float] = PERCENTILES,
    n_grid: int = BOOTSTRAP_GRID,
    chunk: int | None = None,
    state: str | Path | None = None,
    interval: float = 60.0,
    progress: Progress | None = None,
    series: str = "series",
) -> BootstrapStudy:
    """Bootstrap the forecast of a free-asymptote law over its optima (methods, section 4) with any number of draws.

    ``compute`` (FLOPs) and ``loss``: [n]; ``targets`` in FLOPs, by default those of the Delphi study. ``method`` is one
    of :data:`~delphi_jax.labels.BOOTSTRAP_METHODS`; None takes that of :func:`choose_method`. ``draws``, and ``seed``
    (0), are for all methods but "exact", which takes every resample once. Numbers depend on the data, ``draws``,
    ``seed`` and the method, not on devices, hosts or ``chunk``, the draws that a device holds at once (None: as its
    memory allows). All processes of a cluster must call this with the same arguments.

    Percentiles of a table are those of its draws, with linear interpolation as in ``np.percentile``; those of a stream
    lie within the reported bound of that; exact ones are the inverse of the cumulative distribution. A percentile among
    forecasts that the histogram of a stream does not cover is NaN, and so are all where the fitted draws give one and
    the same law.

    A stream writes its ``state`` every ``interval`` seconds: to a file, which stays; or into an existing folder, under
    a name of its own, and removes it at the end. The same call goes on from there. A state that cannot be written is
    refused at the start; later, one in a folder is only warned of (RuntimeWarning), once. ``progress`` is called with
    (draws done, draws). An interrupt (KeyboardInterrupt) says where the state is.

    Raises ValueError for arguments that do not fit, and InputError for a state that cannot be used.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> compute = np.logspace(18, 20, 7)
    >>> loss = 2 + 1000 * compute**-0.2
    >>> fit = dj.bootstrap_study(compute, loss, [1e21], draws=1e6)
    >>> fit.method, f"{fit.draws:.0e}", round(fit.intervals[0].median, 2)
    ('table', '1e+06', 2.06)
    """
    arrays = checked_series(series, compute, loss)
    targets = np.atleast_1d(np.asarray(delphi().targets if targets is None else targets, dtype=np.float64))
    n = len(arrays[0])
    _refuse_arguments(series, n, targets, method, percentiles, chunk, interval)
    draws, seed = _checked_draws(series, draws, seed, method)
    method = _checked_method(series, n, draws, method, state)
    settings = {
        "version": __version__,
        "random bits": f"JAX {jax.__version__}, partitionable {jax.config.jax_threefry_partitionable}",
        "targets": targets.tolist(),
        "draws": draws,
        "seed": seed,
        "asymptotes": n_grid,
        "method": method,
        "blocks and bins": [BLOCK, BIN_BITS, OCTAVES, _ROOM_ABOVE],
    }
    arrays = _agreed(np.stack(arrays), settings)
    settings["data"] = hashlib.sha256(arrays.tobytes()).hexdigest()[:16]
    problem = _problem(arrays, targets, n_grid)
    if method == "stream":
        lowest_exponent = int(np.frexp(arrays[1].max())[1]) + _ROOM_ABOVE - OCTAVES
        fleet = _Fleet(problem, n, draws, seed, lowest_exponent, _blocks_at_once(chunk, problem, draws))
        keeper = _Keeper(state, settings, len(targets))
        tally = _stream(fleet, keeper, interval, progress or (lambda done, total: None))
        counted = _read_tally(tally, lowest_exponent, percentiles)
    else:
        counted = _count_table(problem, n, draws, seed, chunk, percentiles)
    return _study(series, method, problem, counted, percentiles, seed)


def choose_method(n: int, draws: float) -> str:
    """The table where ``n`` points have no more resamples than ``draws`` and n is at most 12, else the stream."""
    return "table" if n <= _MOST_POINTS and n_resamples(n) <= draws else "stream"


def _problem(arrays: Floats, targets: Floats, n_grid: int) -> Problem:
    """``arrays`` [2, n]: compute and loss."""
    (log_compute,), (mask,) = pad([np.log(arrays[0])])
    (losses,), _ = pad([arrays[1]])
    return Problem(log_compute, losses, mask, asymptote_grid(losses, n_grid), targets)


def _study(
    series: str, method: str, problem: Problem, counted: _Counted, percentiles: Sequence[float], seed: int | None
) -> BootstrapStudy:
    counts = counted.status
    status = Status.TOO_FEW_POINTS if counted.one_law else Status(int(np.flatnonzero(counts)[0]))
    bands, bounds = counted.bands, counted.bounds
    if method != "exact" and status is Status.FITTED and not enough_draws(int(counts[Status.FITTED]), percentiles):
        status, bands, bounds = Status.BEYOND_DRAWS, np.full_like(bands, np.nan), np.full_like(bounds, np.nan)
    return BootstrapStudy(
        series=series,
        targets=problem.targets,
        method=method,
        status=status,
        draws=int(counts.sum()),
        draw_counts={status: int(count) for status, count in zip(Status, counts, strict=True) if count},
        at_zero=counted.at_zero,
        intervals=tuple(Interval(*map(float, band)) for band in bands),
        bounds=bounds,
        outside=counted.outside,
        percentiles=tuple(percentiles),
        n_grid=problem.grid.shape[1],
        seed=seed,
    )


class _Counted(NamedTuple):
    """What a study says of its draws; fields as in :class:`~delphi_jax.results.BootstrapStudy`."""

    status: Integers
    """[statuses] draws that ended so."""
    at_zero: int
    bands: Floats
    """[Q, 3] percentiles."""
    bounds: Floats
    outside: Integers
    one_law: bool
    """Whether all fitted draws, one or more, give the same forecasts; percentiles are NaN then."""


def _refuse_arguments(
    series: str,
    n: int,
    targets: Floats,
    method: str | None,
    percentiles: Sequence[float],
    chunk: int | None,
    interval: float,
) -> None:
    if n == 0:
        raise ValueError(f"{series}: no points to resample")
    if not (targets.ndim == 1 and targets.size and np.all(np.isfinite(targets) & (targets > 0))):
        raise ValueError(f"targets must be finite positive budgets in FLOPs, at least one, got {targets.tolist()}")
    if method not in (None, *BOOTSTRAP_METHODS):
        raise ValueError(f"unknown method {method!r}, expected one of {list(BOOTSTRAP_METHODS)}")
    if method in ("table", "exact") and n > _MOST_POINTS:
        raise ValueError(
            f"{series}: {n} points have {n_resamples(n)} resamples, too many for method {method!r}: take 'stream'"
        )
    if len(percentiles) != 3 or not 0 <= percentiles[0] <= percentiles[1] <= percentiles[2] <= 100:
        raise ValueError(f"percentiles must be three ascending numbers from 0 to 100, got {percentiles}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1 draw, got {chunk}")
    if not 0 <= interval < float("inf"):
        raise ValueError(f"interval must be at least 0 seconds, and finite, got {interval}")


def _checked_draws(
    series: str, draws: float | None, seed: int | None, method: str | None
) -> tuple[int, int] | tuple[None, None]:
    """``draws`` and ``seed`` as whole numbers; None for the exact bootstrap, which takes neither."""
    if method == "exact":
        refuse_draws(series, draws=draws, seed=seed)
        return None, None
    if draws is None:
        raise ValueError(f"{series}: give the number of draws; only method 'exact' needs none")
    if not 1 <= draws <= MAX_DRAWS or draws != int(draws):
        raise ValueError(f"draws must be a whole number from 1 to {MAX_DRAWS}, got {draws}")
    seed = 0 if seed is None else seed
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise ValueError(f"seed must be a whole number of at least 0 and below 2**64, got {seed!r}")
    return int(draws), int(seed)


def _checked_method(series: str, n: int, draws: int | None, method: str | None, state: str | Path | None) -> str:
    """The ``method``, chosen where it is None; ValueError for a ``state`` that it does not keep."""
    taken = method or choose_method(n, draws)
    if state is not None and taken != "stream":
        chosen = "" if method else f", which was chosen for {draws} draws of {n} points"
        raise ValueError(f"{series}: only method 'stream' keeps a state, not {taken!r}{chosen}")
    return taken


def _agreed(arrays: Floats, settings: Mapping[str, Any]) -> Floats:
    """The first process's ``arrays`` [2, n], for every process: hosts may differ in the last digits of a fit.

    Raises ValueError, in every process, where they differ in more, or in ``settings``: such studies must not be added.
    """
    mine = digest({**settings, "points": arrays.shape[1]})
    digests = over_processes(lambda digests: digests, np.frombuffer(bytes.fromhex(mine), dtype=np.uint8))
    _refuse_others(np.any(digests != digests[0], axis=1))
    first = over_processes(lambda parts: parts.sum(axis=0), arrays if first_process() else np.zeros_like(arrays))
    close = np.allclose(arrays, first, rtol=_SAME_DATA, atol=0)
    _refuse_others(~over_processes(lambda parts: parts, np.bool_(close)))
    return first


def _refuse_others(others: NDArray[np.bool_]) -> None:
    if others.any():
        processes = ", ".join(map(str, np.flatnonzero(others)))
        raise ValueError(f"other data or arguments than in process 0 of the cluster: in process {processes}")


def _blocks_at_once(chunk: int | None, problem: Problem, draws: int) -> int:
    """Blocks of a device's chunk: as ``chunk`` says, or as memory allows; no more than there are."""
    if chunk is None:
        # As if the scores of all draws and asymptotes stood beside the residuals that they come from.
        chunk = min(_MOST_AT_ONCE, int(chunk_memory() / (8 * problem.grid.size)))
    needed = -(-draws // (BLOCK * jax.device_count()))
    return from_first_process(max(1, min(chunk // BLOCK, needed)))


class _Progress(NamedTuple):
    """How far all devices are together."""

    next_block: int
    tally: Tally
    """Fields [devices, ...]"""
    token: jax.Array
    """Ready when the step is."""


class _Fleet:
    """The devices and what runs on them: one step adds ``n_blocks`` blocks to the tally of each."""

    def __init__(
        self, problem: Problem, n_points: int, draws: int, seed: int, lowest_exponent: int, n_blocks: int
    ) -> None:
        self.draws = draws
        self.total_blocks = -(-draws // BLOCK)
        # The first device is one of the first process, which alone has a tally to go on from.
        self._devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
        self._problem = problem
        self._key = np.array([seed >> 32, seed & 0xFFFFFFFF], dtype=np.uint32)
        self._lowest_exponent = np.int64(lowest_exponent)
        self._step_blocks = n_blocks * len(self._devices)
        self._step = _step_program(tuple(self._devices), n_blocks, n_points)

    def start(self, next_block: int, tally: Tally) -> _Progress:
        """``tally`` on the first device, empty ones on the others."""

        def field(first: NDArray[Any], other: NDArray[Any]) -> jax.Array:
            return spread(self._devices, lambda i: other if i else first)

        with jax.enable_x64(True):
            return _Progress(next_block, jax.tree.map(field, tally, empty_tally(len(self._problem.targets))), None)

    def advance(self, progress: _Progress) -> _Progress:
        """One step further; does not wait for it. The tally of ``progress`` is used up."""
        with jax.enable_x64(True):
            tally, token = self._step(
                progress.tally,
                self._key,
                np.int64(progress.next_block),
                np.int64(self.draws),
                self._lowest_exponent,
                self._problem,
            )
        return _Progress(progress.next_block + self._step_blocks, tally, token)

    def copy(self, progress: _Progress) -> Tally:
        """The tally of every device as it is, safe from further steps; does not wait for it."""
        with jax.enable_x64(True):
            return _copy(progress.tally)


_copy = jax.jit(lambda tally: jax.tree.map(jnp.copy, tally))


def _total(copied: Tally, proposal: int = 0) -> tuple[Tally, int]:
    """The tally of all devices of all hosts together, and the first process's ``proposal``. Waits for both."""
    each = [[np.asarray(shard.data)[0] for shard in field.addressable_shards] for field in copied]
    joins = Tally(np.add, np.add, np.add, np.minimum, np.maximum)
    here = Tally(*(functools.reduce(join, parts) for join, parts in zip(joins, each, strict=True)))
    proposed = np.int64(proposal if first_process() else 0)
    total, agreed = over_processes(_added, (here, proposed))
    return total, int(agreed)


def _added(parts: tuple[Tally, jax.Array]) -> tuple[Tally, jax.Array]:
    """Tallies and proposals [processes, ...] put together."""
    tallies, proposals = parts
    sums = Tally(*(field.sum(axis=0) for field in tallies))
    return sums._replace(lowest=tallies.lowest.min(axis=0), highest=tallies.highest.max(axis=0)), proposals.sum(axis=0)


@functools.lru_cache(maxsize=8)
def _step_program(devices: tuple[jax.Device, ...], n_blocks: int, n_points: int) -> Callable[..., Any]:
    """The jitted step, in which no device waits for another."""

    def step(
        tally: Tally,
        key: jax.Array,
        first_block: jax.Array,
        n_draws: jax.Array,
        lowest_exponent: jax.Array,
        problem: Problem,
    ) -> tuple[Tally, jax.Array]:
        mine = tally_blocks(
            jax.tree.map(lambda leaf: leaf[0], tally),
            jax.random.wrap_key_data(key, impl="threefry2x32"),
            first_block + n_blocks * jax.lax.axis_index(AXIS),
            n_draws,
            lowest_exponent,
            problem,
            n_blocks=n_blocks,
            n_points=n_points,
        )
        return jax.tree.map(lambda leaf: leaf[None], mine), jnp.sum(mine.status)[None]

    each, same = Spec(AXIS), Spec()
    mesh = Mesh(np.array(devices), (AXIS,))
    sharded = jax.shard_map(step, mesh=mesh, in_specs=(each, *[same] * 5), out_specs=(each, each), check_vma=False)
    return jax.jit(sharded, donate_argnums=0)


class _Keeper:
    """The state file of one stream; only the first process touches it."""

    def __init__(self, state: str | Path | None, settings: Mapping[str, Any], n_targets: int) -> None:
        path = None if state is None else Path(state)
        self._removed_at_end = path is not None and path.is_dir()
        self.path = path / f"bootstrap-{digest(settings)[:32]}.state" if self._removed_at_end else path
        self._settings = settings
        self._n_targets = n_targets
        self._warned = False
        self.keeps = bool(from_first_process(path is not None))

    def start(self) -> tuple[int, Tally]:
        """The next block and the tally of all before: what the file holds, else the beginning."""
        empty = empty_tally(self._n_targets)
        found, refusal = None, None
        if self.path is not None and first_process():
            try:
                found = read_state(self.path, self._settings)
                check_writable(self.path)
            except InputError as error:
                refusal = error
        next_block = from_first_process(-1 if refusal else 0 if found is None else int(found["next_block"]))
        if next_block < 0:
            raise refusal or InputError("the first process of the cluster refused the state: see what it says")
        if found is None:
            return next_block, empty
        empty.histogram.flat[found["bins"]] = found["bin_counts"]
        return next_block, empty._replace(**{name: found[name] for name in _PLAIN_FIELDS})

    def write(self, next_block: int, tally: Tally) -> None:
        if self.path is None or not first_process():
            return
        flat = tally.histogram.ravel()
        bins = np.flatnonzero(flat)
        plain = {name: getattr(tally, name) for name in _PLAIN_FIELDS}
        arrays = {"next_block": np.int64(next_block), "bins": bins, "bin_counts": flat[bins], **plain}
        try:
            write_state(self.path, self._settings, arrays)
        except InputError as error:
            # Nobody asked for this file: the numbers are worth more than it.
            if not self._removed_at_end:
                raise
            self._warn(str(error))

    def finish(self, next_block: int, tally: Tally) -> None:
        if not self._removed_at_end:
            self.write(next_block, tally)
        elif first_process():
            try:
                self.path.unlink(missing_ok=True)
            except OSError as error:
                self._warn(f"{self.path}: the state cannot be removed: {error.strerror}")

    def _warn(self, what: str) -> None:
        if not self._warned:
            warnings.warn(f"{what}; the study goes on without", RuntimeWarning, stacklevel=2)
        self._warned = True


_PLAIN_FIELDS = ("status", "at_zero", "lowest", "highest")
"""Fields of a tally that its file holds as they are; of the histogram it holds the bins in use."""


class _Pace:
    """How many steps fit in the time between two readings."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._laps = deque(maxlen=32)

    def lap(self) -> None:
        self._laps.append(time.monotonic())

    def steps(self) -> int:
        if len(self._laps) < 2:
            return 1
        seconds = max((self._laps[-1] - self._laps[0]) / (len(self._laps) - 1), 1e-6)
        return max(1, round(self._interval / seconds))


def _stream(fleet: _Fleet, keeper: _Keeper, interval: float, report: Progress) -> Tally:
    """All draws, from where the state left off. The devices always have the next steps before them."""
    progress = fleet.start(*keeper.start())

    def done(next_block: int) -> int:
        return min(next_block * BLOCK, fleet.draws)

    report(done(progress.next_block), fleet.draws)
    pace, in_flight, reading = _Pace(interval), deque(), None
    step, next_read = 0, _FIRST_READ
    try:
        while progress.next_block < fleet.total_blocks:
            progress = fleet.advance(progress)
            step += 1
            in_flight.append((progress.next_block, progress.token))
            if keeper.keeps and step == next_read:
                reading = progress.next_block, fleet.copy(progress), pace.steps()
            if len(in_flight) <= _AHEAD:
                continue
            next_block, token = in_flight.popleft()
            token.block_until_ready()
            pace.lap()
            report(done(next_block), fleet.draws)
            if reading is not None and next_block == reading[0]:
                tally, steps = _total(*reading[1:])
                keeper.write(next_block, tally)
                reading, next_read = None, step + steps
        tally, _ = _total(fleet.copy(progress))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_keep_interrupted(fleet, keeper, progress)) from None
    report(fleet.draws, fleet.draws)
    keeper.finish(progress.next_block, tally)
    return tally


def _keep_interrupted(fleet: _Fleet, keeper: _Keeper, progress: _Progress) -> str:
    """Keep what is done, where this process has it all; says what is kept."""
    if not first_process():
        return "the first process of the cluster says what is kept"
    if keeper.path is None:
        return "nothing is kept, as no state was asked for"
    # A step that was just being sent off has used up the tally and not yet given the next.
    if jax.process_count() == 1 and not progress.tally.histogram.is_deleted():
        tally, _ = _total(fleet.copy(progress))
        keeper.write(progress.next_block, tally)
    if not keeper.path.exists():
        return "nothing is kept, as the state had not been written yet"
    return f"the state is kept in {keeper.path}, and the same call goes on from there"


def _count_table(
    problem: Problem, n: int, draws: int | None, seed: int | None, chunk: int | None, percentiles: Sequence[float]
) -> _Counted:
    """``draws`` over the table of all resamples; None takes every one of the n**n ordered resamples once."""
    table = resample_counts(n)
    probabilities = resample_probabilities(table)
    if draws is None:
        weights = np.rint(probabilities * n**n).astype(np.int64)
    else:
        weights = np.random.default_rng(seed).multinomial(draws, probabilities)
    fits = _fit_table(table, problem, _blocks_at_once(chunk, problem, len(table)) * BLOCK)
    fitted = (fits.status == Status.FITTED) & (weights > 0)
    values, times = fits.loss[fitted], weights[fitted]
    same = one_law(values)
    percentiles_of = weighted_percentiles if draws is None else counted_percentiles
    bands = _table_bands(percentiles_of, values, times, percentiles)
    if same:
        bands[:] = np.nan
    return _Counted(
        status=np.array([weights[fits.status == status].sum() for status in Status]),
        at_zero=int(weights[fitted & fits.at_zero].sum()),
        bands=bands,
        bounds=np.where(np.isnan(bands), np.nan, 0.0),
        outside=times @ ~np.isfinite(values),
        one_law=same,
    )


def _fit_table(table: NDArray[np.uint8], problem: Problem, rows: int) -> Forecasts:
    """Refit and forecast for every row of ``table`` [M, n], ``rows`` at once on each device of this process."""
    devices = jax.local_devices()
    rows = min(rows, -(-len(table) // len(devices)))
    fit = _table_program(tuple(devices))
    parts = []
    with jax.enable_x64(True):
        for start in range(0, len(table), rows * len(devices)):
            part = np.zeros((len(devices), rows, problem.mask.size), dtype=np.uint8)
            some = table[start : start + rows * len(devices)]
            part.reshape(-1, problem.mask.size)[: len(some), : table.shape[1]] = some
            parts.append(fit(spread(devices, part.__getitem__), problem))
        fetched = jax.device_get(parts)
    return Forecasts(*(np.concatenate(field)[: len(table)] for field in zip(*fetched, strict=True)))


@functools.lru_cache(maxsize=8)
def _table_program(devices: tuple[jax.Device, ...]) -> Callable[..., Forecasts]:
    def fit(counts: jax.Array, problem: Problem) -> Forecasts:
        return forecast_draws(counts[0].astype(jnp.float64), problem)

    mesh = Mesh(np.array(devices), (AXIS,))
    return jax.jit(jax.shard_map(fit, mesh=mesh, in_specs=(Spec(AXIS), Spec()), out_specs=Spec(AXIS), check_vma=False))


def _table_bands(
    percentiles_of: Callable[..., Floats], values: Floats, times: Integers, percentiles: Sequence[float]
) -> Floats:
    """Percentiles [Q, 3] of ``values`` [M, Q], each drawn so many ``times`` [M]; NaN where they do not exist."""
    bands = np.full((values.shape[1], len(percentiles)), np.nan)
    for band, column in zip(bands, values.T, strict=True):
        # A forecast that is no number may stand anywhere.
        if len(column) and not np.isnan(column).any():
            order = np.argsort(column)
            band[:] = percentiles_of(column[order], times[order], percentiles)
    return np.where(np.isfinite(bands), bands, np.nan)


def _read_tally(tally: Tally, lowest_exponent: int, percentiles: Sequence[float]) -> _Counted:
    same = bool(np.all(tally.lowest == tally.highest))
    banded = np.array([_banded(*each, percentiles) for each in _histograms(tally, lowest_exponent)])
    if same:
        banded[:] = np.nan
    return _Counted(
        status=tally.status,
        at_zero=int(tally.at_zero),
        bands=banded[:, 0],
        bounds=banded[:, 1],
        outside=tally.histogram[:, [0, -2, -1]].sum(axis=1),
        one_law=same,
    )


def _histograms(tally: Tally, lowest_exponent: int) -> list[tuple[Floats, Floats, Integers]]:
    """(lower edges, upper edges, counts) of each target's bins in use, ascending; infinite outside the range.

    A forecast that is no number may stand anywhere: then both edges of every bin are unknown.
    """
    edges = bin_edges(lowest_exponent)
    lower, upper = np.concatenate([[-np.inf], edges]), np.concatenate([edges, [np.inf]])
    found = []
    for histogram, lowest, highest in zip(tally.histogram, tally.lowest, tally.highest, strict=True):
        used = np.flatnonzero(histogram[:-1])
        low, high = lower[used], upper[used]
        inside = np.isfinite(low) & np.isfinite(high)
        low, high = np.where(inside, np.maximum(low, lowest), low), np.where(inside, np.minimum(high, highest), high)
        known = histogram[-1] == 0
        found.append((np.where(known, low, -np.inf), np.where(known, high, np.inf), histogram[used]))
    return found


def _banded(lower: Floats, upper: Floats, counts: Integers, percentiles: Sequence[float]) -> tuple[Floats, Floats]:
    """Percentiles [3] of counted draws that are known to lie between ``lower`` and ``upper``, and their bounds."""
    if not counts.size:
        return np.full(len(percentiles), np.nan), np.full(len(percentiles), np.nan)
    low, high = (counted_percentiles(edges, counts, percentiles) for edges in (lower, upper))
    known = np.isfinite(low) & np.isfinite(high)
    low, high = np.where(known, low, np.nan), np.where(known, high, np.nan)
    return (low + high) / 2, (high - low) / 2


def counted_percentiles(values: Floats, counts: Integers, percentiles: Sequence[float]) -> Floats:
    """``np.percentile`` (linear interpolation) of ascending ``values`` [M], each ``counts`` [M] > 0 times, as [K].

    It does not fall where a value rises, so that percentiles of lower and upper limits enclose that of what
    lies between them. Infinite values may give infinity or NaN.
    """
    cumulative = np.cumsum(counts)
    place = np.asarray(percentiles, dtype=np.float64) / 100 * (cumulative[-1] - 1)
    before = np.floor(place).astype(np.int64)
    after = np.minimum(before + 1, cumulative[-1] - 1)
    low, high = (values[np.searchsorted(cumulative, rank, side="right")] for rank in (before, after))
    with np.errstate(invalid="ignore"):
        return low + (place - before) * (high - low)
