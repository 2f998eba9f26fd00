"""What the study says, in sentences: no number without its interval and status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from delphi_jax.report.model import Group, Headline, Sentence, shortened
from delphi_jax.results import LawFit, Result, SeedFit, StudyFit
from delphi_jax.status import Status
from delphi_jax.text import scientific

__all__ = ["figure_reading", "headlines", "methods", "profile_ends", "says"]


def profile_ends(answers: Mapping[str, Result]) -> dict[str, dict[float, tuple[float, float]]]:
    """Ends of the forecasts' profile intervals by suite and budget, where the answers hold them."""
    study: Any = answers.get("law-profile")
    if study is None:
        return {}
    return {
        each.law.series: dict(zip(each.targets.tolist(), zip(each.low[2:], each.high[2:], strict=True), strict=True))
        for each in study.intervals
        if each.status.usable
    }


def headlines(fit: StudyFit, answers: Mapping[str, Result]) -> tuple[Headline, ...]:
    """The furthest forecast of every suite, and the speedup between two."""
    found = []
    for suite, bootstrap in fit.bootstraps.items():
        place = int(np.argmax(bootstrap.targets))
        target, interval, law = float(bootstrap.targets[place]), bootstrap.intervals[place], fit.laws[suite]
        status = _both(law.status, bootstrap.status)
        edges = _edges(fit, suite)
        found.append(
            Headline(
                f"{fit.definition.metric.name} at {scientific(target)} FLOPs",
                suite,
                f"{float(law.loss_at(target)):.3f}",
                _range(interval.low, interval.high, ".3f"),
                f"{status}; {edges}" if edges else status,
            )
        )
    speedup: Any = answers.get("effective-speedup")
    if speedup is not None and (line := speedup.matched.pooled) is not None and np.isfinite(line.value):
        first, second = speedup.suites
        status = _both(line.status, line.interval_status)
        found.append(
            Headline(
                "times the compute for the same loss",
                f"{second} against {first}",
                f"{line.value:.2f}×",
                _interval(line),
                status,
            )
        )
    return tuple(found)


def says(fit: StudyFit, answers: Mapping[str, Result]) -> tuple[Group, ...]:
    """What was found, subject by subject."""
    groups = [
        Group("Scaling laws", tuple(_laws(fit, answers))),
        Group("Forecasts", tuple(_forecasts(fit, profile_ends(answers)))),
        Group("Held-out runs", tuple(_held_out(fit))),
        Group("Allocation of compute", tuple(_allocation(answers))),
        Group("One recipe against the other", tuple(_speedup(answers))),
        Group("Downstream tasks", tuple(_downstream(fit, answers))),
        Group("What to do next", tuple(next_steps(fit))),
    ]
    return tuple(group for group in groups if group.sentences)


def _laws(fit: StudyFit, answers: Mapping[str, Result]) -> Iterable[Sentence]:
    study: Any = answers.get("law-profile")
    profiles = {each.law.series: each for each in study.intervals} if study is not None else {}
    for suite, law in fit.laws.items():
        edges = _edges(fit, suite) if law.fitted else ""
        yield Sentence(suite, _law(law, profiles.get(suite)) + (f" {edges[:1].upper()}{edges[1:]}." if edges else ""))


def _edges(fit: StudyFit, suite: str) -> str:
    """How many optima of a suite's law are an edge of their runs instead of a minimum, and why; nothing if none is."""
    optima = fit.isoflop.of(suite) if fit.isoflop is not None else ()
    statuses = [each.status for each in optima if each.status is not Status.FITTED]
    if not statuses:
        return ""
    kinds = list(dict.fromkeys(statuses))
    why = kinds[0].label if len(kinds) == 1 else _and([f"{statuses.count(kind)} {kind.label}" for kind in kinds])
    no_minimum = "has no minimum of its own" if len(statuses) == 1 else "have no minimum of their own"
    return f"{len(statuses)} of {len(optima)} optima {no_minimum} ({why})"


