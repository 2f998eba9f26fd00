"""The public names of the package, and where each lives: read by type checkers and by the package itself."""

from .draw import FIGURES as FIGURES
from .draw import Drawing as Drawing
from .draw import draw_figures as draw_figures
from .export import document_json as document_json
from .export import to_plotly as to_plotly
from .export import write_figures as write_figures
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
from .fit.overtraining import fit_overtraining as fit_overtraining
from .fit.stream import bootstrap_study as bootstrap_study
from .fit.study import fit_held_out as fit_held_out
from .fit.study import fit_seeds as fit_seeds
from .fit.study import fit_study as fit_study
from .fit.sweep import fit_sweep as fit_sweep
from .io import load_study as load_study
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
from .simulate import simulate_study as simulate_study
from .simulate import write_study as write_study
from .status import InputError as InputError
from .status import Status as Status
from .tables import Study as Study

__version__: str
