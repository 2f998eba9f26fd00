"""Scaling laws fitted on JAX kernels: load a study, fit it, say how sure the forecasts are, draw the figures.

Importing this package changes nothing: no JAX configuration, environment, warnings or logging. The public names
stand in ``__init__.pyi`` and are loaded when first used, so that the import itself takes no time.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