def _law(law: LawFit, each: Any) -> str:
    """One law, with the profile intervals of ``each`` where there are some."""
    if not law.fitted:
        return f"No law: {law.status.label}; {law.status.remedy}."
    span = f"{len(law.compute)} budgets from {scientific(law.compute.min())} to {scientific(law.compute.max())} FLOPs"
    head = f"Over {span} the best loss falls as L_inf + A·C^(−alpha)"
    if each is None or not each.status.usable:
        why = "not computed" if each is None else each.status.label
        point = f"L_inf = {law.L_inf:.3f} and alpha = {law.alpha:.4f}"
        return f"{head}, {point}; intervals of both: {why}; {law.status.label}."
    L_inf, alpha = each.estimates[:2]
    cut = [
        f"{name} is cut by {' and '.join(filter(None, dict.fromkeys((low.label, high.label))))}"
        for name, low, high in zip(("L_inf", "alpha"), each.low_bound, each.high_bound, strict=False)
        if low | high
    ]
    bounds = f"; the interval of {', of '.join(cut)}" if cut else ""
    return (
        f"{head}, L_inf = {L_inf:.3f} ({_range(each.low[0], each.high[0], '.3f')}) and alpha = {alpha:.4f} "
        f"({_range(each.low[1], each.high[1], '.4f')}); {100 * each.level:g} % profile intervals; "
        f"{law.status.label}{bounds}."
    )


def _forecasts(fit: StudyFit, profiles: Mapping[str, Mapping[float, tuple[float, float]]]) -> Iterable[Sentence]:
    for suite, bootstrap in fit.bootstraps.items():
        law, (low, _, high) = fit.laws[suite], bootstrap.percentiles
        place = int(np.argmax(bootstrap.targets))
        target, interval = float(bootstrap.targets[place]), bootstrap.intervals[place]
        ends = f"{_level_range(high - low, interval.low, interval.high, '.3f')} by resampling the optima"
        if target in profiles.get(suite, {}):
            ends += f"; {_range(*profiles[suite][target], '.3f')} by profile likelihood"
        forecast = f"{fit.definition.metric.name} {float(law.loss_at(target)):.3f} at {scientific(target)} FLOPs"
        status = _both(law.status, bootstrap.status)
        yield Sentence(suite, f"{forecast}, {ends}; {status}.")


def _held_out(fit: StudyFit) -> Iterable[Sentence]:
    if fit.held_out is None:
        return
    rows = fit.held_out.rows()
    for suite in dict.fromkeys((*fit.laws, *(run.suite for run in fit.held_out.runs))):
        parts = [
            f"{abs(row['residual (%)']):.2f} % {'worse' if row['residual (%)'] >= 0 else 'better'} at "
            f"{scientific(row['compute budget (FLOPs)'])} FLOPs ({_runs(int(row['runs']))})"
            for row in rows
            if row["suite"] == suite and np.isfinite(row["residual (%)"])
        ]
        said = [f"Against the forecast {_and(parts)}."] if parts else []
        if diverged := fit.held_out.diverged(suite):
            budgets = ", ".join(scientific(run.budget) for run in diverged)
            said.append(f"{_runs(len(diverged))} did not finish, no measurement ({budgets} FLOPs).")
        if fit.seeds is not None and fit.seeds.suite == suite:
            said += _seeds(fit.seeds)
        if said:
            yield Sentence(suite, " ".join(said))


def _seeds(seeds: SeedFit) -> list[str]:
    lines = [line for line in seeds.budgets if len(line.deviations)]
    total = sum(len(line.deviations) for line in lines)
    inside = sum(int(np.sum((line.deviations >= line.low) & (line.deviations <= line.high))) for line in lines)
    if not total:
        return []
    return [
        f"Run by run, {inside} of {total} lie inside the bootstrap's interval, which holds neither the noise of one "
        "run nor another form of the law."
    ]


def _allocation(answers: Mapping[str, Result]) -> Iterable[Sentence]:
    found: Any = answers.get("allocation")
    for suite in found.suites if found is not None else ():
        place = int(np.argmax(suite.budgets))
        parts = [
            f"{_band(line.at.params, place)} parameters on {_band(line.at.tokens, place)} tokens by {line.approach} "
            f"({line.status.label})"
            for line in suite.lines
            if np.isfinite(line.at.params.value[place])
        ]
        if parts:
            budget = (
                f"For {scientific(float(suite.budgets[place]))} FLOPs, in brackets {100 * suite.level:g} % intervals"
            )
            yield Sentence(suite.suite, f"{budget}: {'; '.join(parts)}.")


def _speedup(answers: Mapping[str, Result]) -> Iterable[Sentence]:
    found: Any = answers.get("effective-speedup")
    line = found.matched.pooled if found is not None else None
    if line is None or not np.isfinite(line.value):
        return
    first, second = map(shortened, found.suites)
    level, interval = f"{100 * found.matched.level:g} % interval", _interval(line)
    parts = [f"no {level}" if interval == _NO_INTERVAL else f"{level} {interval}"]
    if np.isfinite(line.probability):
        parts.append(f"probability that it is more than 1: {line.probability:.3g}")
    parts.append(_both(line.status, line.interval_status))
    needs = f"{second} needs {line.value:.3g} times the compute at matched budgets"
    yield Sentence(first, f"For the loss that it reaches, {needs} ({'; '.join(parts)}).")


