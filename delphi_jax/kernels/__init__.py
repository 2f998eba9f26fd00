"""Pure JAX kernels, one algorithm a file: arrays in, NamedTuples of arrays out, no tables, files or printing."""
