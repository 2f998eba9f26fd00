# The public names of the package, and where each lives: read by type checkers and by the package itself.

from .answers import draw_answer as draw_answer
from .definition import Definition as Definition
from .definition import delphi as delphi
from .draw import Drawing as Drawing
from .draw import draw_figures as draw_figures
from .draw import study_figures as study_figures
from .export import document_json as document_json
from .export import to_plotly as to_plotly
from .export import write_figures as write_figures
from .fetch.columns import ColumnMap as ColumnMap
from .fetch.files import check_file as check_file
from .fetch.files import fetch_file as fetch_file
from .fetch.hf import check_hf as check_hf
from .fetch.hf import fetch_hf as fetch_hf
from .fetch.wandb import check_wandb as check_wandb
from .fetch.wandb import fetch_wandb as fetch_wandb
from .fit.allocation import allocate as allocate
from .fit.coverage import coverage_study as coverage_study
from .fit.downstream import (
    RichardsProblem as RichardsProblem,
)
from .fit.downstream import (
    fit_downstream as fit_downstream,
)
from .fit.downstream import (
    fit_richards as fit_richards,
)
from .fit.downstream import (
    fit_richards_curves as fit_richards_curves,
)
from .fit.downstream_intervals import downstream_intervals as downstream_intervals
from .fit.forecasts import forecast_intervals as forecast_intervals
from .fit.intervals import (
    StudyBatch as StudyBatch,
)
from .fit.intervals import (
    study_intervals as study_intervals,
)
from .fit.isoflop import fit_isoflop as fit_isoflop
from .fit.law import (
    bootstrap_law as bootstrap_law,
)
from .fit.law import (
    fit_law as fit_law,
)
from .fit.law import (
    fit_laws as fit_laws,
)
from .fit.law import (
    fit_shared_laws as fit_shared_laws,
)
from .fit.law import (
    resampling_indices as resampling_indices,
)
from .fit.law_intervals import law_study as law_study
from .fit.law_intervals import profile_intervals as profile_intervals
from .fit.overtraining import fit_overtraining as fit_overtraining
from .fit.speedup import effective_speedup as effective_speedup
from .fit.stream import bootstrap_study as bootstrap_study
from .fit.study import fit_held_out as fit_held_out
from .fit.study import fit_seeds as fit_seeds
from .fit.study import fit_study as fit_study
from .fit.surface import bootstrap_surface as bootstrap_surface
from .fit.surface import fit_surface as fit_surface
from .fit.surface import fit_surfaces as fit_surfaces
from .fit.surface_study import fit_study_surfaces as fit_study_surfaces
from .fit.sweep import fit_sweep as fit_sweep
from .fit.validation import leave_future_out as leave_future_out
from .io import load_study as load_study
from .io.definition import read_definition as read_definition
from .plots.theme import THEMES as THEMES
from .plots.theme import Theme as Theme
from .plots.theme import recolor as recolor
from .plots.theme import theme_from as theme_from
from .plots.vision import color_conflicts as color_conflicts
from .report.build import build_report as build_report
from .report.build import page_bytes as page_bytes
from .results import (
    BootstrapFit as BootstrapFit,
)
from .results import (
    BootstrapStudy as BootstrapStudy,
)
from .results import (
    CellFit as CellFit,
)
from .results import (
    DownstreamFit as DownstreamFit,
)
from .results import (
    HeldOutFit as HeldOutFit,
)
from .results import (
    IsoflopFit as IsoflopFit,
)
from .results import (
    LawFit as LawFit,
)
from .results import (
    OvertrainingFit as OvertrainingFit,
)
from .results import (
    ParabolaFit as ParabolaFit,
)
from .results import (
    RichardsFit as RichardsFit,
)
from .results import (
    SeedFit as SeedFit,
)
from .results import (
    StudyFit as StudyFit,
)
from .results import (
    SweepFit as SweepFit,
)
from .results.allocation import AllocationFit as AllocationFit
from .results.check import StudyCheck as StudyCheck
from .results.check import check_study as check_study
from .results.coverage import CoverageFit as CoverageFit
from .results.downstream import DownstreamIntervals as DownstreamIntervals
from .results.intervals import (
    IntervalsFit as IntervalsFit,
)
from .results.intervals import (
    SuiteIntervals as SuiteIntervals,
)
from .results.law import Objective as Objective
from .results.law import PinnedAsymptote as PinnedAsymptote
from .results.law_intervals import LawIntervals as LawIntervals
from .results.law_intervals import LawStudy as LawStudy
from .results.speedup import SpeedupFit as SpeedupFit
from .results.surface import SurfaceBootstrap as SurfaceBootstrap
from .results.surface import SurfaceFit as SurfaceFit
from .results.surface import SurfaceObjective as SurfaceObjective
from .results.surface import SurfaceStudy as SurfaceStudy
from .results.validation import ValidationFit as ValidationFit
from .simulate import simulate_study as simulate_study
from .simulate import write_study as write_study
from .status import InputError as InputError
from .status import Status as Status
from .tables import Study as Study

__version__: str