def _downstream(fit: StudyFit, answers: Mapping[str, Result]) -> Iterable[Sentence]:
    found: Any = answers.get("downstream-intervals")
    for view in fit.downstream if found is None else ():
        forecast = f"{view.forecast_hard:.3f} at {scientific(view.forecast_budget)} FLOPs"
        yield Sentence(view.name, f"{forecast}; interval: not computed; {view.status.label}.")
    for view in () if found is None else found.views:
        place = int(np.argmax(view.budgets))
        forecast, ends = view.forecast_hard[place], (view.hard.low[place], view.hard.high[place])
        if not np.isfinite(forecast):
            yield Sentence(view.name, f"No forecast of the hard metric: {view.status.label}; {view.status.remedy}.")
            continue
        metric = str(view.rows()[-1]["metric"])
        bound = (
            f"; its curve lies on a bound in {100 * view.bound_share:.0f} % of the draws"
            if view.bound_share >= 0.005
            else ""
        )
        yield Sentence(
            view.name,
            f"{metric[:1].upper()}{metric[1:]} {forecast:.3f} at {scientific(float(view.budgets[place]))} FLOPs, "
            f"{_level_range(100 * view.level, *ends, '.3f')}; {view.status.label}{bound}.",
        )


def next_steps(fit: StudyFit) -> Iterable[Sentence]:
    """The remedy of every status of laws, parabolas and downstream forecasts that is not FITTED, with what it is of."""
    groups: dict[Status, list[str]] = {}
    for law in (*fit.laws.values(), *fit.shared_laws.values()):
        groups.setdefault(law.status, []).append(f"law of {shortened(law.series)}, {law.asymptote} asymptote")
    for each in fit.isoflop.parabolas if fit.isoflop is not None else ():
        groups.setdefault(each.status, []).append(
            f"parabola of {shortened(each.suite)} at {scientific(each.bucket)} FLOPs"
        )
    for view in fit.downstream:
        groups.setdefault(view.status, []).append(f"forecast of {shortened(view.name)}")
    for status, names in groups.items():
        if status is not Status.FITTED:
            remedy = f"{status.remedy[0].upper()}{status.remedy[1:]}"
            yield Sentence(status.label.capitalize(), f"{remedy} ({'; '.join(names)}).")


def methods(fit: StudyFit, answers: Mapping[str, Result]) -> tuple[str, ...]:
    """How the numbers came about, with their settings."""
    said = []
    if fit.isoflop is not None:
        said.append(
            "IsoFLOP optima: least-squares parabolas of the loss in log10 tokens, clipped to the observed range."
        )
    if law := next((law for law in fit.laws.values() if law.fitted), None):
        said.append(
            f"Laws: L(C) = L_inf + A·C^(−alpha) by the least squared log residual, L_inf on a grid of {law.n_grid}."
        )
    if bootstrap := next(iter(fit.bootstraps.values()), None):
        said.append(
            f"Bootstrap of the forecasts: the optima resampled, {bootstrap.n_draws} draws, seed {bootstrap.seed}, laws "
            f"on a grid of {bootstrap.n_grid} values, percentiles {', '.join(f'{p:g}' for p in bootstrap.percentiles)}."
        )
    if fit.downstream:
        said.append(
            "Downstream: a power law from compute to the soft metric, a Richards curve from there to the hard one."
        )
    if fit.sweep is not None:
        said.append(f"Hyper-parameter sweep: partial dependence under a Gaussian process ({fit.sweep.process}).")
    profile: Any = answers.get("law-profile")
    if profile is not None and profile.intervals:
        each = profile.intervals[0]
        said.append(f"Profile intervals: {each.method} at {100 * each.level:g} %, {each.law.objective.label}.")
    intervals: Any = answers.get("forecast-fan")
    said += [f"Interval {line}." for line in (intervals.settings() if intervals is not None else ())]
    for name in ("allocation", "downstream-intervals"):
        found: Any = answers.get(name)
        parts = getattr(found, "suites", ()) or getattr(found, "views", ())
        if parts:
            draws, seed, method = parts[0].draws, parts[0].seed, parts[0].method
            said.append(f"{name.capitalize().replace('-', ' ')}: {method}, {draws} draws, seed {seed}.")
    speedup: Any = answers.get("effective-speedup")
    if speedup is not None:
        matched = speedup.matched
        seed = "" if matched.seed is None else f", seed {matched.seed}"
        said.append(f"Speedup: {matched.method} bootstrap, {matched.draws} draws{seed}.")
    return tuple(said)


