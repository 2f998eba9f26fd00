"""Benchmarks, and the plain NumPy, SciPy and scikit-learn twin that they take ratios against."""
