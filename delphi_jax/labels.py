"""Words that stand in more than one place: display names, axis titles, captions."""

from __future__ import annotations

from delphi_jax.text import scientific

__all__ = [
    "ANSWER_TITLES",
    "ANSWER_TITLES_ALONE",
    "APPROACHES",
    "APPROACH_NAMES",
    "ARD",
    "BOOTSTRAP_METHODS",
    "BROAD",
    "COMPUTE",
    "DIVERGED",
    "EXTERNAL_MODELS",
    "EXTRAPOLATION_SIDE",
    "FIGURE_FORMATS",
    "FIGURE_TITLES",
    "FIT_SIDE",
    "FLOPS",
    "INTERVAL_KINDS",
    "INTERVAL_METHODS",
    "INTERVAL_NAMES",
    "LADDER_TITLE",
    "LADDER_TITLE_ALONE",
    "LAW_VALUE",
    "LIKELIEST",
    "MOBILE_FIGURES",
    "NEW_OPTIMUM",
    "NEW_RUN",
    "NOISE_MODELS",
    "OPTIMAL_PARAMS",
    "OPTIMAL_TOKENS",
    "PARABOLA",
    "PARAMS",
    "PROCESSES",
    "PROCESS_NAMES",
    "RANDOM_CHANCE",
    "REFERENCE_METHOD",
    "SIDES",
    "SPLINE",
    "SURFACE",
    "TOKENS",
    "budget_name",
]

BROAD, LIKELIEST, ARD = "broad", "likeliest", "ard"
PROCESSES = (BROAD, LIKELIEST, ARD)
"""Gaussian processes of the hyper-parameter sweep, see :func:`~delphi_jax.fit.sweep.fit_sweep`."""

PROCESS_NAMES = {
    BROAD: "broad mode",
    LIKELIEST: "likeliest mode",
    ARD: "ARD process",
}
"""As sentences and figures write them."""

BOOTSTRAP_METHODS = ("table", "stream", "exact")
"""How a bootstrap study makes its draws, see :func:`~delphi_jax.fit.stream.bootstrap_study`."""

PARABOLA, SPLINE, SURFACE = "parabola", "spline", "surface"
APPROACHES = (PARABOLA, SPLINE, SURFACE)
"""To the best allocation of compute: IsoFLOP optima by parabola (approach 2 of Hoffmann et al. 2022) or by smoothing
spline, and the loss surface (approach 3)."""

APPROACH_NAMES = {
    PARABOLA: "IsoFLOP parabolas (approach 2)",
    SPLINE: "IsoFLOP splines",
    SURFACE: "loss surface (approach 3)",
}
"""As a legend writes them."""

FLOPS = ("measured", "6nd")
"""How the FLOPs of an allocation are counted, see :func:`~delphi_jax.fit.allocation.allocate`."""

NOISE_MODELS = ("additive", "reducible")
"""A simulated run's noise: the same everywhere in nats, or proportional to loss - L_inf."""

LAW_VALUE, NEW_OPTIMUM, NEW_RUN = "law", "new optimum", "new run"
"""What an interval may hold: the law's value, the optimum that a new bucket's runs would give, or a single new run."""

SIDES = ("inside", "beyond")
"""Where a forecast's budget lies: among those of the fit, or outside them."""

INTERVAL_KINDS = {
    "percentile": "law",
    "basic": "law",
    "bca": "law",
    "parametric": "law",
    "runs": "law",
    "hierarchical": "law",
    "profile": "law",
    "student-t": "new optimum",
}
"""What an interval of each method is for: the law's value, or the optimum that a new bucket's runs would give."""

INTERVAL_METHODS = tuple(INTERVAL_KINDS)
"""Of forecasts, see :func:`~delphi_jax.fit.intervals.study_intervals`."""

REFERENCE_METHOD = "reference"
"""The published figures' interval, beside those: optima resampled, their laws on a grid."""

INTERVAL_NAMES = {
    REFERENCE_METHOD: "percentile: optima, grid",
    "percentile": "percentile: optima",
    "basic": "basic: optima",
    "bca": "BCa: optima",
    "parametric": "parametric: noise",
    "runs": "runs: within buckets",
    "hierarchical": "hierarchical: both",
    "profile": "profile likelihood",
    "student-t": "Student-t: pinned",
}
"""What figures call the methods: each with what it resamples, or what it is."""

COMPUTE = "Compute (FLOPs)"
TOKENS = "Training tokens"
PARAMS = "Parameters"
OPTIMAL_PARAMS, OPTIMAL_TOKENS = "Optimal parameters N*", "Optimal training tokens D*"

FIT_SIDE = "fit ← "
EXTRAPOLATION_SIDE = " → extrapolation"
DIVERGED = "Run Diverged"
EXTERNAL_MODELS = "External Models Used for Regression"
RANDOM_CHANCE = "random chance"


def budget_name(budget: float) -> str:
    """A compute budget as run names write it: "1e25"."""
    return scientific(budget).replace("+", "")


FIGURE_FORMATS = ("json", "html", "png", "svg", "pdf")
"""How a figure can be written; the last three are images."""

FIGURE_TITLES = {
    "isoflop-parabolas": "Where the compute-optimal point of each budget lies",
    "scaling-law-asymptote": "Optima and their scaling law",
    "lucky-seeds": "Held-out runs beside the forecast's interval",
    "overtraining-forecast": "What training longer or shorter than optimal costs",
    "mmlu-emergence": "From compute to a soft metric, and from there to a hard one",
    "hparam-scaling": "How the loss depends on each hyper-parameter",
}
"""What each figure of a study shows, by name, in the order in which a reader meets them, where the study gives it no
title of its own; the ladders of its suites come third."""

MOBILE_FIGURES = ("mmlu-emergence", "hparam-scaling")
"""Those that have a mobile variant; ladders have one too."""

LADDER_TITLE = "{}: from IsoFLOP parabolas to held-out runs"
"""Of one suite's ladder figure."""

LADDER_TITLE_ALONE = "{}: from IsoFLOP parabolas to the scaling law"
"""The same where nothing is held out."""

ANSWER_TITLES: dict[str, str] = {
    "allocation": "How compute is best shared between parameters and tokens",
    "downstream-intervals": "How sure the two-step forecast of a hard metric is",
    "forecast-fan": "How sure the forecast is, by every method, and where the held-out runs fell",
    "interval-coverage": "How often each interval holds the truth of simulated studies",
    "effective-speedup": "How many times the compute one recipe needs for the loss of another",
    "law-profile": "How well the data determine the asymptote",
    "loss-surface": "Loss over parameters and tokens, and the cheapest way down",
    "leave-future-out": "Would the law have been right? Errors of refits by how far ahead they looked",
}
"""What each figure of an answer shows, by name; its mobile variant shows the same."""

ANSWER_TITLES_ALONE = {"forecast-fan": "How sure the forecast is, by every method"}
"""Of those that show something else where nothing is held out."""
