"""Typed, immutable results of every fit: NumPy arrays and plain numbers, no JAX, no pandas.

Each result prints as a table, converts to pandas (``to_frame``) and to JSON (``to_json``); all three come
from ``rows()``, the one place that says what a reader should see.
"""

from delphi_jax.results.base import Floats as Floats
from delphi_jax.results.base import Interval as Interval
from delphi_jax.results.base import Result as Result
from delphi_jax.results.downstream import DownstreamFit as DownstreamFit
from delphi_jax.results.downstream import RichardsFit as RichardsFit
from delphi_jax.results.held_out import HeldOutFit as HeldOutFit
from delphi_jax.results.held_out import HeldOutRun as HeldOutRun
from delphi_jax.results.held_out import SeedDeviation as SeedDeviation
from delphi_jax.results.held_out import SeedFit as SeedFit
from delphi_jax.results.isoflop import IsoflopFit as IsoflopFit
from delphi_jax.results.isoflop import ParabolaFit as ParabolaFit
from delphi_jax.results.law import BootstrapFit as BootstrapFit
from delphi_jax.results.law import BootstrapStudy as BootstrapStudy
from delphi_jax.results.law import LawFit as LawFit
from delphi_jax.results.overtraining import OvertrainingFit as OvertrainingFit
from delphi_jax.results.overtraining import OvertrainingScale as OvertrainingScale
from delphi_jax.results.study import StudyFit as StudyFit
from delphi_jax.results.sweep import CellFit as CellFit
from delphi_jax.results.sweep import LeaveOneOut as LeaveOneOut
from delphi_jax.results.sweep import PartialDependence as PartialDependence
from delphi_jax.results.sweep import SweepFit as SweepFit