_READINGS = {
    "isoflop-parabolas": "Every curve is one compute budget: few tokens on the left, many on the right. The cross is "
    "the least loss that the budget buys.",
    "scaling-law-asymptote": "Dots are the optima of each budget, the dashed line the law through them.",
    "lucky-seeds": "Every dot is one seed in percent of the forecast, the band the forecast's interval.",
    "overtraining-forecast": "Move the slider: how much more compute a run needs to reach the forecast if it trains "
    "longer or shorter than optimal.",
    "mmlu-emergence": "A law takes compute to the soft metric on the left, a curve takes that to the hard one on the "
    "right. Choose the task below.",
    "hparam-scaling": "Each panel is the loss against one hyper-parameter, others averaged out. Choose the sweep "
    "cell above.",
    "forecast-fan": "Every whisker is one method's interval in percent of the forecast: no method is right everywhere.",
    "law-profile": "How much worse the law fits when its floor is moved: the flatter the valley, the less the data "
    "knows of it.",
    "leave-future-out": "Each point is a prediction by a law that knew the first budgets alone, by how far ahead it "
    "looked.",
    "allocation": "Best parameters and tokens against compute, by every approach; bands are their intervals.",
    "loss-surface": "Loss over parameters and tokens; the dashed line is the cheapest way down.",
    "effective-speedup": "How many times the compute the second suite needs for the loss of the first; above one the "
    "first is the faster.",
    "downstream-intervals": "The two-step forecast with both steps resampled together. Choose the task below.",
}


_LADDER = "The parabolas on the left give the optima; the law on the right goes through them."
_WITH_HELD_OUT = {
    "ladder": "Larger dots are held-out runs, which it never saw.",
    "scaling-law-asymptote": "Larger dots are held-out runs, which it never saw.",
    "forecast-fan": "Dots are what held-out runs showed.",
}
_WITH_EXTERNALS = "The curve takes in other models."
_WITH_RECIPE = "The cross is the recipe's choice."


def figure_reading(name: str, fit: StudyFit) -> str:
    """How to read a figure, of what the study holds; nothing where it is not known."""
    key = "ladder" if name in fit.definition.ladders else name
    parts = [_LADDER if key == "ladder" else _READINGS.get(name, "")]
    runs = fit.held_out.runs if fit.held_out is not None else ()
    # A ladder shows one suite.
    suite = fit.definition.ladders[name].label if key == "ladder" else None
    if any(suite in (None, run.suite) for run in runs):
        parts.append(_WITH_HELD_OUT.get(key, ""))
    if key == "mmlu-emergence" and any(len(view.external_names) for view in fit.downstream):
        parts.append(_WITH_EXTERNALS)
    sweep = fit.definition.sweep
    if key == "hparam-scaling" and sweep is not None and any(each.heuristic for each in sweep.hyper_parameters):
        parts.append(_WITH_RECIPE)
    return " ".join(filter(None, parts))


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


_NO_INTERVAL = "no interval"


def _range(low: float, high: float, form: str) -> str:
    if not (np.isfinite(low) and np.isfinite(high)):
        return _NO_INTERVAL
    return f"{low:{form}} to {high:{form}}"


def _level_range(level: float, low: float, high: float, form: str) -> str:
    """An interval within a sentence; ``level`` in percent."""
    ends = _range(low, high, form)
    return f"no {level:g} % interval" if ends == _NO_INTERVAL else f"{level:g} % interval {ends}"


def _interval(line: Any) -> str:
    """The interval of a speedup, whose ends may be infinite."""
    low, high = (
        "infinite" if infinite else f"{end:.3g}"
        for end, infinite in zip((line.low, line.high), line.infinite, strict=True)
    )
    return _NO_INTERVAL if "nan" in (low, high) else f"{low} to {high}"


def _band(band: Any, place: int) -> str:
    value, low, high = (float(end[place]) for end in (band.value, band.low, band.high))
    return f"{scientific(value)} ({scientific(low)} to {scientific(high)})" if np.isfinite(low) else scientific(value)


def _both(one: Status, other: Status) -> str:
    """Both statuses in words, once where they are the same."""
    return " / ".join(dict.fromkeys((one.label, other.label)))


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
