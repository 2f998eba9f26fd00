"""The loss surfaces of a study's suites over its IsoFLOP runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from delphi_jax.fit.law import PERCENTILES
from delphi_jax.fit.surface import bootstrap_surface
from delphi_jax.results.surface import SurfaceObjective, SurfaceStudy
from delphi_jax.tables import RunTable, fit_runs

__all__ = ["fit_study_surfaces"]


def fit_study_surfaces(
    runs: RunTable,
    suites: Sequence[str] | None = None,
    *,
    objective: SurfaceObjective | None = None,
    at: Sequence[tuple[float, float]] = (),
    draws: int = 1000,
    seed: int = 0,
    percentiles: tuple[float, float, float] = PERCENTILES,
) -> SurfaceStudy:
    """Fit and bootstrap the surface of every suite of ``runs``, or of ``suites``; see :func:`bootstrap_surface`.

    The IsoFLOP runs that finished enter, held-out runs take no part. Raises ValueError for a suite that has no such
    run, and as :func:`bootstrap_surface`.

    Examples:

    >>> import delphi_jax as dj
    >>> study = dj.load_study("data", tables=["runs"])
    >>> isoflop = dj.fit_isoflop(study.runs)
    >>> found = dj.fit_study_surfaces(study.runs, ["Delphi Scaling Suite (AdamH)"], draws=40)
    >>> [(row["quantity"], row["status"]) for row in found.rows()][-2:]
    [('b/(a+b)', 'fitted'), ('a/(a+b)', 'fitted')]
    """
    used, _ = fit_runs(runs)
    known = np.unique(used.suite).tolist()
    if unknown := [suite for suite in suites or () if suite not in known]:
        raise ValueError(f"no IsoFLOP runs of {', '.join(unknown)}; the suites that have some are {', '.join(known)}")
    groups = {suite: used.where(used.suite == suite) for suite in (known if suites is None else suites)}
    return SurfaceStudy(
        tuple(
            bootstrap_surface(
                group.params,
                group.tokens,
                group.loss,
                objective=objective,
                at=at,
                draws=draws,
                seed=seed,
                percentiles=percentiles,
                series=suite,
            )
            for suite, group in groups.items()
        )
    )
